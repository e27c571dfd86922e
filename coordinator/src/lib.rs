//! The coordinator: it knows which machines there are and which dataflows run on them, and survives its own death.
//!
//! From the outside in:
//!
//! - [`config`]: file and flags become a [`CoordinatorConfig`]; [`start`] makes a running coordinator of it;
//! - `handlers`: each verb becomes an event for the brain, or a wait at the logs or the bundles;
//! - `brain`: the one loop that owns the truth; it carries out what the pure parts decide;
//! - `dataflow`, `machines`, `recover`: the pure parts: lives of dataflows, placement, liveness, reconciliation;
//! - `outbox`: orders on their way to machines;
//! - `store`, `logs`, `bundles`: what is kept on disk, each behind threads of its own.

#[allow(dead_code, reason = "its users are being built")]
mod asker;
mod brain;
mod bundles;
pub mod config;
mod dataflow;
mod event;
mod handlers;
mod identity;
mod logs;
mod machines;
mod moment;
mod outbox;
mod recover;
mod store;
#[allow(dead_code, reason = "its users are being built")]
mod view;

pub use config::{ConfigError, CoordinatorConfig, IdentitySource, Options};
pub use store::StoreError;

use brain::{Brain, Parts};
use bundles::Bundles;
use dora_remote_certs::{AdmissionSnapshot, CertError, Credentials, SystemClock};
use dora_remote_link::{AcceptOptions, Acceptor, CloseReason, EndpointSecrets, LinkError, Peer, PeerWatcher, Speaker, Tasks};
use dora_remote_logstore::{Caps, LogStore, LogStoreError};
use dora_remote_protocol::{
    ids::{BootId, InstanceId},
    limits::MAX_HANDSHAKES,
};
use event::BrainHandle;
use handlers::{About, Desk};
use identity::FixedAdmission;
use logs::hub::Hub;
use moment::{Moment, unix_ms};
use std::{
    fs::{self, DirBuilder},
    io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    thread,
    time::{Duration, Instant, SystemTime},
};
use store::{Stored, keeper::Keeper, redb::RedbStore};
use thiserror::Error;
use tokio::{sync::oneshot, task};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Starts a coordinator, which runs until `shutdown` is cancelled or a part of it fails. It listens when this returns.
///
/// Must be called within a tokio runtime; one current-thread runtime is enough. Files are touched on other threads.
///
/// # Errors
/// [`CoordinatorError`] when a file, the certificate or the address cannot be used.
pub async fn start(config: CoordinatorConfig, shutdown: CancellationToken) -> Result<Handle, CoordinatorError> {
    let prepared = {
        let config = config.clone();
        task::spawn_blocking(move || Prepared::new(&config))
            .await
            .map_err(|_| CoordinatorError::Panicked)??
    };
    let Prepared {
        credentials,
        secrets,
        stored,
        keeper,
        hub,
        bundles,
    } = prepared;
    let admission = AdmissionSnapshot::of(&credentials).map_err(CoordinatorError::Identity)?;
    let now = Moment::now();
    let acceptor = Acceptor::bind(AcceptOptions {
        address: config.listen,
        credentials: credentials.clone(),
        admission: Arc::new(FixedAdmission(Arc::new(admission))),
        clock: Arc::new(SystemClock),
        secrets,
        speaker: Speaker {
            build: BUILD.to_owned(),
            features: Vec::new(),
            instance: InstanceId(Uuid::new_v4()),
            boot: BootId(Uuid::new_v4()),
        },
        store_epoch: stored.epoch,
        max_handshakes: MAX_HANDSHAKES,
    })?;
    let local_address = acceptor.local_address();
    let certificate = credentials.certificate();
    let about = Arc::new(About {
        identity: credentials.identity().to_string(),
        build: BUILD,
        started_unix_ms: now.unix_ms,
        certificate_ends_unix_ms: AtomicU64::new(unix_ms(certificate.not_after)),
        log_bytes_max: config.log_bytes,
    });
    tracing::info!(
        identity = about.identity,
        serial = certificate.serial,
        %local_address,
        dataflows = stored.dataflows.len(),
        machines = stored.machines.len(),
        "the coordinator is up"
    );

    let tasks = Tasks::new();
    let (brain_handle, events) = BrainHandle::new();
    let desk = Desk {
        brain: brain_handle.clone(),
        hub: hub.clone(),
        bundles: bundles.clone(),
        about: Arc::clone(&about),
    };
    let brain = Brain::new(
        Parts {
            stored,
            keeper,
            hub,
            bundles,
            tasks: tasks.clone(),
            handle: brain_handle,
        },
        now,
    );
    let thinking = tasks.token().clone();
    tasks.spawn("brain", brain.run(events, thinking));
    let renewing = tasks.token().clone();
    tasks.spawn(
        "own certificate",
        identity::keep_fresh(config.identity, credentials, acceptor.replacer(), about, renewing),
    );

    let (done, ended) = oneshot::channel();
    let parts = tasks;
    // Outside the group that it ends.
    let accepting = Tasks::new();
    accepting.spawn("coordinator", async move {
        let stop = shutdown.child_token();
        let stopping = stop.clone();
        let parts_token = parts.token().clone();
        let accept = acceptor.run(handlers::router(&desk), Quiet, stop, GRACE);
        let mut accept = std::pin::pin!(accept);
        // A part that has failed ends the whole.
        let accepted = tokio::select! {
            accepted = &mut accept => accepted,
            () = parts_token.cancelled() => {
                stopping.cancel();
                accept.await
            }
        };
        // The brain goes last: until here it may have been asked.
        drop(desk);
        parts.end(GRACE).await;
        let result = accepted.and_then(|()| parts.check());
        tracing::info!("the coordinator has ended");
        drop(done.send(result));
    });
    Ok(Handle { local_address, ended })
}

