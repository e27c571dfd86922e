//! Everything that can happen to the supervisor, and the handle through which it happens.

use crate::{
    book::Book,
    engine_client::{Event, Welcome},
    records::RunPlan,
    seat::{SEATS, Seat},
    workdir::Left,
};
use dora_remote_link::Peer;
use dora_remote_protocol::{
    coordinator_to_daemon::{PrepareRun, ReleaseBarrier, StopRun},
    ids::{DataflowId, EngineId},
    machine::RunReport,
    refusal::{Refusal, RefusalCode},
};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Where the result of an order goes.
pub(crate) type Reply = oneshot::Sender<Result<(), Refusal>>;

/// What can happen.
#[derive(Debug)]
pub(crate) enum Input {
    /// An order of the coordinator; files are fetched from `peer`.
    Prepare { request: PrepareRun, peer: Peer, reply: Reply },
    /// A run was prepared, or not.
    Prepared {
        dataflow: DataflowId,
        result: Box<Result<RunPlan, Refusal>>,
    },
    /// An order of the coordinator.
    Spawn { dataflow: DataflowId, reply: Reply },
    /// The engine has spawned a run, or not.
    Spawned {
        dataflow: DataflowId,
        result: Result<(), Refusal>,
    },
    /// An order of the coordinator.
    Release { request: ReleaseBarrier, reply: Reply },
    /// The engine has let a run go, or not.
    Released {
        dataflow: DataflowId,
        result: Result<(), Refusal>,
    },
    /// An order of the coordinator.
    Stop { request: StopRun, reply: Reply },
    /// The engine stops a run, or not.
    Stopped {
        dataflow: DataflowId,
        result: Result<(), Refusal>,
        reply: Option<Reply>,
    },
    /// An order of the coordinator.
    Forget { dataflow: DataflowId, reply: Reply },
    /// Runs that the coordinator does not want here.
    Unwanted(Vec<DataflowId>),
    /// The coordinator was not heard for so long.
    Silence(Duration),
    /// The directory of a run is gone.
    Removed(DataflowId),
    /// All log lines of a run are shipped.
    Shipped(DataflowId),
    /// An engine answered.
    EngineUp {
        seat: Seat,
        welcome: Box<Welcome>,
        done: oneshot::Sender<()>,
    },
    /// Something happened in the engine.
    EngineEvent(Event),
    /// The engine of a place is dead, and so is all that it had made.
    EngineLost {
        seat: Seat,
        message: String,
        done: oneshot::Sender<()>,
    },
    /// Asks for what is kept on the disk.
    Kept(oneshot::Sender<Kept>),
    /// Ended runs, all of whose lines are shipped, for which there is no more room.
    Surplus(Vec<DataflowId>),
    /// Asks for the engine of a place and the last event of it that is stored.
    EngineCursor {
        seat: Seat,
        reply: oneshot::Sender<Option<(EngineId, u64)>>,
    },
    /// Asks for what a joining machine reports.
    Join(oneshot::Sender<JoinReport>),
}

impl From<Event> for Input {
    fn from(event: Event) -> Self {
        Self::EngineEvent(event)
    }
}

/// What is kept on the disk.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// Of runs that have ended.
    pub(crate) ended: Vec<EndedRun>,
    /// Bytes of unpacked bundles of the others.
    pub(crate) bundle_bytes: u64,
}

/// A run that has ended and is still kept.
#[derive(Clone, Debug)]
pub(crate) struct EndedRun {
    /// Which.
    pub(crate) dataflow: DataflowId,
    /// See [`crate::records::RunState::ended_unix_ms`].
    pub(crate) ended_unix_ms: u64,
    /// Whether all its lines are acknowledged.
    pub(crate) is_shipped: bool,
    /// What is removed with it.
    pub(crate) left: Left,
}

/// What a joining machine reports.
#[derive(Clone, Debug)]
pub(crate) struct JoinReport {
    /// What it has in hand.
    pub(crate) runs: Vec<RunReport>,
    /// Number of the latest lifecycle event.
    pub(crate) last_seq: u64,
}

/// What others may see of the supervisor at any time. All of it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// Number of the latest lifecycle event.
    pub(crate) last_seq: u64,
    /// Whether any run has not ended.
    pub(crate) active: bool,
    /// Runs that have not ended of the engine in each place.
    pub(crate) runs: [usize; SEATS],
    /// The shortest silence of the coordinator that ends a run.
    pub(crate) shortest_silence: Option<Duration>,
    /// Whether a run is being stopped because of such silence.
    pub(crate) stops_alone: bool,
}

impl View {
    pub(super) fn of(book: &Book) -> Self {
        let mut runs = [0; SEATS];
        for seat in Seat::all() {
            runs[seat.index()] = book.alive_in(seat).len();
        }
        Self {
            last_seq: book.last_seq(),
            active: book.any_alive(),
            runs,
            shortest_silence: book.shortest_silence(),
            stops_alone: book.stops_alone(),
        }
    }
}

/// The number of the last event of each engine that is stored.
pub(super) type Acked = [watch::Sender<u64>; SEATS];

/// A handle of the supervisor. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct SupervisorHandle {
    inbox: mpsc::Sender<Input>,
    view: watch::Receiver<View>,
    acked: [watch::Receiver<u64>; SEATS],
}

impl SupervisorHandle {
    pub(super) fn new(inbox: mpsc::Sender<Input>, view: watch::Receiver<View>, acked: &Acked) -> Self {
        let acked = acked.each_ref().map(watch::Sender::subscribe);
        Self { inbox, view, acked }
    }

    /// Carries an order and waits for its result. An order that was sent is carried out even when the asker goes away.
    pub(crate) async fn order(&self, order: impl FnOnce(Reply) -> Input) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        let ending = || Refusal::new(RefusalCode::ShuttingDown, "the daemon of the machine is ending");
        self.inbox.send(order(reply)).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }

    /// Tells something that needs no answer.
    pub(crate) async fn tell(&self, input: Input) {
        // A supervisor that has ended needs to hear nothing.
        let _ = self.inbox.send(input).await;
    }

    /// Tells or asks something, and waits for the answer; none when the supervisor has ended.
    pub(crate) async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Input) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(question(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Where engine events go.
    pub(crate) fn events(&self) -> &mpsc::Sender<Input> {
        &self.inbox
    }

    /// What can be seen at any time.
    pub(crate) fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// Number of the last event that is stored of the engine in a place.
    pub(crate) fn acked(&self, seat: Seat) -> watch::Receiver<u64> {
        self.acked[seat.index()].clone()
    }
}
