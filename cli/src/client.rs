//! One session with a coordinator: dial, ask, and dial again when the connection is lost while something is followed.
//!
//! Which requests are made, and what is shown of their answers, is decided by the commands. The certificate is kept alive by
//! a task of its own, see `keeper.rs`. A session that follows something never gives up by itself; see `returning.rs`.

mod keeper;
mod network;
mod outage;
mod returning;
mod seek;
mod trouble;

pub use returning::{RETURN_DEADLINE, next_heard};

use crate::{
    exit::Exit,
    failure::Failure,
    output::{Printer, progress, time::span},
    renewal,
    target::Target,
};
use dora_remote_certs::{Credentials, LifeLeft, lives_left};
use dora_remote_link::{Address, CloseCode, DialKind, Dialer, LinkError, Peer, Speaker};
use dora_remote_protocol::{
    ids::{BootId, InstanceId},
    request::Request,
};
use keeper::Keeper;
use network::Mover;
use outage::Outage;
use returning::Sought;
use seek::Tried;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::{Mutex, watch};
use uuid::Uuid;

/// A session with one coordinator.
pub struct Session {
    shared: Arc<Shared>,
    keeper: Keeper,
    /// Where something is followed.
    _mover: Option<Mover>,
}

/// What the commands and the keeper of the certificate have in common.
struct Shared {
    address: Address,
    /// Directory of the identity.
    identity: PathBuf,
    kind: DialKind,
    printer: Printer,
    holder: StdMutex<Holder>,
    peer: Mutex<Peer>,
    /// Held by the one that looks for a new connection.
    seeking: Mutex<Sought>,
    outage: Outage,
    /// When the machine last came to another network.
    moved: watch::Sender<Option<Instant>>,
}

/// With what is dialled: replaced as one when the certificate is renewed.
struct Holder {
    credentials: Credentials,
    dialer: Arc<Dialer>,
}

impl Session {
    /// Loads the identity and dials.
    ///
    /// # Errors
    /// A failure with exit code 6 for an identity that cannot be used, 5 for a coordinator that does not answer, and others.
    pub async fn open(target: &Target, kind: DialKind, printer: &Printer) -> Result<Self, Failure> {
        let credentials = load_identity(target)?;
        warn_of_clock(&credentials, printer);
        let holder = Holder::of(&credentials, kind)
            .map_err(|error| Failure::new(Exit::Failed, "cannot make a connection").because(&error))?;
        let address = target.address.clone();
        let connecting = || format!("connecting to {address}");
        let peer = progress::showing(printer, connecting, holder.dialer.dial(&address))
            .await
            .map_err(|error| Failure::of_dial(&address, &error))?;
        let shared = Arc::new(Shared {
            address,
            identity: target.identity.clone(),
            kind,
            printer: printer.clone(),
            holder: StdMutex::new(holder),
            peer: Mutex::new(peer),
            seeking: Mutex::default(),
            outage: Outage::new(printer),
            moved: watch::Sender::default(),
        });
        Ok(Self {
            keeper: Keeper::start(Arc::clone(&shared)),
            _mover: (kind != DialKind::Command).then(|| Mover::start(Arc::clone(&shared))),
            shared,
        })
    }

    /// Where the coordinator is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.shared.address
    }

    /// The identity as it is now; a renewal replaces it.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.shared.credentials()
    }

    /// The connection as it is now.
    pub async fn peer(&self) -> Peer {
        self.shared.current().await
    }

    /// Asks and waits for the reply; `what` is what is wanted, such as ``stop `camera` ``.
    ///
    /// # Errors
    /// What the coordinator refuses, and all that can go wrong on the way.
    pub async fn call<R: Request>(&self, what: &str, request: &R, deadline: Duration) -> Result<R::Reply, Failure> {
        let peer = self.peer().await;
        let asking = peer.call(request, deadline);
        let waiting = || format!("waiting for {}", self.shared.address);
        progress::showing(&self.shared.printer, waiting, asking)
            .await
            .map_err(|error| Failure::of_call(what, &error))
    }

    /// The coordinator's clock in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// What can go wrong on the way.
    pub async fn now_unix_ms(&self) -> Result<u64, Failure> {
        let welcome = self.peer().await.welcome().await;
        Ok(welcome.map_err(|error| Failure::of_call("connect", &error))?.time_unix_ms)
    }

    /// Ends the session in an orderly way, after a renewal that is under way.
    pub async fn close(self) {
        self.keeper.finish().await;
        self.shared.current().await.close_and_flush(CloseCode::Done, "").await;
    }
}

