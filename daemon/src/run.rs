//! Wires the parts of a daemon, runs them, and ends them in order.

use crate::{
    book::Book,
    demand::Demand,
    disk::{Disk, DiskCaps, DiskWatch},
    engine_child::ChildConfig,
    engine_client::{EngineHandle, Switchboard},
    engine_keeper::Keeper,
    engine_standing,
    handlers::Orders,
    link_loss,
    on_revoked::OnRevoked,
    policy::Policy,
    processes,
    seat::{Allotment, SEATS, Seat},
    session::{Keys, Session, SessionConfig, load_credentials},
    shipper,
    standing::{self, Standing},
    state_dir::StateDir,
    store::{Settled, Store, StoreError},
    store_thread::StoreHandle,
    strays,
    supervisor::{Engines, Input, Parts, Supervisor, SupervisorHandle},
    tail::{TailHandle, TailOutputs},
    witness::Witness,
    workdir::Workdirs,
};
use dora_remote_certs::{Clock, FloorClock};
use dora_remote_link::{Address, Peer, Speaker, Tasks};
use dora_remote_protocol::{
    agent_to_engine::EngineOrder,
    dataflow::Labels,
    ids::BootId,
    machine::{EngineStatus, LogShipping},
};
use std::{
    fs, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

/// Time for an idle engine to end when the daemon does.
const ENGINE_END: Duration = Duration::from_secs(10);
/// Time for tasks, for the last cursors and for the store when the daemon ends.
const END_GRACE: Duration = Duration::from_secs(5);
/// Connection counters taken from the store at a start; the dialler itself never counts back, so that one block suffices.
const COUNTERS: u64 = 1 << 20;

/// What a daemon is told at its start.
#[derive(Clone, Debug)]
pub struct DaemonConfig {
    /// Its own directory: database, runs, engine. Made with mode 0700; one daemon at a time uses it.
    pub state_dir: PathBuf,
    /// The coordinator.
    pub coordinator: Address,
    /// Directory of the machine's credentials (role `daemon`); the name in the certificate is the machine's name.
    pub credentials_dir: PathBuf,
    /// Labels of the machine.
    pub labels: Labels,
    /// The program that is started with `engine` as its first argument.
    pub exe: PathBuf,
    /// Names of variables of our environment that engine and nodes get beside the usual ones; `*` stands for any run of
    /// characters.
    pub pass_env: Vec<String>,
    /// Variables that engine and nodes get in any case.
    pub env: Vec<(String, String)>,
    /// Build of this program, for people.
    pub build: String,
    /// When this program was built: no true time is earlier, whatever the machine's clock says.
    pub build_time: SystemTime,
    /// The machine's clock; usually [`dora_remote_certs::SystemClock`].
    pub clock: Arc<dyn Clock>,
    /// What becomes of the runs when this machine is shut out.
    pub on_revoked: OnRevoked,
    /// How much of the machine's disk may be used.
    pub disk: DiskCaps,
    /// What may be started on this machine; without one, everything that the coordinator orders.
    pub policy: Option<Policy>,
    /// When log lines are shipped.
    pub logs: LogShipping,
}

/// Why a daemon ended, or did not start. Trouble with the network is never a reason.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The state directory cannot be used, or another daemon uses it.
    #[error("{0}")]
    StateDir(String),
    /// The credentials are missing, damaged, or not those of a daemon.
    #[error("{0}")]
    Credentials(String),
    /// The database cannot be used; going on would forget what was promised.
    #[error("{0}")]
    Store(String),
    /// A thread cannot be started.
    #[error("a thread cannot be started: {0}")]
    Thread(#[source] io::Error),
    /// A part of the daemon broke: a fault of this program, whose log has the rest.
    #[error("a part of the daemon broke: {0}")]
    Broken(String),
}

impl From<StoreError> for DaemonError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

/// Runs a daemon until `shutdown`. The caller provides a current-thread tokio runtime; everything that waits for a disk has
/// threads of its own.
///
/// When it ends while dataflows have not, the engine and its nodes go on, and the next daemon with this state directory adopts
/// them.
///
/// # Errors
/// [`DaemonError`]; what ran goes on running.
pub async fn run(config: DaemonConfig, shutdown: CancellationToken) -> Result<(), DaemonError> {
    run_and_tell(config, shutdown, watch::Sender::new(Standing::Starting)).await
}

/// Does as [`run`], and tells how it stands.
///
/// # Errors
/// Those of [`run`].
pub async fn run_and_tell(
    config: DaemonConfig,
    shutdown: CancellationToken,
    standing: watch::Sender<Standing>,
) -> Result<(), DaemonError> {
    let dir = StateDir::hold(&config.state_dir).map_err(|error| DaemonError::StateDir(error.to_string()))?;
    let credentials = load_credentials(&config.credentials_dir).map_err(|error| DaemonError::Credentials(error.to_string()))?;
    let machine = credentials.identity().name.clone();
    info!(%machine, coordinator = %config.coordinator, state = %config.state_dir.display(), build = config.build, "the daemon starts");
    warn!("agent and nodes run as the same user: a node can read the machine's private key");
    match &config.policy {
        Some(policy) => info!(%policy, "the policy of this machine limits what may be started"),
        None => info!("this machine has no policy: whatever the coordinator orders is started"),
    }

    let store = Store::open(&dir.database())?;
    let boot = boot_id();
    if let Settled::Copied { runs, events } = store.settle(boot, || dir.is_lived_in())? {
        warn!(
            runs,
            events,
            "this state directory is a copy: it is an instance of its own from now on, and what belongs to the original is forgotten"
        );
    }
    if store.engines()?.is_empty() {
        let engines: Vec<_> = Seat::all().map(|seat| dir.engine(seat)).collect();
        let ending = spawn_blocking(move || strays::end_all(&engines));
        ending.await.map_err(|error| DaemonError::Broken(error.to_string()))?;
    }
    let last_good = store.last_good()?.map(|unix_ms| UNIX_EPOCH + Duration::from_millis(unix_ms));
    let floor = Arc::new(FloorClock::new(Arc::clone(&config.clock), config.build_time, last_good).unattended());
    let (instance, counter, loaded) = (store.instance()?, store.take_counters(COUNTERS)?, store.load()?);
    let heard = link_loss::resume(store.heard()?, boot);
    let book = Book::new(machine.clone(), loaded.runs, loaded.last_seq, loaded.engine_cursors);
    let left = store
        .engines()?
        .into_iter()
        .map(|record| (record, record.living(boot).is_some()));
    let left: Vec<_> = left.collect();
    let seats = Allotment::of(&left, processes::program(&config.exe));
    let older = left.iter().filter(|(record, lives)| *lives && record.seat != seats.present);
    let older = older.filter_map(|(record, _)| Some((record.seat, record.process?.pid)));
    let standing_of_engines = engine_standing::Standing::new(older);
    let demand = Demand::new(config.logs);
    let (store, store_closed) = StoreHandle::start(store).map_err(DaemonError::Thread)?;
    let disk = Arc::new(Disk::new(&config.state_dir, config.disk));
    let (tail, tail_outputs) =
        TailHandle::start(store.clone(), demand.clone(), Arc::clone(&disk)).map_err(DaemonError::Thread)?;
    let TailOutputs {
        batches,
        shipped,
        ended: tail_ended,
    } = tail_outputs;

    // Not bound to `shutdown`: parts end one after the other.
    let tasks = Tasks::new();
    let switchboards: [Switchboard; SEATS] = std::array::from_fn(|_| Switchboard::new());
    let engines = Engines::new(&switchboards, seats.present);
    let engine = engines.line(seats.present).clone();
    let workdirs = Workdirs::new(dir.runs(), machine.clone(), Arc::clone(&disk));
    let parts = Parts {
        book,
        machine: machine.clone(),
        store: store.clone(),
        tail: tail.clone(),
        engines,
        workdirs: workdirs.clone(),
        policy: config.policy.map(Arc::new),
        logs: config.logs,
        tasks: tasks.clone(),
    };
    let (supervisor, handle) = Supervisor::new(parts);
    let engine_view = standing_of_engines.seen();
    let last_engine = CancellationToken::new();
    let child = ChildConfig {
        exe: config.exe,
        dir: PathBuf::new(),
        machine,
        labels: config.labels.clone(),
        pass_env: config.pass_env,
        env: config.env,
        node_log_bytes: config.disk.node_log_bytes,
    };
    let keepers = Seat::all().zip(switchboards).map(|(seat, switchboard)| Keeper {
        seat,
        drains: seat != seats.present,
        child: ChildConfig {
            dir: dir.engine(seat),
            ..child.clone()
        },
        store: store.clone(),
        supervisor: handle.clone(),
        switchboard,
        standing: standing_of_engines.clone(),
        boot,
        last: last_engine.clone(),
    });
    let keepers = keepers.filter(|keeper| keeper.seat == seats.present || seats.draining.contains(&keeper.seat));
    let keepers: Vec<Keeper> = keepers.collect();
    let speaker = Speaker {
        build: config.build,
        features: Vec::new(),
        instance,
        boot,
    };
    let keys = Keys::new(config.credentials_dir, credentials, speaker, Arc::clone(&floor), counter);
    let keys = Arc::new(keys.map_err(|error| DaemonError::Credentials(error.to_string()))?);
    let session_config = SessionConfig {
        coordinator: config.coordinator,
        orders: Orders {
            supervisor: handle.clone(),
            witness: Witness::new(store.clone(), Arc::clone(&keys)),
            demand,
            tail: tail.clone(),
        },
        keys,
        clock: config.clock,
        floor,
        labels: config.labels,
        store: store.clone(),
        engine: engine_view.clone(),
        disk: Arc::clone(&disk),
        on_revoked: config.on_revoked,
        heard: heard.clone(),
    };
    let (joined, peers) = watch::channel::<Option<Peer>>(None);
    let session = Session::new(session_config, joined, tasks.clone());

    let (failed, mut failures) = mpsc::channel(1);
    let session_end = CancellationToken::new();
    let supervisor_end = CancellationToken::new();
    start(&tasks, "supervisor", &failed, supervisor.run(supervisor_end.clone()));
    let (keeper_gone, mut keeper_done) = oneshot::channel::<()>();
    let mut keeper_gone = Some(keeper_gone);
    for keeper in keepers {
        // The one whose end the end of the daemon waits for.
        let gone = if keeper.drains { None } else { keeper_gone.take() };
        start(&tasks, "engine-keeper", &failed, async move {
            let result = keeper.run().await;
            drop(gone);
            result
        });
    }
    tasks.spawn("older-engines", standing_of_engines.count(handle.view()));
    let (session_gone, session_done) = oneshot::channel::<()>();
    let session_token = session_end.clone();
    start(&tasks, "session", &failed, async move {
        let result = session.run(session_token).await;
        drop(session_gone);
        result
    });
    let watching = link_loss::run(heard, handle.clone(), store.clone(), boot);
    start(&tasks, "link-loss", &failed, watching);
    tasks.spawn("standing", standing::follow(peers.clone(), standing.clone()));
    tasks.spawn("shipper", shipper::run(batches, peers, tail.clone()));
    let watch = DiskWatch {
        disk,
        database: dir.database(),
        workdirs,
        supervisor: handle.clone(),
    };
    tasks.spawn("disk", watch.run());
    tasks.spawn("shipped", tell_shipped(shipped, handle.clone()));
    start(&tasks, "tail", &failed, async move {
        match tail_ended.await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Closed),
        }
    });

    let result = tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        Some(error) = failures.recv() => Err(DaemonError::from(error)),
        () = tasks.token().cancelled() => Err(DaemonError::Broken("a task has panicked".to_owned())),
    };

    standing.send_replace(Standing::Ending);
    // The coordinator is told that we go, so that it need not find out; then the engine may rest; then all is stored.
    session_end.cancel();
    let _ = timeout(END_GRACE, session_done).await;
    end_engine(&handle, &engine, engine_view, &last_engine, &mut keeper_done).await;
    supervisor_end.cancel();
    let _ = timeout(END_GRACE, tail.stop()).await;
    tasks.token().cancel();
    tasks.end(Duration::ZERO).await;
    drop((handle, store, tail));
    let _ = timeout(END_GRACE, store_closed).await;
    drop(dir);
    info!("the daemon has ended");
    result
}

