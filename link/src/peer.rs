//! A peer: a connection, the certificate that was proven on it, and what was said in the hello.
//!
//! Asking it lies in `call.rs` and `feed.rs`, serving it in `serve.rs`.

use crate::{
    close::{CloseCode, CloseReason},
    endpoint::plain,
    error::CallError,
    hello::Greeting,
};
use dora_remote_certs::{CertificateFacts, JoinKey};
use dora_remote_protocol::{
    hello::{Hello, Welcome},
    identity::Identity,
    limits::{CONNECTION_WINDOW_BYTES, DIAL_DEADLINE},
};
use quinn::{Connection, ConnectionError, VarInt};
use rustls::pki_types::CertificateDer;
use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::sync::watch;

/// What a proven peer may do at all, before any verb is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// What the role of its certificate allows.
    Full,
    /// Only to renew: its certificate has lapsed and its key is known.
    RenewOnly,
    /// Only to join: it has shown the key of an invite, and no certificate of ours.
    JoinOnly(JoinKey),
}

/// A handle to one connection. Clones are cheap; when the last one is dropped, the connection is closed as done.
#[derive(Clone)]
pub struct Peer {
    inner: Arc<Inner>,
}

impl Peer {
    /// Who the peer is, as its certificate says; with [`Rights::JoinOnly`] whom its invite is for, which it is not yet.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.inner.certificate.identity
    }

    /// The certificate that the peer has shown. With [`Rights::JoinOnly`] there is none of ours: its serial is empty then.
    #[must_use]
    pub fn certificate(&self) -> &CertificateFacts {
        &self.inner.certificate
    }

    /// What it may do. On the dialling side always [`Rights::Full`].
    #[must_use]
    pub fn rights(&self) -> Rights {
        self.inner.rights
    }

    /// Where it is now; changes when the peer or its NAT moves. An IPv4 address is never shown as a mapped one.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        plain(self.inner.connection.remote_address())
    }

    /// What it said of itself; known on the accepting side alone.
    #[must_use]
    pub fn hello(&self) -> Option<&Hello> {
        self.inner.hello.as_ref()
    }

    /// A number that no other peer of this process has had.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// Waits until the hello was answered; on the accepting side it was. Cancel safe.
    ///
    /// # Errors
    /// [`CallError::HelloRefused`], [`CallError::PeerRefusedUs`], [`CallError::TimedOut`] or [`CallError::Lost`].
    pub async fn welcome(&self) -> Result<Welcome, CallError> {
        let mut greeting = self.inner.greeting.subscribe();
        let waiting = async {
            match greeting.wait_for(Option::is_some).await {
                Ok(answer) => answer.clone(),
                Err(_) => None,
            }
        };
        tokio::select! {
            biased;
            answer = waiting => answer.unwrap_or_else(|| Err(self.gone())),
            () = tokio::time::sleep(DIAL_DEADLINE) => Err(CallError::TimedOut { after: DIAL_DEADLINE }),
        }
    }

    /// Closes the connection at once. What is in flight is lost: the side that reads last closes.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.inner.close(code, reason);
    }

    /// Closes the connection and lets the packet that says so leave, so that a process may exit right afterwards.
    /// Takes a few scheduler turns, at most 100 ms.
    pub async fn close_and_flush(&self, code: CloseCode, reason: &str) {
        // The stack does not count frames that close; after a close nothing else is sent, so the next datagram is the one.
        let sent = || self.inner.connection.stats().udp_tx.datagrams;
        let before = sent();
        self.close(code, reason);
        let flushing = async {
            while sent() == before {
                tokio::task::yield_now().await;
            }
        };
        // Nothing depends on that packet; the peer would notice by its idle timeout.
        drop(tokio::time::timeout(CLOSE_FLUSH, flushing).await);
    }

    /// Waits for the end of the connection and says how it came. Cancel safe.
    pub async fn closed(&self) -> CloseReason {
        let error = self.inner.connection.closed().await;
        self.reason_of(&error)
    }

    /// Tells whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.connection.close_reason().is_some()
    }

    /// How the connection ended, if it has.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        let error = self.inner.connection.close_reason()?;
        Some(self.reason_of(&error))
    }

    /// The current estimate of the round-trip time.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.inner.connection.rtt()
    }

    /// Makes a packet leave now that the peer acknowledges: a NAT that has given this side another port, and a coordinator that has
    /// forgotten the connection, come to light by it and by nothing that is only waited for.
    ///
    /// QUIC has PING for that (RFC 9000 section 19.2), which the stack does not offer; saying the receive window anew does the same.
    pub fn nudge(&self) {
        let connection = &self.inner.connection;
        connection.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES + 1));
        connection.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES));
    }

    /// The largest datagram in bytes that the path to the peer takes, as far as it is known (RFC 9000 section 14), and how often that
    /// turned out to be less than before.
    #[must_use]
    pub fn path_mtu(&self) -> (u16, u64) {
        let path = self.inner.connection.stats().path;
        (path.current_mtu, path.black_holes_detected)
    }

    /// Bytes of UDP payload sent and received so far; headers of IP and UDP come on top.
    #[must_use]
    pub fn datagram_stats(&self) -> (u64, u64) {
        let stats = self.inner.connection.stats();
        (stats.udp_tx.bytes, stats.udp_rx.bytes)
    }

    /// Moves the time at which the connection ends with its certificate, after the peer was issued a new one on it.
    pub fn extend_certificate(&self, not_after: SystemTime) {
        self.inner.certificate_end.send_if_modified(|end| {
            let later = not_after > *end;
            if later {
                *end = not_after;
            }
            later
        });
    }

    pub(crate) fn new(parts: PeerParts) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let not_after = parts.certificate.not_after;
        Self {
            inner: Arc::new(Inner {
                id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
                connection: parts.connection,
                certificate: parts.certificate,
                chain: parts.chain,
                rights: parts.rights,
                hello: parts.hello,
                greeting: watch::Sender::new(parts.greeting),
                ours: OnceLock::new(),
                certificate_end: watch::Sender::new(not_after),
            }),
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.inner.connection
    }

    /// The chain that the peer has shown, its own certificate first; with [`Rights::JoinOnly`] nobody stands behind it.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.inner.chain
    }

    pub(crate) fn certificate_end(&self) -> watch::Receiver<SystemTime> {
        self.inner.certificate_end.subscribe()
    }

    pub(crate) fn downgrade(&self) -> WeakPeer {
        WeakPeer(Arc::downgrade(&self.inner))
    }

    /// Resolves when the hello was refused or could not be answered; never when it was accepted.
    pub(crate) async fn refused(&self) -> CallError {
        let mut greeting = self.inner.greeting.subscribe();
        match greeting.wait_for(|answer| matches!(answer, Some(Err(_)))).await {
            Ok(answer) => match &*answer {
                Some(Err(error)) => error.clone(),
                Some(Ok(_)) | None => self.gone(),
            },
            Err(_) => self.gone(),
        }
    }

    /// What the loss of the connection means to a caller.
    pub(crate) fn lost(&self, error: &ConnectionError) -> CallError {
        let reason = self.reason_of(error);
        if let CloseReason::RefusedByPeer { alert } = reason {
            return CallError::PeerRefusedUs { alert };
        }
        // A connection that ended because its hello came to nothing is best explained by that.
        let on_purpose = matches!(reason, CloseReason::ByUs { .. } | CloseReason::ByPeer { .. });
        if on_purpose && let Some(Err(ungreeted)) = &*self.inner.greeting.borrow() {
            return ungreeted.clone();
        }
        CallError::Lost(reason)
    }

    fn gone(&self) -> CallError {
        self.lost(&self.inner.connection.close_reason().unwrap_or(ConnectionError::LocallyClosed))
    }

    fn reason_of(&self, error: &ConnectionError) -> CloseReason {
        CloseReason::of(error, self.inner.ours.get())
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("id", &self.inner.id)
            .field("identity", &format_args!("{}", self.identity()))
            .field("remote", &self.remote_address())
            .finish_non_exhaustive()
    }
}

