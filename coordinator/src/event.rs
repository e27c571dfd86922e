//! Everything that can happen to the brain, and the handle through which it is told.
//!
//! The queue is bounded. When it is full, askers wait, each within its own deadline: the brain is never told faster than it thinks.

use crate::{
    asker::Asker,
    dataflow::machine::{OrderKind, Outcome},
};
use dora_remote_link::Peer;
use dora_remote_protocol::{
    cli_to_coordinator::{DataflowStopped, StartDataflow},
    daemon_to_coordinator::{EventsAcked, JoinMachine, Joined},
    dataflow::{DataflowEvent, DataflowRef, DataflowSummary},
    ids::{BundleHash, DataflowId},
    machine::{DiskUse, EngineStatus, LifecycleEvent, MachineSummary},
    name::MachineName,
    refusal::{Refusal, RefusalCode},
};
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, oneshot};

/// Where an answer goes. An asker that went away is no error.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// Something that happens to the brain.
#[derive(Debug)]
pub(crate) enum Event {
    /// A daemon wants its machine to be used.
    Join {
        peer: Peer,
        request: Box<JoinMachine>,
        reply: Reply<Admitted>,
    },
    /// A machine was asked whether it is still there, because another one wants its place.
    Probed {
        machine: MachineName,
        connection: u64,
        is_there: bool,
    },
    /// A daemon says that it is alive.
    Heard {
        machine: MachineName,
        connection: u64,
        engine: EngineStatus,
        disk: Option<DiskUse>,
        reply: Reply<()>,
    },
    /// A daemon brings lifecycle events.
    Reported {
        machine: MachineName,
        connection: u64,
        events: Vec<LifecycleEvent>,
        reply: Reply<EventsAcked>,
    },
    /// The connection of a machine that was in use is over.
    Left { machine: MachineName, connection: u64 },
    /// A machine has answered an order, or will not any more.
    Answered {
        machine: MachineName,
        connection: u64,
        dataflow: DataflowId,
        order: OrderKind,
        outcome: Outcome,
    },
    /// Somebody wants a dataflow started.
    Start {
        asker: Asker,
        request: Box<StartDataflow>,
        reply: Reply<Subscription>,
    },
    /// Somebody wants a dataflow stopped.
    Stop {
        asker: Asker,
        dataflow: DataflowRef,
        grace_ms: Option<u64>,
        force: bool,
        reply: Reply<DataflowStopped>,
    },
    /// Somebody wants to hear of a dataflow.
    Watch {
        asker: Asker,
        dataflow: DataflowRef,
        reply: Reply<Subscription>,
    },
    /// Somebody names a dataflow.
    Find {
        asker: Asker,
        dataflow: DataflowRef,
        reply: Reply<DataflowId>,
    },
    /// Somebody wants to know of all dataflows that concern it.
    List {
        asker: Asker,
        reply: Reply<Vec<DataflowSummary>>,
    },
    /// Somebody wants to know of all machines that concern it.
    Machines {
        asker: Asker,
        reply: Reply<Vec<MachineSummary>>,
    },
    /// Somebody wants numbers.
    Count { reply: Reply<Counts> },
    /// Somebody wants to know which machines may still have log lines of a dataflow.
    LogHolders { dataflow: DataflowId, reply: Reply<LogHolders> },
    /// A daemon wants an archive.
    MayFetch {
        machine: MachineName,
        hash: BundleHash,
        reply: Reply<()>,
    },
}

/// What came of the wish of a daemon that its machine be used.
#[derive(Debug)]
pub(crate) enum Admitted {
    Joined {
        joined: Joined,
        /// Whether no machine of that name was known before.
        is_new: bool,
    },
    /// It is refused as before, which is neither news nor worth a record.
    StillRefused(Refusal),
}

/// Machines that may still have log lines of a dataflow, and ship them only when asked.
#[derive(Debug)]
pub(crate) struct LogHolders {
    pub(crate) on_demand: Vec<LogHolder>,
    /// Whether the dataflow has ended.
    pub(crate) has_ended: bool,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct LogHolder {
    pub(crate) machine: MachineName,
    /// The way to it; none while it cannot be reached.
    pub(crate) peer: Option<Peer>,
    pub(crate) unreachable_since_unix_ms: Option<u64>,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) machines_connected: u64,
    pub(crate) machines_unreachable: u64,
    pub(crate) dataflows_live: u64,
    pub(crate) dataflows_ended: u64,
}

/// One piece of news of a dataflow.
#[derive(Debug)]
pub(crate) enum News {
    Event(DataflowEvent),
    /// The start has come to its end.
    Started,
    /// The start was undone.
    StartRefused(Refusal),
}

/// What one who asks for a dataflow's news gets.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) id: DataflowId,
    /// Its present state.
    pub(crate) first: Vec<DataflowEvent>,
    /// What came of its start, if that is known.
    pub(crate) start: Option<Result<(), Refusal>>,
    /// What comes; none when it has ended.
    pub(crate) news: Option<broadcast::Receiver<Arc<News>>>,
}

/// The way to the brain.
#[derive(Clone, Debug)]
pub(crate) struct BrainHandle {
    events: mpsc::Sender<Event>,
}

impl BrainHandle {
    /// A queue to a brain, and its far end.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Event>) {
        let (events, queue) = mpsc::channel(QUEUE);
        (Self { events }, queue)
    }

    /// Tells the brain something; waits while its queue is full. False when it has ended.
    pub(crate) async fn tell(&self, event: Event) -> bool {
        self.events.send(event).await.is_ok()
    }

    /// Asks the brain something and waits for the answer.
    pub(crate) async fn ask<T>(&self, event: impl FnOnce(Reply<T>) -> Event) -> Result<T, Refusal> {
        let ending = || Refusal::new(RefusalCode::ShuttingDown, "the coordinator is ending").hint("try again in a moment");
        let (reply, answer) = oneshot::channel();
        if !self.tell(event(reply)).await {
            return Err(ending());
        }
        answer.await.map_err(|_| ending())?
    }
}

/// Events that wait for the brain; when it is full, askers wait.
const QUEUE: usize = 1024;
