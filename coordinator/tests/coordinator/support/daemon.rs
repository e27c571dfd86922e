//! A daemon that does what a test tells it, and remembers what its test wants remembered.

use super::{PATIENCE, World, address, soon};
use dora_remote_link::{CallError, CloseCode, Dialer, Peer, Router};
use dora_remote_protocol::{
    coordinator_to_daemon::{ForgetRun, Ping, PrepareRun, ReleaseBarrier, SpawnRun, StopRun},
    daemon_to_coordinator::{EventsAcked, JoinMachine, Joined, ReportEvents, ShipLogs},
    dataflow::{Labels, LinkLoss, NodeState, NodeStatus},
    identity::Role,
    ids::{BootId, DataflowId, InstanceId},
    log_line::{LogBatch, LogRecord, LogSource, LogStream},
    machine::{EngineStatus, Lifecycle, LifecycleEvent, LogShipping, MachineFacts, RunPhase, RunReport},
    refusal::{Changed, Refusal, RefusalCode},
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::sync::mpsc;
use uuid::Uuid;

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
    starter: Arc<Mutex<String>>,
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
        let starter = Arc::default();
        let dialer = world.dialer_of_boot(Role::Daemon, name, memory.instance, memory.boot);
        let peer = soon(
            "a connection",
            dialer.dial_with_router(&address(at), orders_router(tell, Arc::clone(&starter), memory)),
        )
        .await
        .unwrap();
        let request = JoinMachine {
            facts: MachineFacts {
                labels: memory.labels.clone(),
                build: "test".to_owned(),
                platform: "linux x86_64".to_owned(),
                engine: EngineStatus::Starting,
                logs: LogShipping::Always,
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
            starter,
            next_seq: memory.last_seq + 1,
            name: name.to_owned(),
            _dialer: dialer,
        })
    }

    pub(crate) async fn order(&mut self) -> Ordered {
        soon("an order", self.orders.recv()).await.expect("a connection")
    }

    /// Who has started what it was last told to prepare.
    pub(crate) fn starter(&self) -> String {
        self.starter.lock().unwrap().clone()
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
        self.peer.call(&ShipLogs::pack(batch), PATIENCE).await.unwrap().offset
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
                link_loss: LinkLoss::Keep,
            }],
            ..before.clone()
        }
    }

    pub(crate) fn leave(self) {
        self.peer.close(CloseCode::Done, "");
    }
}

fn orders_router(tell: mpsc::UnboundedSender<Ordered>, starter: Arc<Mutex<String>>, memory: &Memory) -> Router {
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
            *starter.lock().unwrap() = request.by;
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

/// A no of a machine that cannot prepare.
pub(crate) fn cannot_prepare() -> Refusal {
    Refusal::new(RefusalCode::NotPrepared, "node `n-b`: /srv/b.py does not exist").changed(Changed::Nothing)
}
