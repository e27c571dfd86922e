//! The coordinator: it knows which machines there are and which dataflows run on them, and survives its own death.
//!
//! From the outside in:
//!
//! - [`config`]: file and flags become a [`CoordinatorConfig`]; [`start`] makes a running coordinator of it;
//! - `handlers`: each verb becomes an event for the brain, or a wait at the logs or the bundles;
//! - `brain`: the one loop that owns the truth; it carries out what the pure parts decide;
//! - `dataflow`, `machines`, `recover`: the pure parts: lives of dataflows, placement, liveness, reconciliation;
//! - `outbox`: orders on their way to machines;
//! - `registry`, `roster`, `identity`: who may come in, who is there, and who the coordinator itself is;
//! - `audit`: who did what, in a chain of hashes that daemons witness; `admin_socket`: the way in on this host; `backup`: the way back;
//! - `store`, `logs`, `bundles`: what is kept on disk, each behind threads of its own; `state_dir`: where, and for whom.

mod admin_socket;
mod asker;
mod audit;
mod backup;
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
mod out;
mod outbox;
mod recover;
mod registry;
mod roster;
mod state_dir;
mod store;
mod view;

pub use admin_socket::AdminSocketError;
pub use backup::{ArchiveError, RestoreError, RestoreReport, restore};
pub use config::{ConfigError, CoordinatorConfig, IdentitySource, Options};
pub use store::StoreError;

use admin_socket::AdminSocket;
use audit::{signer::Signer, witnesses::Witnesses};
use backup::{Backups, records::Records};
use brain::{Brain, Parts};
use dora_remote_certs::{AdmissionSnapshot, CertError, sha256};
use dora_remote_link::{AcceptOptions, Acceptor, LinkError, Speaker, Tasks};
use dora_remote_logstore::LogStoreError;
use dora_remote_protocol::{
    identity::TrustDomain,
    ids::{BootId, InstanceId},
    limits::MAX_HANDSHAKES,
};
use event::BrainHandle;
use handlers::{About, Desk};
use identity::{Freshness, Own};
use logs::demand::Demand;
use moment::{Moment, unix_ms};
use registry::{KeeperParts, Registry, Rules};
use roster::{Roster, Watcher};
use state_dir::Prepared;
use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use thiserror::Error;
use tokio::{
    sync::{oneshot, watch},
    task,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use view::ViewHandle;

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
        own: Own { credentials, authority },
        access: (access, known),
        secrets,
        stored,
        keeper,
        hub,
        bundles,
        audit,
        store_file,
    } = prepared;
    // Nobody else uses the directory: its files are held.
    let admin_socket = AdminSocket::bind(&config.state_dir)?;
    let now = Moment::now();
    let view = ViewHandle::default();
    let roster = Roster::default();
    let mut base = AdmissionSnapshot::of(&credentials).map_err(CoordinatorError::Identity)?;
    base.set_renew_window(config.renew_window);
    let rules = Rules {
        trust_domain: credentials.identity().trust_domain.clone(),
        root_hash: sha256(credentials.root()),
        addresses: config.advertise.clone(),
        lives: config.lives,
        can_issue: authority.is_some(),
    };
    let registry = registry::start(KeeperParts {
        file: access,
        epoch: known.epoch,
        registry: Registry::new(rules, known),
        base,
        authority,
        clock: Arc::clone(&config.clock),
        roster: roster.clone(),
        view: view.clone(),
    })
    .map_err(CoordinatorError::Thread)?;
    let acceptor = Acceptor::bind(AcceptOptions {
        address: config.listen,
        credentials: credentials.clone(),
        admission: registry.admission(),
        clock: Arc::clone(&config.clock),
        secrets,
        speaker: Speaker {
            build: BUILD.to_owned(),
            features: Vec::new(),
            instance: InstanceId(Uuid::new_v4()),
            boot: BootId(Uuid::new_v4()),
        },
        store_epoch: registry.epoch(),
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
    let records = Records {
        state_dir: config.state_dir.clone(),
        access: registry.database(),
        store: store_file,
        audit: audit.database(),
    };
    let present = watch::Sender::new(credentials);
    let signer = Signer::new(present.subscribe(), registry.epoch());
    let desk = Desk {
        brain: brain_handle.clone(),
        hub: hub.clone(),
        demand: Demand::new(brain_handle.clone(), hub.clone(), tasks.clone()),
        bundles: bundles.clone(),
        about: Arc::clone(&about),
        audit: audit.clone(),
        witnesses: Witnesses::new(audit.clone(), registry.clone(), signer, tasks.clone()),
        backups: Backups::new(records),
        registry: registry.clone(),
        roster: roster.clone(),
        view: view.clone(),
    };
    let brain = Brain::new(
        Parts {
            stored,
            keeper,
            hub,
            bundles,
            view,
            tasks: tasks.clone(),
            handle: brain_handle,
        },
        now,
    );
    let thinking = tasks.token().clone();
    tasks.spawn("brain", brain.run(events, thinking));
    let renewing = tasks.token().clone();
    let freshness = Freshness {
        source: config.identity,
        lives: config.lives,
        clock: config.clock,
        present,
        replacer: acceptor.replacer(),
        about,
        registry: registry.clone(),
    };
    tasks.spawn("own certificate", freshness.keep(renewing));
    let watcher = Watcher { roster, registry, audit };

    let (done, ended) = oneshot::channel();
    let parts = tasks;
    // Outside the group that it ends.
    let accepting = Tasks::new();
    accepting.spawn("coordinator", async move {
        let stop = shutdown.child_token();
        let stopping = stop.clone();
        let parts_token = parts.token().clone();
        let local = Tasks::new();
        local.spawn("admin socket", admin_socket.run(desk.clone(), stop.clone()));
        let accept = acceptor.run(handlers::router(&desk), watcher, stop, GRACE);
        let mut accept = std::pin::pin!(accept);
        // A part that has failed ends the whole.
        let accepted = tokio::select! {
            accepted = &mut accept => accepted,
            () = parts_token.cancelled() => {
                stopping.cancel();
                accept.await
            }
        };
        local.end(GRACE).await;
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
    /// An authority for another trust domain than the wanted one is there.
    #[error("the authority in {} is that of the trust domain {has}, and {wanted} is wanted", dir.display())]
    OtherTrustDomain {
        /// The folder of the authority.
        dir: PathBuf,
        /// Its trust domain.
        has: TrustDomain,
        /// The one in the settings.
        wanted: TrustDomain,
    },
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
    /// The admin socket cannot be made.
    #[error(transparent)]
    AdminSocket(#[from] AdminSocketError),
    /// A restore from a backup was broken off.
    #[error(transparent)]
    HalfRestored(#[from] RestoreError),
    /// A part has panicked, which is a bug.
    #[error("a part of the coordinator has panicked")]
    Panicked,
}

/// Build that peers and people are told.
const BUILD: &str = env!("CARGO_PKG_VERSION");
/// Time for commands to end when the coordinator does.
const GRACE: Duration = Duration::from_secs(5);