/// A running coordinator.
#[derive(Debug)]
pub struct Handle {
    local_address: SocketAddr,
    ended: oneshot::Receiver<Result<(), LinkError>>,
}

impl Handle {
    /// Where it listens, with the port that the system gave if port 0 was asked for.
    #[must_use]
    pub const fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Waits until it has ended and everything is on disk.
    ///
    /// # Errors
    /// [`CoordinatorError`] when a part of it failed.
    pub async fn wait(self) -> Result<(), CoordinatorError> {
        match self.ended.await {
            Ok(result) => result.map_err(CoordinatorError::from),
            Err(_) => Err(CoordinatorError::Panicked),
        }
    }
}

/// Why a coordinator cannot start, or has ended against its will.
#[derive(Debug, Error)]
pub enum CoordinatorError {
    /// A folder cannot be used.
    #[error("cannot use the folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder with the state is open to others.
    #[error("the folder {} is open to others (mode {mode:o}); run `chmod 700` on it", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// There is no certificate to be had.
    #[error("the coordinator has no certificate: {0}")]
    Identity(#[source] CertError),
    /// The store cannot be used.
    #[error("cannot {0}")]
    Store(#[from] StoreError),
    /// The store of log lines cannot be used.
    #[error("cannot {0}")]
    Logs(#[from] LogStoreError),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// The address cannot be used, or a part has failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A part has panicked, which is a bug.
    #[error("a part of the coordinator has panicked")]
    Panicked,
}

/// Everything that comes from disk.
struct Prepared {
    credentials: Credentials,
    secrets: EndpointSecrets,
    stored: Stored,
    keeper: Keeper,
    hub: Hub,
    bundles: Bundles,
}

impl Prepared {
    fn new(config: &CoordinatorConfig) -> Result<Self, CoordinatorError> {
        let dir = config.state_dir.as_path();
        private_folder(dir)?;
        let credentials = identity::credentials(&config.identity, SystemTime::now()).map_err(CoordinatorError::Identity)?;
        let secrets = EndpointSecrets::load_or_create(&dir.join("endpoint.secrets"))?;
        let (store, stored) = patiently(
            || RedbStore::open(&dir.join("store.redb")),
            |error| matches!(error, StoreError::Open { .. }),
        )?;
        let caps = Caps {
            total_bytes: config.log_bytes,
            per_dataflow_bytes: config.log_bytes_per_dataflow,
        };
        let logs = patiently(
            || LogStore::open(&dir.join("logs.redb"), caps),
            |error| matches!(error, LogStoreError::Open { .. }),
        )?;
        let bundles_dir = dir.join("bundles");
        let bundles = Bundles::open(&bundles_dir, config.bundle_bytes).map_err(|source| CoordinatorError::Folder {
            path: bundles_dir,
            source,
        })?;
        Ok(Self {
            credentials,
            secrets,
            stored,
            keeper: Keeper::start(store).map_err(CoordinatorError::Thread)?,
            hub: Hub::start(logs).map_err(CoordinatorError::Thread)?,
            bundles,
        })
    }
}

/// Tries again for a moment: the former life of this process may still hold its files.
fn patiently<T, E>(mut open: impl FnMut() -> Result<T, E>, is_worth_it: impl Fn(&E) -> bool) -> Result<T, E> {
    let began = Instant::now();
    loop {
        match open() {
            Err(error) if is_worth_it(&error) && began.elapsed() < PATIENCE => thread::sleep(PATIENCE / 60),
            result => return result,
        }
    }
}

fn private_folder(path: &Path) -> Result<(), CoordinatorError> {
    let fault = |source| CoordinatorError::Folder {
        path: path.to_owned(),
        source,
    };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fault)?;
    let mode = fs::metadata(path).map_err(fault)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(CoordinatorError::Open {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

/// Daemons say by themselves who they are, and the link tells the log who comes and goes.
struct Quiet;

impl PeerWatcher for Quiet {
    fn arrived(&self, _peer: Peer) {}
    fn left(&self, _peer: &Peer, _reason: &CloseReason) {}
}

/// Build that peers and people are told.
const BUILD: &str = env!("CARGO_PKG_VERSION");
/// Time for commands to end when the coordinator does.
const GRACE: Duration = Duration::from_secs(5);
/// How long files may be held by a former life.
const PATIENCE: Duration = Duration::from_secs(3);
