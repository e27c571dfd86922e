//! Renews the machine's certificate: asks, checks the answer, proves it with a connection of its own, saves it, and only then
//! uses it. Whatever fails on the way leaves the former credentials in use and on disk.

use super::{
    keys::{CredentialsError, Keys},
    schedule::{self, Schedule},
    trouble,
    way::{Way, WayError},
};
use crate::handlers::{self, Orders};
use dora_remote_certs::{CertError, Credentials, Utc, new_key_and_request};
use dora_remote_link::{Address, CallError, CloseCode, LinkError, Peer, retry};
use dora_remote_protocol::access::Renew;
use std::{
    convert::Infallible,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};
use thiserror::Error;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

/// Time for the coordinator to issue a certificate.
const ISSUE_DEADLINE: Duration = Duration::from_secs(10);
/// Upper bounds of the first pause, and of all pauses, of a machine that may do nothing but renew and gets nothing.
const RECOVERY_PAUSE: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(60));

/// The time at the coordinator, by which it issues certificates: what it said in its welcome, and what has passed since.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerTime {
    /// What it said.
    pub(super) told: SystemTime,
    /// When it said so.
    pub(super) at: Instant,
}

impl PeerTime {
    fn now(self) -> SystemTime {
        self.told + self.at.elapsed()
    }
}

/// Keeps the certificate from ending.
pub(super) struct Renewer {
    keys: Arc<Keys>,
    address: Address,
    orders: Orders,
    /// Issued, and neither proven nor found wanting.
    pending: Option<Credentials>,
    failures: u32,
    /// Earliest time of the next try, over all connections.
    next: Instant,
    /// The trouble that was last told.
    told: Option<(bool, String)>,
}

/// Why a certificate was not renewed.
#[derive(Debug, Error)]
enum RenewError {
    #[error("new credentials could not be saved in {}: {source}", dir.display())]
    Unwritable { dir: PathBuf, source: io::Error },
    #[error(transparent)]
    OnDisk(CredentialsError),
    #[error("no key or request can be made: {0}")]
    Request(CertError),
    #[error("the coordinator issued nothing: {0}")]
    Asked(CallError),
    #[error("what the coordinator issued is not usable: {0}")]
    BadAnswer(CertError),
    #[error("what the coordinator issued ends at {}, no later than the present certificate", Utc(*not_after))]
    NoGain { not_after: SystemTime },
    #[error("what the coordinator issued makes no TLS configuration: {0}")]
    Link(#[from] LinkError),
    #[error("what the coordinator issued does not let this machine in: {0}")]
    NotProven(WayError),
    #[error("the new credentials were not saved: {0}")]
    NotSaved(CertError),
}

impl RenewError {
    /// What the coordinator advises.
    fn hint(&self) -> Option<&str> {
        match self {
            Self::Asked(error) => trouble::hint_of_call(error),
            _ => None,
        }
    }

    /// What it is told by: texts of the same trouble may differ from try to try.
    fn key(&self) -> String {
        match self {
            Self::Asked(error) => trouble::key_of_call(error),
            Self::NotProven(error) => error.key(),
            Self::NoGain { .. } => "no gain".to_owned(),
            other => other.to_string(),
        }
    }
}

impl Renewer {
    /// Nothing is asked before [`Self::keep`] or [`Self::recover`].
    pub(super) fn new(keys: Arc<Keys>, address: Address, orders: Orders) -> Self {
        Self {
            keys,
            address,
            orders,
            pending: None,
            failures: 0,
            next: Instant::now(),
            told: None,
        }
    }

    /// Renews in time, again and again, while the machine is joined over `peer`, which goes on: the coordinator moves its end.
    /// Dropping the future loses nothing.
    pub(super) async fn keep(&mut self, peer: &Peer, time: PeerTime) -> Infallible {
        loop {
            let schedule = Schedule::of(self.keys.credentials().certificate());
            let due = Instant::now() + schedule.wait(time.now(), retry::draw());
            sleep_until(due.max(self.next)).await;
            match self.attempt(peer, time.now()).await {
                Ok(way) => way.peer.close(CloseCode::Done, "the new certificate is proven"),
                Err(error) => {
                    self.next = Instant::now() + schedule.pause(self.failures, retry::draw());
                    self.failures += 1;
                    self.tell(&error, schedule.is_pressing(time.now()), schedule.left(time.now()));
                }
            }
        }
    }

