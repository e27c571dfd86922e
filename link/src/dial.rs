//! The dialling side: from credentials to a connection with the hello sent in the flight after the TLS handshake.
//!
//! Addresses and the race between them lie in `race.rs`, sockets that die or reach nobody in `sockets.rs`. When and how often to
//! dial is the caller's business; see `retry.rs`.

use crate::{
    address::Address,
    close::CloseCode,
    endpoint::{self, DialKind, plain},
    error::{CallError, DialError, LinkError},
    hello::{self, Speaker},
    idle::OpenStreams,
    patience::Patience,
    peer::{Peer, PeerParts, Rights, WeakPeer},
    present::BodyBudget,
    race::Race,
    router::Router,
    serve::Service,
    shutdown::Tasks,
    sockets::Sockets,
    stream::{FrameReader, StreamError},
    verdict::verdict,
};
use dora_remote_certs::{
    Clock, Credentials, JoinCredentials, JoinTarget, SystemClock, VerifyReport, client_config_for_join,
    client_config_with_report, facts_of,
};
use dora_remote_protocol::{hello::HelloAnswer, limits::DIAL_DEADLINE};
use quinn::{ClientConfig, Connection, crypto::rustls::QuicClientConfig};
use rustls::pki_types::CertificateDer;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, UNIX_EPOCH},
};
use tokio::time::{timeout, timeout_at};

/// Dials coordinators with one set of credentials. One UDP socket, opened with the first dial, serves all its connections, until it
/// dies or three dials in a row have reached nobody from it: the next dial has another one then.
pub struct Dialer {
    shown: Shown,
    speaker: Speaker,
    kind: DialKind,
    clock: Arc<dyn Clock>,
    sockets: Sockets,
    counter: AtomicU64,
    handlers: Tasks,
    loops: Tasks,
}

impl Dialer {
    /// A dialler that judges certificates by the clock of the machine. Opens nothing yet.
    ///
    /// # Errors
    /// [`LinkError::Credentials`] when the credentials make no TLS configuration.
    pub fn new(credentials: &Credentials, speaker: Speaker, kind: DialKind) -> Result<Self, LinkError> {
        Self::with_clock(credentials, speaker, kind, Arc::new(SystemClock))
    }

    /// A dialler that judges certificates by `clock`.
    ///
    /// # Errors
    /// As [`Dialer::new`].
    pub fn with_clock(
        credentials: &Credentials,
        speaker: Speaker,
        kind: DialKind,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LinkError> {
        Self::showing(Shown::Identity(credentials.clone()), speaker, kind, clock)
    }

    pub(crate) fn showing(shown: Shown, speaker: Speaker, kind: DialKind, clock: Arc<dyn Clock>) -> Result<Self, LinkError> {
        // Made here once to fail early; each attempt makes its own, for a report of its own.
        shown.config(Arc::clone(&clock), Arc::default())?;
        Ok(Self {
            shown,
            speaker,
            kind,
            clock,
            sockets: Sockets::new(kind),
            counter: AtomicU64::new(0),
            handlers: Tasks::new(),
            loops: Tasks::new(),
        })
    }

    /// Raises the counter that the hellos carry: what a daemon remembers of its former life goes in here.
    pub fn raise_counter(&self, at_least: u64) {
        self.counter.fetch_max(at_least, Ordering::Relaxed);
    }

    /// The counter of the last hello.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.counter.load(Ordering::Relaxed)
    }