/// Starts a part of the daemon, whose failure is the daemon's.
fn start(
    tasks: &Tasks,
    name: &'static str,
    failed: &mpsc::Sender<StoreError>,
    part: impl Future<Output = Result<(), StoreError>> + Send + 'static,
) {
    let failed = failed.clone();
    tasks.spawn(name, async move {
        if let Err(error) = part.await {
            tracing::error!(part = name, %error, "a part of the daemon has failed");
            // One failure is enough to end.
            let _ = failed.try_send(error);
        }
    });
}

async fn tell_shipped(mut shipped: mpsc::Receiver<dora_remote_protocol::ids::DataflowId>, supervisor: SupervisorHandle) {
    while let Some(dataflow) = shipped.recv().await {
        supervisor.tell(Input::Shipped(dataflow)).await;
    }
}

/// Ends the engine if nothing runs; otherwise leaves it, and says so.
async fn end_engine(
    supervisor: &SupervisorHandle,
    engine: &EngineHandle,
    mut status: watch::Receiver<EngineStatus>,
    last: &CancellationToken,
    keeper_done: &mut oneshot::Receiver<()>,
) {
    if supervisor.view().borrow().active {
        info!("dataflows have not ended: the engine and its nodes go on, and the next start adopts them");
        return;
    }
    last.cancel();
    let ending = async {
        // One that is on its way up is waited for, as it would stay behind otherwise.
        let settled = status.wait_for(|status| *status != EngineStatus::Starting).await;
        if !settled.is_ok_and(|status| matches!(*status, EngineStatus::Up { .. })) {
            return;
        }
        match engine.order(EngineOrder::Shutdown { force: false }, ENGINE_END).await {
            // The keeper waits for the process; its channel closes when that is gone.
            Ok(_) => drop(keeper_done.await),
            Err(refusal) => warn!(%refusal, "the engine did not end; the next start adopts it"),
        }
    };
    if timeout(ENGINE_END, ending).await.is_err() {
        warn!("the engine takes long to end; the next start adopts it, or cleans up after it");
    }
}

/// This boot of the machine; a random one where the system does not tell, so that nothing of a former process is trusted.
fn boot_id() -> BootId {
    let read = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    let known = read.and_then(|text| Uuid::parse_str(text.trim()).ok());
    BootId(known.unwrap_or_else(Uuid::new_v4))
}
