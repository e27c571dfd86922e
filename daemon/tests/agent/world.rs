//! One machine and its coordinator, in a temporary directory.

use crate::{
    fake_coordinator::{Book, Coordinator},
    fake_engine,
    held_port::HeldPort,
    trust::Trust,
};
use dora_remote_certs::{Clock, SystemClock};
use dora_remote_daemon::{DaemonConfig, DaemonError, OnRevoked, Policy};
use dora_remote_link::{Address, CallError, EndpointSecrets, Peer};
use dora_remote_protocol::{
    coordinator_to_daemon::{PrepareRun, SpawnRun, StopRun},
    dataflow::{Files, Labels, LinkLoss, PlacedNode},
    ids::DataflowId,
    machine::{Lifecycle, LogShipping},
    refusal::RefusalCode,
    request::Request,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(60);

/// Everything of one test.
pub(crate) struct World {
    dir: TempDir,
    pub(crate) trust: Arc<Trust>,
    secrets: EndpointSecrets,
    pub(crate) book: Book,
    port: HeldPort,
    /// The clock of the machine.
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) on_revoked: OnRevoked,
    coordinator: Option<Coordinator>,
    /// When the next daemon ships log lines.
    pub(crate) logs: LogShipping,
    /// What the next daemon lets others start.
    pub(crate) policy: Option<Policy>,
    /// Variables that the next engine gets.
    pub(crate) env: Vec<(String, String)>,
}

/// A running daemon.
pub(crate) struct Daemon {
    end: CancellationToken,
    task: JoinHandle<Result<(), DaemonError>>,
}

impl Daemon {
    pub(crate) async fn stop(self) {
        self.end.cancel();
        self.task.await.expect("no panic").expect("a good end");
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::trusting(Trust::new)
    }

