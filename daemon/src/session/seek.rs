//! Finds the way to the coordinator: dials, again and again, several at once, until a hello is answered.
//!
//! Each try is a connection of its own: after a long cut one connection alone notices only late that the link is back, because
//! QUIC doubles the pause between its probes.

use super::{SessionConfig, Silent};
use crate::supervisor::SupervisorHandle;
use dora_remote_certs::{CertError, Credentials};
use dora_remote_link::{Address, CallError, CloseCode, CloseReason, DialError, DialKind, Dialer, LinkError, Peer, Router, retry};
use dora_remote_protocol::{
    identity::{Identity, Role},
    limits::{REDIAL_CAP, REDIAL_FAST, REDIAL_FAST_FOR},
    refusal::RefusalCode,
};
use std::{fmt, path::PathBuf, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{debug, error, warn};

/// Dials under way at once.
const MAX_DIALS: usize = 6;

/// What was found.
pub(super) enum Found {
    /// A new connection whose hello was answered.
    New(Peer),
    /// The silent connection answers again.
    Back(Silent),
}

/// Dials.
pub(super) struct Seeker {
    address: Address,
    dialer: Arc<Dialer>,
    config: SessionConfig,
    router: fn(&SupervisorHandle) -> Router,
    dials: JoinSet<Result<Peer, SeekError>>,
    next: Instant,
    /// Whether the trouble is one that waiting alone does not cure.
    slow: bool,
    /// The trouble that was last told.
    told: Option<String>,
}

/// Why one try failed.
#[derive(Debug, Error)]
enum SeekError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Hello(CallError),
}

/// Why the credentials of a machine cannot be used.
#[derive(Debug, Error)]
pub(crate) enum CredentialsError {
    /// They cannot be read.
    #[error("the credentials in {dir} cannot be used: {source}", dir = dir.display())]
    Load {
        /// Where they should be.
        dir: PathBuf,
        /// Why.
        source: CertError,
    },
    /// They are somebody else's.
    #[error("the credentials in {dir} are those of {found}, and a daemon needs some with the role `daemon`", dir = dir.display())]
    WrongRole {
        /// Where they are.
        dir: PathBuf,
        /// Whose they are.
        found: Identity,
    },
    /// They make no TLS configuration.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Loads the credentials of a machine.
///
/// # Errors
/// [`CredentialsError`].
pub(crate) fn load_credentials(dir: &std::path::Path) -> Result<Credentials, CredentialsError> {
    let credentials = Credentials::load(dir).map_err(|source| CredentialsError::Load {
        dir: dir.to_owned(),
        source,
    })?;
    let found = credentials.identity();
    if found.role != Role::Daemon {
        return Err(CredentialsError::WrongRole {
            dir: dir.to_owned(),
            found: found.clone(),
        });
    }
    Ok(credentials)
}

impl Seeker {
    /// A seeker whose hellos count from `counter` on.
    pub(super) fn new(
        config: &SessionConfig,
        router: fn(&SupervisorHandle) -> Router,
        counter: u64,
    ) -> Result<Self, CredentialsError> {
        let credentials = load_credentials(&config.credentials_dir)?;
        let dialer = Dialer::new(&credentials, config.speaker.clone(), DialKind::Daemon)?;
        dialer.raise_counter(counter);
        Ok(Self {
            address: config.coordinator.clone(),
            dialer: Arc::new(dialer),
            config: config.clone(),
            router,
            dials: JoinSet::new(),
            next: Instant::now(),
            slow: false,
            told: None,
        })
    }

    /// Tries until something is found. `since`: when the search began. Cancel safe: tries under way go on at the next call.
    pub(super) async fn seek(&mut self, silent: &mut Option<Silent>, since: Instant) -> Found {
        loop {
            let may_dial = self.dials.len() < MAX_DIALS;
            tokio::select! {
                biased;
                back = answered(silent) => {
                    if back && let Some(silent) = silent.take() {
                        self.arrived();
                        return Found::Back(silent);
                    }
                    *silent = None;
                }
                Some(tried) = self.dials.join_next() => match tried {
                    Ok(Ok(peer)) => return Found::New(peer),
                    Ok(Err(error)) => self.note(&error),
                    Err(error) => warn!(%error, "a dial broke off"),
                },
                () = sleep_until(self.next), if may_dial => {
                    self.dial();
                    self.next = Instant::now() + self.pause(since);
                }
            }
        }
    }

    /// A connection is in use: drops the other tries, and what is known of former trouble.
    pub(super) fn arrived(&mut self) {
        self.dials.abort_all();
        self.dials = JoinSet::new();
        self.next = Instant::now();
        self.slow = false;
        self.told = None;
    }