impl Shared {
    fn credentials(&self) -> Credentials {
        self.holder().credentials.clone()
    }

    async fn current(&self) -> Peer {
        self.peer.lock().await.clone()
    }

    /// Dials with these credentials from now on.
    fn replace(&self, fresh: &Credentials) -> Result<(), LinkError> {
        let fresh = Holder::of(fresh, self.kind)?;
        *self.holder() = fresh;
        Ok(())
    }

    /// Dials with these credentials from now on, and moves what follows over before the old certificate ends: nobody has told
    /// the coordinator on the present connection that there is a new one.
    async fn adopt(&self, fresh: &Credentials) -> Result<(), Failure> {
        self.replace(fresh).map_err(renewal::RenewalError::from)?;
        if self.kind != DialKind::Command {
            let peer = self.dial_and_greet().await?;
            *self.peer.lock().await = peer;
        }
        Ok(())
    }

    /// Takes over credentials that another process has saved meanwhile; false when there are none.
    async fn take_successor(&self) -> bool {
        let (dir, held) = (self.identity.clone(), self.credentials());
        let found = tokio::task::spawn_blocking(move || renewal::successor(&dir, &held)).await;
        matches!(found, Ok(Some(fresh)) if self.replace(&fresh).is_ok())
    }

    async fn dial_and_greet(&self) -> Result<Peer, Failure> {
        let dialer = Arc::clone(&self.holder().dialer);
        self.greet(&dialer).await.map_err(|tried| tried.failure)
    }

    async fn greet(&self, dialer: &Dialer) -> Result<Peer, Tried> {
        let dialled = dialer.dial(&self.address).await;
        let peer = dialled.map_err(|error| Tried {
            failure: Failure::of_dial(&self.address, &error),
            passes: trouble::passes(&error),
        })?;
        peer.welcome().await.map_err(|error| Tried {
            failure: Failure::of_call("connect", &error),
            passes: trouble::is_lost(&error),
        })?;
        Ok(peer)
    }

    fn holder(&self) -> std::sync::MutexGuard<'_, Holder> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder {
    fn of(credentials: &Credentials, kind: DialKind) -> Result<Self, LinkError> {
        Ok(Self {
            dialer: Arc::new(Dialer::new(credentials, speaker(), kind)?),
            credentials: credentials.clone(),
        })
    }
}

/// Loads the identity of the target.
///
/// # Errors
/// A failure with exit code 6.
pub fn load_identity(target: &Target) -> Result<Credentials, Failure> {
    load_identity_in(&target.identity)
}

/// Loads the identity in a directory.
///
/// # Errors
/// A failure with exit code 6.
pub fn load_identity_in(dir: &Path) -> Result<Credentials, Failure> {
    Credentials::load(dir).map_err(|error| {
        Failure::of_certificates(&format!("use the identity in {}", dir.display()), &error)
            .hint("name another directory with `--identity DIR` or DORA_REMOTE_IDENTITY")
    })
}

/// Warns of a certificate that begins only later; one that ends soon is renewed.
fn warn_of_clock(credentials: &Credentials, printer: &Printer) {
    if let LifeLeft::NotBegun(_) = lives_left(credentials.certificate(), SystemTime::now()) {
        warn_of_end(credentials, printer);
    }
}

/// Warns of a certificate that ends soon; one that has ended is a failure of the dial.
pub(crate) fn warn_of_end(credentials: &Credentials, printer: &Printer) {
    match lives_left(credentials.certificate(), SystemTime::now()) {
        LifeLeft::LastThird(left) => printer.warn(&format!("your certificate ends in {}", span(left))),
        LifeLeft::NotBegun(until) => {
            printer.warn(&format!("your certificate begins in {}; is the clock right?", span(until)));
        }
        LifeLeft::Ample(_) | LifeLeft::Ended(_) => {}
    }
}

/// What this process says of itself.
#[must_use]
pub fn speaker() -> Speaker {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    Speaker {
        build: crate::BUILD.to_owned(),
        features: Vec::new(),
        instance: InstanceId(Uuid::new_v4()),
        boot: BootId(boot.and_then(|text| text.trim().parse().ok()).unwrap_or_default()),
    }
}