    /// A world whose authority is made by `trust` in an empty directory.
    pub(crate) fn trusting(trust: impl FnOnce(&Path) -> Trust) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let trust = Arc::new(trust(&dir.path().join("authority")));
        trust.machine.save(&dir.path().join("identity"), false).expect("saved");
        let secrets = EndpointSecrets::generate().expect("random");
        let (book, port) = (Book::new(), HeldPort::new());
        let coordinator = Coordinator::start(port.address(), &trust, &secrets, &book);
        Self {
            port,
            coordinator: Some(coordinator),
            policy: None,
            logs: LogShipping::Always,
            env: Vec::new(),
            dir,
            trust,
            secrets,
            book,
            clock: Arc::new(SystemClock),
            on_revoked: OnRevoked::Keep,
        }
    }

    /// Ends the coordinator; what it has seen stays.
    pub(crate) async fn stop_coordinator(&mut self) {
        // A connection that is held keeps the socket.
        self.book.change(|seen| seen.peer = None);
        self.coordinator.take().expect("running").stop().await;
    }

    /// Starts the coordinator where it was.
    pub(crate) fn start_coordinator(&mut self) {
        self.coordinator = Some(Coordinator::start(self.address(), &self.trust, &self.secrets, &self.book));
    }

    /// Where the coordinator is, or was.
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The same, and waits until the daemon is back.
    pub(crate) async fn coordinator_returns(&mut self) {
        let joins = self.book.change(|seen| seen.joins);
        self.start_coordinator();
        self.book.until("the return", |seen| (seen.joins > joins).then_some(())).await;
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn identity(&self) -> PathBuf {
        self.dir.path().join("identity")
    }

    /// A daemon that finds its coordinator there.
    pub(crate) fn daemon_at(&self, coordinator: SocketAddr) -> Daemon {
        self.daemon_in(self.state(), coordinator)
    }

    /// The same with another state directory.
    pub(crate) fn daemon_in(&self, state_dir: PathBuf, coordinator: SocketAddr) -> Daemon {
        let config = DaemonConfig {
            state_dir,
            coordinator: Address {
                host: coordinator.ip().to_string(),
                port: coordinator.port(),
            },
            credentials_dir: self.identity(),
            labels: Labels::from([("arm".to_owned(), "left".to_owned())]),
            exe: fake_engine::program(self.dir.path()),
            pass_env: Vec::new(),
            env: self.env.clone(),
            build: "0.0.0-test".to_owned(),
            build_time: UNIX_EPOCH,
            clock: Arc::clone(&self.clock),
            disk: dora_remote_daemon::DiskCaps {
                free_bytes: Some(0),
                ..dora_remote_daemon::DiskCaps::default()
            },
            on_revoked: self.on_revoked,
            policy: self.policy.clone(),
            logs: self.logs,
        };
        let end = CancellationToken::new();
        let task = tokio::spawn(dora_remote_daemon::run(config, end.clone()));
        Daemon { end, task }
    }

    /// Starts a daemon and waits until it has joined and its engine is up.
    pub(crate) async fn joined(&self) -> Daemon {
        self.joined_at(self.address()).await
    }

    /// The same with a daemon that finds its coordinator there.
    pub(crate) async fn joined_at(&self, coordinator: SocketAddr) -> Daemon {
        let joins = self.book.change(|seen| {
            seen.engine = None;
            seen.joins
        });
        let daemon = self.daemon_at(coordinator);
        self.book
            .until("a join", |seen| {
                (seen.joins > joins && seen.engine_up().is_some()).then_some(())
            })
            .await;
        daemon
    }

    pub(crate) fn peer(&self) -> Peer {
        self.book.change(|seen| seen.peer.clone()).expect("joined")
    }

    pub(crate) async fn ask<R: Request>(&self, request: &R) -> Result<R::Reply, CallError> {
        self.peer().call(request, DEADLINE).await
    }

    /// Gives an order that must be carried out.
    pub(crate) async fn order<R: Request>(&self, request: &R) -> R::Reply {
        self.ask(request).await.expect("the order is carried out")
    }

    /// What refuses an order.
    pub(crate) async fn refused<R: Request<Reply = ()>>(&self, request: &R) -> RefusalCode {
        match self.ask(request).await {
            Err(CallError::Refused(refusal)) => refusal.code,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// An order to prepare a run of two nodes in a directory of the machine.
    pub(crate) fn prepare(&self, descriptor: &str) -> PrepareRun {
        let dir = self.dir.path().join("work");
        fs::create_dir_all(&dir).expect("made");
        let node = |id: &str| PlacedNode {
            id: id.parse().expect("good"),
            machine: "m".parse().expect("good"),
            dynamic: false,
        };
        PrepareRun {
            dataflow: DataflowId(Uuid::now_v7()),
            name: "flow".parse().expect("good"),
            descriptor: descriptor.to_owned(),
            nodes: vec![node("a"), node("b")],
            files: Files::OnMachine(dir.to_str().expect("text").to_owned()),
            uv: false,
            by: "spiffe://lab/operator/olga".to_owned(),
            link_loss: LinkLoss::Keep,
        }
    }

    /// The processes of a run's two nodes, once both were told of.
    pub(crate) async fn both_pids(&self, dataflow: DataflowId) -> Vec<u32> {
        let pid = |what: Lifecycle| match what {
            Lifecycle::NodeStarted { pid, .. } => Some(pid),
            _ => None,
        };
        self.book
            .until("both nodes", |seen| {
                let pids: Vec<_> = seen.of(dataflow).into_iter().filter_map(pid).collect();
                (pids.len() == 2).then_some(pids)
            })
            .await
    }

    /// Prepares and spawns a run.
    pub(crate) async fn start(&self, descriptor: &str) -> DataflowId {
        let prepare = self.prepare(descriptor);
        let dataflow = prepare.dataflow;
        self.order(&prepare).await;
        self.order(&SpawnRun { dataflow }).await;
        dataflow
    }
}

impl Drop for World {
    /// A test that fails must not leave an engine and its nodes behind.
    fn drop(&mut self) {
        let mark = format!("{}={}", fake_engine::STATE, self.path().display());
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment
                .split(|byte| *byte == 0)
                .any(|variable| variable.starts_with(mark.as_bytes()))
            {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

pub(crate) fn stop(dataflow: DataflowId) -> StopRun {
    StopRun {
        dataflow,
        grace_ms: None,
        force: false,
    }
}

pub(crate) fn kill_hard(pid: u32) {
    kill(Pid::from_raw(pid.try_into().expect("a pid")), Signal::SIGKILL).expect("killed");
}

/// Whether a process exists and is no zombie.
pub(crate) fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
