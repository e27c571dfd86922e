//! A trust domain, a coordinator that can be killed, and people who ask it. The daemons of tests stand in `support/daemon.rs`.

mod daemon;

pub(crate) use daemon::{Daemon, Memory, Ordered, cannot_prepare};

use dora_remote_certs::{Authority, Clock, Credentials};
use dora_remote_coordinator::{CoordinatorConfig, Options, start};
use dora_remote_link::{Address, CallError, DialKind, Dialer, Feed, Peer, Speaker};
use dora_remote_protocol::{
    cli_to_coordinator::{DataflowStopped, ReadLogs, StartDataflow, StopDataflow},
    dataflow::{DataflowEvent, DataflowRef, DataflowSpec, DataflowState, Files, Labels, LinkLoss, NameWish, NodeSpec},
    identity::{Identity, Role},
    ids::{BootId, DataflowId, InstanceId, RequestId},
    log_line::LogItem,
    machine::Lifecycle,
    name::MachineName,
    refusal::Refusal,
    request::Request,
};
use std::{
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};
use tempfile::TempDir;
use tokio::sync::oneshot;
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

    /// The same under a clock that the test sets.
    pub(crate) fn config_under(&self, clock: Arc<dyn Clock>, state: &str) -> CoordinatorConfig {
        CoordinatorConfig {
            clock,
            ..self.config(state)
        }
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
            after,
            follow,
            ..ReadLogs::of(DataflowRef::Id(id))
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
            LogItem::Lines(packed) => seen.extend(packed.lines().unwrap().into_iter().map(|line| (line.seq, line.text))),
            LogItem::Gap { lines, next_after } => seen.push((next_after, format!("gap of {lines}"))),
            LogItem::CaughtUp
            | LogItem::Lag { .. }
            | LogItem::Passed { .. }
            | LogItem::Fetching { .. }
            | LogItem::Unfetched { .. } => {}
        }
    }
    seen
}

/// Starts a dataflow on one machine.
pub(crate) async fn start_running(person: &Person, daemon: &mut Daemon, start_id: u128) -> DataflowId {
    let mut start = person.start(start_id, &["a"]).await;
    let Ordered::Prepare(id) = daemon.order().await else {
        panic!("prepare comes first")
    };
    assert_eq!(daemon.order().await, Ordered::Spawn);
    until(&mut start, DataflowState::Running).await;
    let node = "n-a".parse().unwrap();
    daemon.happened(id, Lifecycle::NodeStarted { node, pid: 7 }).await;
    id
}

/// An order to stop the dataflow of that name, as people give it.
pub(crate) fn stop(name: &str) -> StopDataflow {
    StopDataflow {
        dataflow: DataflowRef::Name(name.to_owned()),
        grace_ms: None,
        force: false,
    }
}

/// Stops a dataflow that runs on one machine, whose daemon does as it is told.
pub(crate) async fn stop_running(person: &Person, daemon: &mut Daemon, asked: StopDataflow, id: DataflowId) -> DataflowStopped {
    let daemon_side = async {
        assert_eq!(daemon.order().await, Ordered::Stop { force: false });
        daemon.finished(id).await;
    };
    let (stopped, ()) = soon("the stop", async { tokio::join!(person.ask(asked), daemon_side) }).await;
    stopped.unwrap()
}

/// One node on each of the machines.
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
        link_loss: LinkLoss::Keep,
    }
}

fn address(at: SocketAddr) -> Address {
    at.to_string().parse().unwrap()
}
