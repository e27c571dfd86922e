//! A coordinator that can be killed, and a daemon that does what a test tells it.

use dora_remote_certs::{Authority, Credentials};
use dora_remote_coordinator::{CoordinatorConfig, Options, start};
use dora_remote_link::{Address, CallError, CloseCode, DialKind, Dialer, Feed, Peer, Router, Speaker};
use dora_remote_protocol::{
    cli_to_coordinator::{ReadLogs, StartDataflow},
    coordinator_to_daemon::{ForgetRun, Ping, PrepareRun, ReleaseBarrier, SpawnRun, StopRun},
    daemon_to_coordinator::{EventsAcked, JoinMachine, Joined, ReportEvents, ShipLogs},
    dataflow::{DataflowEvent, DataflowSpec, DataflowState, Files, Labels, NameWish, NodeSpec, NodeState, NodeStatus},
    identity::{Identity, Role},
    ids::{BootId, DataflowId, InstanceId, RequestId},
    log_line::{LogBatch, LogItem, LogRecord, LogSource, LogStream},
    machine::{EngineStatus, Lifecycle, LifecycleEvent, MachineFacts, RunPhase, RunReport},
    name::MachineName,
    refusal::{Changed, Refusal, RefusalCode},
    request::Request,
};
use std::{
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The one deadline of all waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Waits for something that must come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// A trust domain and a state directory.
pub(crate) struct World {
    dir: TempDir,
    authority: Authority,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let domain = "lab".parse().unwrap();
        let authority = Authority::init(&dir.path().join("authority"), &domain, SystemTime::now()).unwrap();
        Self { dir, authority }
    }

    pub(crate) fn config(&self, state: &str) -> CoordinatorConfig {
        let options = Options {
            listen: "127.0.0.1:0".parse().ok(),
            state_dir: Some(self.dir.path().join(state)),
            authority_dir: Some(self.dir.path().join("authority")),
            ..Options::default()
        };
        options.checked().unwrap()
    }

    pub(crate) fn credentials(&self, role: Role, name: &str) -> Credentials {
        self.issue(role, name, Duration::from_secs(3600), SystemTime::now())
    }

    /// A certificate that is issued by hand.
    pub(crate) fn issue(&self, role: Role, name: &str, life: Duration, now: SystemTime) -> Credentials {
        let identity = Identity {
            trust_domain: self.authority.trust_domain().clone(),
            role,
            name: name.parse().unwrap(),
        };
        self.authority.issue(&identity, life, now).unwrap()
    }

    /// A place below the folder of this world.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The authority of this world.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(crate) fn dialer(&self, role: Role, name: &str, instance: InstanceId) -> Dialer {
        self.dialer_of_boot(role, name, instance, BootId(Uuid::from_u128(1)))
    }

    /// A dialler whose hellos count on from those of all diallers before, as those of one state directory do.
    fn dialer_of_boot(&self, role: Role, name: &str, instance: InstanceId, boot: BootId) -> Dialer {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let speaker = Speaker {
            build: "test".to_owned(),
            features: Vec::new(),
            instance,
            boot,
        };
        let kind = if role == Role::Daemon {
            DialKind::Daemon
        } else {
            DialKind::Follow
        };
        let dialer = Dialer::new(&self.credentials(role, name), speaker, kind).unwrap();
        dialer.raise_counter(COUNTER.fetch_add(1 << 20, Ordering::Relaxed));
        dialer
    }

    /// Somebody who may act.
    pub(crate) async fn person(&self, at: SocketAddr) -> Person {
        let dialer = self.dialer(Role::Operator, "ann", InstanceId(Uuid::new_v4()));
        let peer = soon("a connection", dialer.dial(&address(at))).await.unwrap();
        Person { peer, _dialer: dialer }
    }
}

/// A coordinator on a thread and a runtime of its own.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    shutdown: CancellationToken,
    kill: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub(crate) async fn start(config: CoordinatorConfig) -> Self {
        let (started, address) = oneshot::channel();
        let (kill, killed) = oneshot::channel();
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let handle = start(config, token).await.unwrap();
                started.send(handle.local_address()).unwrap();
                tokio::select! {
                    _ = killed => {}
                    ended = handle.wait() => ended.unwrap(),
                }
            });
            // Nothing that is under way gets to its end.
            runtime.shutdown_background();
        });
        Self {
            address: soon("the coordinator", address).await.unwrap(),
            shutdown,
            kill: Some(kill),
            thread: Some(thread),
        }
    }

    /// Ends it without a word to anybody.
    pub(crate) fn kill(mut self) {
        drop(self.kill.take());
        self.thread.take().unwrap().join().unwrap();
    }

    /// Ends it in order.
    pub(crate) async fn end(mut self) {
        self.shutdown.cancel();
        let thread = self.thread.take().unwrap();
        let joined = tokio::task::spawn_blocking(move || thread.join());
        soon("the end of the coordinator", joined).await.unwrap().unwrap();
        drop(self.kill.take());
    }
}