    /// Connects to a coordinator, within [`DIAL_DEADLINE`]. The hello is sent and not waited for, so that a command may go
    /// along with it: with TLS 1.3, that our certificate was refused is learnt from [`Peer::welcome`] or the first call.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn dial(&self, address: &Address) -> Result<Peer, DialError> {
        Ok(self.connect(address).await?.peer)
    }

    /// As [`Dialer::dial`], and serves what the coordinator asks on this connection, until it ends or the peer is dropped.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn dial_with_router(&self, address: &Address, router: Router) -> Result<Peer, DialError> {
        let router = router.build().map_err(LinkError::from)?;
        let Dialled { peer, connection, .. } = self.connect(address).await?;
        let service = Service {
            router: Arc::new(router),
            handlers: self.handlers.clone(),
            gatekeeper: None,
            on_refusal: Arc::new(|_, _| {}),
            patience: Patience::default(),
        };
        let weak = peer.downgrade();
        self.loops.spawn("orders", async move {
            service.run(&weak, &connection, &OpenStreams::new(), &BodyBudget::new()).await;
        });
        Ok(peer)
    }

    /// Moves all connections to other ports, and tells the peers so: right after the network has changed, or the machine has slept.
    /// Does nothing before the first dial. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`LinkError`] when no socket is to be had; the old one is kept then.
    pub fn rebind(&self) -> Result<(), LinkError> {
        self.sockets.rebind()
    }

    /// Ends everything: tells handlers, waits for them up to `grace`, closes the connections, lets the last packets leave.
    /// Safe to call twice. Further dials fail.
    pub async fn shutdown(&self, grace: Duration) {
        if !self.handlers.end(grace).await {
            tracing::debug!("some orders were dropped because they did not end in time");
        }
        self.sockets.close(CloseCode::Done);
        self.loops.end(endpoint::LAST_PACKETS).await;
        // A peer that is gone would keep a socket waiting; nobody needs more than the last packets.
        drop(timeout(endpoint::LAST_PACKETS, self.sockets.wait_idle()).await);
    }

    pub(crate) async fn connect(&self, address: &Address) -> Result<Dialled, DialError> {
        self.check_own_certificate()?;
        let began = Instant::now();
        let (connection, report) = self.reach(address, began).await?;
        let remote = plain(connection.remote_address());
        let chain = peer_chain(&connection);
        let broken = |detail: String| DialError::ServerRefused { address: remote, detail };
        let leaf = chain.first().ok_or_else(|| broken("there is none".to_owned()))?;
        let certificate = facts_of(leaf).map_err(|error| broken(error.to_string()))?;
        let peer = Peer::new(PeerParts {
            connection: connection.clone(),
            certificate,
            chain,
            rights: Rights::Full,
            hello: None,
            greeting: None,
        });
        let hello = self.speaker.hello(self.next_counter());
        let unsaid = |detail: String| DialError::Tls {
            address: remote,
            detail: format!("cannot say hello: {detail}"),
        };
        let answer = match timeout(DIAL_DEADLINE, hello::say(&connection, &hello)).await {
            Ok(said) => said.map_err(|error| match error {
                StreamError::Lost(error) => verdict(remote, &error, None),
                other => unsaid(other.to_string()),
            })?,
            Err(_) => return Err(unsaid("it takes no stream".to_owned())),
        };
        let weak = peer.downgrade();
        self.loops.spawn("hello", async move { await_answer(weak, answer).await });
        tracing::debug!(%remote, peer = %peer.identity(), took = ?began.elapsed(), "dialled");
        Ok(Dialled {
            peer,
            connection,
            report,
        })
    }

    /// People are told at once that their certificate has ended; a daemon tries, because it may still be let in to renew.
    fn check_own_certificate(&self) -> Result<(), DialError> {
        let Shown::Identity(credentials) = &self.shown else {
            return Ok(());
        };
        let not_after = credentials.certificate().not_after;
        let now = self.clock.now();
        if self.kind != DialKind::Daemon && now > not_after {
            return Err(DialError::OurCertificateExpired { not_after, now });
        }
        Ok(())
    }

    /// Finishes a handshake, from a second socket when the first one dies meanwhile.
    async fn reach(&self, address: &Address, began: Instant) -> Result<(Connection, Arc<VerifyReport>), DialError> {
        let is_ending = || self.handlers.token().is_cancelled();
        let mut is_second = false;
        loop {
            if is_ending() {
                return Err(LinkError::Ending.into());
            }
            let socket = self.sockets.for_dial()?;
            let (mut race, make_config) = (Race::default(), |report: &_| self.config(report));
            let running = race.run(&make_config, socket.endpoint(), address);
            let outcome = match timeout_at((began + DIAL_DEADLINE).into(), running).await {
                Ok(outcome) => outcome,
                Err(_) => Err(race.lost(address, began.elapsed())),
            };
            // What came of a dial from a dead socket tells nothing of the peer.
            if outcome.is_err() && socket.has_stopped() && (is_ending() || !is_second) {
                is_second = true;
                continue;
            }
            self.sockets.note(&socket, &outcome);
            return outcome;
        }
    }

    /// Starts from the wall clock, so that it goes forward from one process to the next as well.
    fn next_counter(&self) -> u64 {
        let since = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let step = |last: u64| Some(wall.max(last.saturating_add(1)));
        match self.counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step) {
            Ok(last) | Err(last) => wall.max(last.saturating_add(1)),
        }
    }

    /// A configuration of its own for each attempt, so that the verifier's report belongs to that attempt alone.
    fn config(&self, report: &Arc<VerifyReport>) -> Result<ClientConfig, LinkError> {
        let tls = self.shown.config(Arc::clone(&self.clock), Arc::clone(report))?;
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(endpoint::dialling_transport(self.kind));
        Ok(config)
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer")
            .field("shown", &self.shown)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// What the dialling side proves itself with, and by what it knows the coordinator.
#[derive(Debug)]
pub(crate) enum Shown {
    /// A certificate of ours.
    Identity(Credentials),
    /// The key of an invite.
    Invite(JoinCredentials, JoinTarget),
}

impl Shown {
    fn config(&self, clock: Arc<dyn Clock>, report: Arc<VerifyReport>) -> Result<rustls::ClientConfig, LinkError> {
        Ok(match self {
            Self::Identity(credentials) => client_config_with_report(credentials, clock, report)?,
            Self::Invite(credentials, target) => client_config_for_join(credentials, target, clock, report)?,
        })
    }
}

/// A connection on which the hello was sent.
pub(crate) struct Dialled {
    pub(crate) peer: Peer,
    pub(crate) connection: Connection,
    /// What the verifier has learnt of the coordinator.
    pub(crate) report: Arc<VerifyReport>,
}

/// Waits for the answer to the hello, and tells everybody who waits for it.
async fn await_answer(weak: WeakPeer, answer: FrameReader) {
    let read = timeout(DIAL_DEADLINE, hello::read_answer(answer)).await;
    let Some(peer) = weak.upgrade() else {
        return;
    };
    let (answer, code) = match read {
        Ok(Ok(HelloAnswer::Welcome(welcome))) => return weak.greeted(Ok(welcome)),
        // Whoever reads last closes, and after a refusal there is nothing left to read.
        Ok(Ok(HelloAnswer::Refusal(refusal))) => (CallError::HelloRefused(refusal), CloseCode::Done),
        Ok(Err(error)) => (peer.call_error(error), CloseCode::ProtocolError),
        Err(_) => (CallError::TimedOut { after: DIAL_DEADLINE }, CloseCode::Unanswered),
    };
    weak.greeted(Err(answer));
    peer.close(code, code.as_str());
}

fn peer_chain(connection: &Connection) -> Vec<CertificateDer<'static>> {
    connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .map(|chain| *chain)
        .unwrap_or_default()
}