    /// A connection was found and could not be used.
    pub(super) fn failed(&mut self, error: &CallError) {
        self.slow |= is_lasting(error);
        self.next = self.next.max(Instant::now() + REDIAL_FAST);
    }

    /// Ends all connections.
    pub(super) async fn shutdown(&mut self, grace: Duration) {
        self.dials.shutdown().await;
        self.dialer.shutdown(grace).await;
    }

    fn dial(&mut self) {
        if self.slow {
            self.reload();
        }
        let (dialer, address) = (Arc::clone(&self.dialer), self.address.clone());
        let router = (self.router)(&self.config.orders);
        self.dials.spawn(async move {
            let peer = dialer.dial_with_router(&address, router).await?;
            match peer.welcome().await {
                Ok(welcome) => {
                    debug!(?welcome, "the coordinator answered the hello");
                    Ok(peer)
                }
                Err(error) => {
                    peer.close(CloseCode::Unanswered, "");
                    Err(SeekError::Hello(error))
                }
            }
        });
    }

    /// Somebody may have put new credentials in place of those that were refused.
    fn reload(&mut self) {
        let fresh = load_credentials(&self.config.credentials_dir)
            .and_then(|credentials| Ok(Dialer::new(&credentials, self.config.speaker.clone(), DialKind::Daemon)?));
        match fresh {
            Ok(dialer) => {
                dialer.raise_counter(self.dialer.counter());
                self.dialer = Arc::new(dialer);
            }
            Err(error) => self.tell(&error, true),
        }
    }

    /// The pause before the next dial.
    fn pause(&self, since: Instant) -> Duration {
        if self.slow || since.elapsed() >= REDIAL_FAST_FOR {
            // Never quite nothing: a herd of robots must not be a storm.
            retry::full_jitter(REDIAL_CAP, retry::draw()).max(REDIAL_FAST)
        } else {
            REDIAL_FAST
        }
    }

    fn note(&mut self, error: &SeekError) {
        let lasting = match error {
            SeekError::Dial(
                DialError::ServerNotTrusted { .. }
                | DialError::WrongServerRole { .. }
                | DialError::ServerExpired { .. }
                | DialError::ServerNotYetValid { .. }
                | DialError::ServerRefused { .. }
                | DialError::OurCertificateRefused { .. }
                | DialError::OurCertificateExpired { .. }
                | DialError::OtherProtocol { .. },
            ) => true,
            SeekError::Dial(
                DialError::Resolve { .. }
                | DialError::Unreachable { .. }
                | DialError::NotAccepting { .. }
                | DialError::Tls { .. }
                | DialError::Local(_),
            ) => false,
            SeekError::Hello(error) => is_lasting(error),
        };
        self.slow = lasting;
        self.tell(error, lasting);
    }

    /// Logs each change of the trouble once. Waits differ from try to try, so that only the kind of a passing one counts.
    fn tell(&mut self, trouble: &impl fmt::Display, lasting: bool) {
        let text = trouble.to_string();
        let key = if lasting { text.clone() } else { "passing".to_owned() };
        if self.told.as_ref() == Some(&key) {
            debug!(trouble = text, "still not joined");
            return;
        }
        self.told = Some(key);
        if lasting {
            error!(
                trouble = text,
                "this machine cannot join the coordinator until somebody helps; it goes on trying"
            );
        } else {
            warn!(trouble = text, "the coordinator is not reached; it is tried again");
        }
    }
}

/// Waits for the heartbeat on a silent connection: true when it is answered, false when it never will be.
async fn answered(silent: &mut Option<Silent>) -> bool {
    match silent {
        Some(silent) => matches!((&mut silent.beat).await, Ok(Ok(()))),
        None => std::future::pending().await,
    }
}

/// Whether trying again soon is in vain.
fn is_lasting(error: &CallError) -> bool {
    match error {
        CallError::PeerRefusedUs { .. } => true,
        CallError::HelloRefused(refusal) | CallError::Refused(refusal) => matches!(
            refusal.code,
            RefusalCode::Denied | RefusalCode::VersionMismatch | RefusalCode::CertificateLapsed | RefusalCode::UnknownVerb
        ),
        CallError::Lost(reason) => matches!(
            reason,
            CloseReason::RefusedByPeer { .. }
                | CloseReason::ByPeer {
                    code: CloseCode::Revoked | CloseCode::CertificateLapsed | CloseCode::Refused,
                    ..
                }
        ),
        CallError::TimedOut { .. } | CallError::NotSent(_) | CallError::Source(_) | CallError::Protocol(_) => false,
    }
}