/// What a peer is made of.
pub(crate) struct PeerParts {
    pub(crate) connection: Connection,
    pub(crate) certificate: CertificateFacts,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) rights: Rights,
    pub(crate) hello: Option<Hello>,
    pub(crate) greeting: Greeting,
}

/// A handle that keeps no connection open.
pub(crate) struct WeakPeer(Weak<Inner>);

impl WeakPeer {
    pub(crate) fn upgrade(&self) -> Option<Peer> {
        self.0.upgrade().map(|inner| Peer { inner })
    }

    /// Tells everybody who waits how the hello fared.
    pub(crate) fn greeted(&self, answer: Result<Welcome, CallError>) {
        if let Some(inner) = self.0.upgrade() {
            inner.greeting.send_replace(Some(answer));
        }
    }
}

struct Inner {
    id: u64,
    connection: Connection,
    certificate: CertificateFacts,
    chain: Vec<CertificateDer<'static>>,
    rights: Rights,
    hello: Option<Hello>,
    greeting: watch::Sender<Greeting>,
    ours: OnceLock<(CloseCode, String)>,
    certificate_end: watch::Sender<SystemTime>,
}

impl Inner {
    fn close(&self, code: CloseCode, reason: &str) {
        if self.connection.close_reason().is_none() {
            // The first one who closes says why.
            drop(self.ours.set((code, reason.to_owned())));
            self.connection.close(code.var(), reason.as_bytes());
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close(CloseCode::Done, "");
    }
}

/// How long [`Peer::close_and_flush`] waits for its packet.
const CLOSE_FLUSH: Duration = Duration::from_millis(100);