/// Somebody at a command line.
pub(crate) struct Person {
    pub(crate) peer: Peer,
    _dialer: Dialer,
}

impl Person {
    pub(crate) fn of(peer: Peer, dialer: Dialer) -> Self {
        Self { peer, _dialer: dialer }
    }

    pub(crate) async fn ask<R: Request>(&self, request: R) -> Result<R::Reply, Refusal> {
        match self.peer.call(&request, PATIENCE).await {
            Ok(reply) => Ok(reply),
            Err(CallError::Refused(refusal)) => Err(refusal),
            Err(other) => panic!("{}: {other}", R::NAME),
        }
    }

    pub(crate) async fn start(&self, start_id: u128, machines: &[&str]) -> Feed<DataflowEvent> {
        let request = StartDataflow {
            start_id: RequestId(Uuid::from_u128(start_id)),
            spec: spec(machines),
        };
        self.peer.feed(&request, None).await.unwrap()
    }

    pub(crate) async fn logs(&self, id: DataflowId, after: Option<u64>, follow: bool) -> Feed<LogItem> {
        let request = ReadLogs {
            dataflow: dora_remote_protocol::dataflow::DataflowRef::Id(id),
            nodes: Vec::new(),
            tail: None,
            after,
            follow,
        };
        self.peer.feed(&request, None).await.unwrap()
    }
}

/// The next item of a feed, its end, or its refusal.
pub(crate) async fn next<I: serde::Serialize + serde::de::DeserializeOwned>(feed: &mut Feed<I>) -> Result<Option<I>, Refusal> {
    match soon("an item of a feed", feed.next()).await {
        Ok(item) => Ok(item),
        Err(CallError::Refused(refusal)) => Err(refusal),
        Err(other) => panic!("{other}"),
    }
}

/// Reads a feed of events until this state.
pub(crate) async fn until(feed: &mut Feed<DataflowEvent>, state: DataflowState) {
    loop {
        let event = next(feed)
            .await
            .unwrap()
            .unwrap_or_else(|| panic!("the feed ended before {state:?}"));
        if event == DataflowEvent::State(state) {
            return;
        }
    }
}

/// Reads a feed of lines until so many are there; gaps are shown as text.
pub(crate) async fn lines(feed: &mut Feed<LogItem>, count: usize) -> Vec<(u64, String)> {
    let mut seen = Vec::new();
    while seen.len() < count {
        match next(feed).await.unwrap().expect("more lines") {
            LogItem::Lines(lines) => seen.extend(lines.into_iter().map(|line| (line.seq, line.text))),
            LogItem::Gap { lines, next_after } => seen.push((next_after, format!("gap of {lines}"))),
            LogItem::CaughtUp => {}
        }
    }
    seen
}

/// An order as a daemon got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ordered {
    Prepare(DataflowId),
    Spawn,
    Release,
    Stop { force: bool },
    Forget,
}

/// A daemon that answers as its test wants: every order is done, unless it was told to refuse the preparing.
pub(crate) struct Daemon {
    pub(crate) peer: Peer,
    pub(crate) joined: Joined,
    orders: mpsc::UnboundedReceiver<Ordered>,
    next_seq: u64,
    name: String,
    _dialer: Dialer,
}

/// What a daemon remembers over its connections.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) instance: InstanceId,
    pub(crate) boot: BootId,
    /// What it says of itself.
    pub(crate) labels: Labels,
    pub(crate) last_seq: u64,
    pub(crate) runs: Vec<RunReport>,
    pub(crate) refuses: Option<Refusal>,
    /// Gives no sign of life when asked for one.
    pub(crate) is_deaf: bool,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            instance: InstanceId(Uuid::new_v4()),
            boot: BootId(Uuid::from_u128(1)),
            labels: Labels::new(),
            last_seq: 0,
            runs: Vec::new(),
            refuses: None,
            is_deaf: false,
        }
    }
}

impl Daemon {
    pub(crate) async fn join(world: &World, at: SocketAddr, name: &str, memory: &Memory) -> Self {
        Self::try_join(world, at, name, memory).await.unwrap()
    }

    pub(crate) async fn try_join(world: &World, at: SocketAddr, name: &str, memory: &Memory) -> Result<Self, Refusal> {
        let (tell, orders) = mpsc::unbounded_channel();
        let dialer = world.dialer_of_boot(Role::Daemon, name, memory.instance, memory.boot);
        let peer = soon(
            "a connection",
            dialer.dial_with_router(&address(at), orders_router(tell, memory)),
        )
        .await
        .unwrap();
        let request = JoinMachine {
            facts: MachineFacts {
                labels: memory.labels.clone(),
                build: "test".to_owned(),
                platform: "linux x86_64".to_owned(),
                engine: EngineStatus::Starting,
            },
            runs: memory.runs.clone(),
            last_seq: memory.last_seq,
            witnessed: None,
            revocations: None,
        };
        let joined = match peer.call(&request, PATIENCE).await {
            Ok(joined) => joined,
            Err(CallError::Refused(refusal)) => return Err(refusal),
            Err(other) => panic!("joining: {other}"),
        };
        Ok(Self {
            peer,
            joined,
            orders,
            next_seq: memory.last_seq + 1,
            name: name.to_owned(),
            _dialer: dialer,
        })
    }