    /// Renews at once on a connection that is let in for nothing else: the certificate has ended. Gives the connection that
    /// proves the new one; otherwise how long to wait before the coordinator is dialled again.
    pub(super) async fn recover(&mut self, peer: &Peer, time: PeerTime) -> Result<Way, Duration> {
        if self.told.is_none() {
            let ended = self.keys.credentials().certificate().not_after;
            warn!(ended = %Utc(ended), "the certificate of this machine has ended; it is renewed");
        }
        match self.attempt(peer, time.now()).await {
            Ok(way) => Ok(way),
            Err(error) => {
                self.tell(&error, true, Duration::ZERO);
                let pause = schedule::growing(RECOVERY_PAUSE.0, RECOVERY_PAUSE.1, self.failures, retry::draw());
                self.failures += 1;
                Err(pause)
            }
        }
    }

    async fn attempt(&mut self, peer: &Peer, now: SystemTime) -> Result<Way, RenewError> {
        // Somebody may have put other credentials in place: those are worth more than what we could ask for with ours.
        match self.keys.reload().await {
            Ok(true) => {
                self.pending = None;
                return self.prove(None).await;
            }
            // What is missing or damaged is healed by the new set.
            Ok(false) | Err(CredentialsError::Load { .. }) => {}
            Err(error) => return Err(RenewError::OnDisk(error)),
        }
        // Asked first: what is issued and cannot be saved would be worse than nothing.
        self.keys.check_writable().await.map_err(|source| RenewError::Unwritable {
            dir: self.keys.dir().to_owned(),
            source,
        })?;
        let fresh = |pending: &Credentials| !Schedule::of(pending.certificate()).is_half_over(now);
        let credentials = match self.pending.take().filter(fresh) {
            Some(pending) => pending,
            None => self.ask(peer).await?,
        };
        self.pending = Some(credentials.clone());
        self.prove(Some(credentials)).await
    }

    /// Has a certificate issued for a new key.
    async fn ask(&self, peer: &Peer) -> Result<Credentials, RenewError> {
        let present = self.keys.credentials();
        let request = new_key_and_request(present.identity()).map_err(RenewError::Request)?;
        let renew = Renew {
            request: request.der().to_vec(),
        };
        let issued = peer.call(&renew, ISSUE_DEADLINE).await.map_err(RenewError::Asked)?;
        let chain = issued.chain.into_iter().map(Into::into).collect();
        let credentials = request
            .into_credentials(chain, present.root().clone())
            .map_err(RenewError::BadAnswer)?;
        let not_after = credentials.certificate().not_after;
        if not_after <= present.certificate().not_after {
            return Err(RenewError::NoGain { not_after });
        }
        Ok(credentials)
    }

    /// Has new credentials welcomed by the coordinator, then saves and uses them. None: those in use, which lie on disk.
    async fn prove(&mut self, credentials: Option<Credentials>) -> Result<Way, RenewError> {
        let dialer = match &credentials {
            Some(credentials) => self.keys.dialer_for(credentials)?,
            None => self.keys.dialer(),
        };
        let opened = Way::open(Arc::clone(&dialer), &self.address, handlers::router(&self.orders)).await;
        self.keys.count_on_from(&dialer);
        let way = match opened {
            Ok(way) => way,
            Err(error) => {
                if error.trouble().is_lasting() {
                    self.pending = None;
                }
                return Err(RenewError::NotProven(error));
            }
        };
        if let Some(credentials) = credentials {
            if let Err(error) = self.keys.save(&credentials).await {
                way.peer.close(CloseCode::Done, "the new certificate cannot be saved");
                return Err(RenewError::NotSaved(error));
            }
            let certificate = credentials.certificate();
            info!(serial = certificate.serial, until = %Utc(certificate.not_after), "the certificate of this machine is renewed");
            self.keys.adopt(credentials, dialer);
        }
        (self.pending, self.failures, self.told) = (None, 0, None);
        self.next = Instant::now();
        Ok(way)
    }

    /// Logs each change of the trouble once.
    fn tell(&mut self, trouble: &RenewError, is_pressing: bool, left: Duration) {
        let key = (is_pressing, trouble.key());
        if self.told.as_ref() == Some(&key) {
            return;
        }
        self.told = Some(key);
        if is_pressing {
            let hint = trouble.hint();
            error!(%trouble, hint, ?left, "the certificate of this machine is not renewed, and it ends soon or has ended; it is tried again");
        } else {
            warn!(%trouble, ?left, "the certificate of this machine is not renewed yet; it is tried again");
        }
    }
}
