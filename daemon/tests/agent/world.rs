//! One machine and its coordinator, in a temporary directory.

use crate::{
    fake_coordinator::{Book, Coordinator},
    fake_engine,
};
use dora_remote_certs::{Authority, Credentials, default_life};
use dora_remote_daemon::{DaemonConfig, DaemonError};
use dora_remote_link::{Address, CallError, EndpointSecrets, Peer};
use dora_remote_protocol::{
    coordinator_to_daemon::{PrepareRun, SpawnRun, StopRun},
    dataflow::{Files, Labels, PlacedNode},
    identity::{Identity, Role},
    ids::DataflowId,
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
    time::{Duration, SystemTime},
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(60);

/// Everything of one test.
pub(crate) struct World {
    dir: TempDir,
    credentials: Credentials,
    secrets: EndpointSecrets,
    pub(crate) book: Book,
    pub(crate) address: SocketAddr,
    coordinator: Option<Coordinator>,
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
        let dir = tempfile::tempdir().expect("a directory");
        let domain = "test.example".parse().expect("good");
        let authority = Authority::init(&dir.path().join("authority"), &domain, SystemTime::now()).expect("made");
        let issue = |role, name: &str| {
            let identity = Identity {
                trust_domain: domain.clone(),
                role,
                name: name.parse().expect("good"),
            };
            authority
                .issue(&identity, default_life(role), SystemTime::now())
                .expect("issued")
        };
        issue(Role::Daemon, "m")
            .save(&dir.path().join("identity"), false)
            .expect("saved");
        let (credentials, secrets) = (issue(Role::Coordinator, "main"), EndpointSecrets::generate().expect("random"));
        let book = Book::new();
        let coordinator = Coordinator::start("127.0.0.1:0".parse().expect("good"), &credentials, &secrets, &book);
        Self {
            address: coordinator.address,
            coordinator: Some(coordinator),
            dir,
            credentials,
            secrets,
            book,
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
        self.coordinator = Some(Coordinator::start(self.address, &self.credentials, &self.secrets, &self.book));
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A daemon that finds its coordinator at another port.
    pub(crate) fn daemon_at(&self, port: u16) -> Daemon {
        let config = DaemonConfig {
            state_dir: self.state(),
            coordinator: Address {
                host: "127.0.0.1".to_owned(),
                port,
            },
            credentials_dir: self.dir.path().join("identity"),
            labels: Labels::from([("arm".to_owned(), "left".to_owned())]),
            exe: fake_engine::program(self.dir.path()),
            pass_env: Vec::new(),
            env: Vec::new(),
            build: "0.0.0-test".to_owned(),
        };
        let end = CancellationToken::new();
        let task = tokio::spawn(dora_remote_daemon::run(config, end.clone()));
        Daemon { end, task }
    }

    /// Starts a daemon and waits until it has joined and its engine is up.
    pub(crate) async fn joined(&self) -> Daemon {
        self.joined_at(self.address.port()).await
    }

    /// The same through another port.
    pub(crate) async fn joined_at(&self, port: u16) -> Daemon {
        let joins = self.book.change(|seen| {
            seen.engine = None;
            seen.joins
        });
        let daemon = self.daemon_at(port);
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
        }
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
        let mark = format!("{}={}", fake_engine::STATE, self.state().join("engine").display());
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == mark.as_bytes())
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