    pub(crate) async fn order(&mut self) -> Ordered {
        soon("an order", self.orders.recv()).await.expect("a connection")
    }

    /// Reports what happened under the next number.
    pub(crate) async fn happened(&mut self, dataflow: DataflowId, what: Lifecycle) -> EventsAcked {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.report(dataflow, seq, what).await
    }

    pub(crate) async fn report(&mut self, dataflow: DataflowId, seq: u64, what: Lifecycle) -> EventsAcked {
        let events = vec![LifecycleEvent {
            seq,
            at_unix_ms: 1,
            dataflow,
            what,
        }];
        self.peer.call(&ReportEvents { events }, PATIENCE).await.unwrap()
    }

    pub(crate) async fn finished(&mut self, dataflow: DataflowId) {
        let what = Lifecycle::Finished {
            failures: Vec::new(),
            note: String::new(),
        };
        self.happened(dataflow, what).await;
    }

    /// Ships lines with these offsets and says what was acknowledged.
    pub(crate) async fn ship(&self, dataflow: DataflowId, offsets: std::ops::RangeInclusive<u64>) -> u64 {
        let record = |offset| LogRecord {
            offset,
            at_unix_ms: 1,
            stream: LogStream::Stdout,
            level: None,
            text: format!("{} {offset}", self.name),
        };
        let batch = LogBatch {
            dataflow,
            source: LogSource::Node(format!("n-{}", self.name).parse().unwrap()),
            epoch: 1,
            lost_before: 0,
            records: offsets.map(record).collect(),
        };
        self.peer.call(&ShipLogs { batch }, PATIENCE).await.unwrap().offset
    }

    /// What it would remember of a run that goes on.
    pub(crate) fn memory(&self, before: &Memory, dataflow: DataflowId) -> Memory {
        Memory {
            last_seq: self.next_seq - 1,
            runs: vec![RunReport {
                dataflow,
                name: "flow".parse().unwrap(),
                phase: RunPhase::Running,
                nodes: vec![NodeStatus {
                    id: format!("n-{}", self.name).parse().unwrap(),
                    machine: self.name.parse().unwrap(),
                    state: NodeState::Running,
                    pid: Some(7),
                }],
            }],
            ..before.clone()
        }
    }

    pub(crate) fn leave(self) {
        self.peer.close(CloseCode::Done, "");
    }
}

fn orders_router(tell: mpsc::UnboundedSender<Ordered>, memory: &Memory) -> Router {
    let (refuses, is_deaf) = (memory.refuses.clone(), memory.is_deaf);
    let tell = Arc::new(Mutex::new(tell));
    let told = move |order: Ordered| {
        let tell = Arc::clone(&tell);
        async move {
            drop(tell.lock().unwrap().send(order));
            Ok::<(), Refusal>(())
        }
    };
    let (prepare, spawn, release, stop, forget) = (told.clone(), told.clone(), told.clone(), told.clone(), told);
    Router::new()
        .call(move |_, request: PrepareRun| {
            let done = prepare(Ordered::Prepare(request.dataflow));
            let refuses = refuses.clone();
            async move {
                done.await?;
                refuses.map_or(Ok(()), Err)
            }
        })
        .call(move |_, _: SpawnRun| spawn(Ordered::Spawn))
        .call(move |_, _: ReleaseBarrier| release(Ordered::Release))
        .call(move |_, request: StopRun| stop(Ordered::Stop { force: request.force }))
        .call(move |_, _: ForgetRun| forget(Ordered::Forget))
        .call(move |_, _: Ping| async move {
            if is_deaf {
                std::future::pending::<()>().await;
            }
            Ok(())
        })
}

pub(crate) fn spec(machines: &[&str]) -> DataflowSpec {
    let node = |name: &&str| NodeSpec {
        id: format!("n-{name}").parse().unwrap(),
        machine: Some(name.parse::<MachineName>().unwrap()),
        labels: Labels::new(),
        dynamic: false,
    };
    DataflowSpec {
        name: NameWish::Like("flow".parse().unwrap()),
        descriptor: "nodes: []".to_owned(),
        nodes: machines.iter().map(node).collect(),
        default_machine: None,
        files: Files::OnMachine("/srv/flow".to_owned()),
        uv: false,
    }
}

/// A no of a machine that cannot prepare.
pub(crate) fn cannot_prepare() -> Refusal {
    Refusal::new(RefusalCode::NotPrepared, "node `n-b`: /srv/b.py does not exist").changed(Changed::Nothing)
}

fn address(at: SocketAddr) -> Address {
    at.to_string().parse().unwrap()
}
