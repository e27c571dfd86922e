//! What can happen to a dataflow, and what is to be done about it: the words between its machine and the world.

use dora_remote_protocol::{
    dataflow::{DataflowEvent, NodeStatus},
    ids::NodeId,
    machine::Lifecycle,
    name::MachineName,
    refusal::Refusal,
};

/// What can happen to a dataflow.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// Its record is on disk.
    Begin,
    /// A machine answered an order, or did not.
    Answered {
        machine: MachineName,
        order: OrderKind,
        outcome: Outcome,
    },
    /// A machine reported something, and when that was by its clock.
    Happened {
        machine: MachineName,
        at_unix_ms: u64,
        what: Lifecycle,
    },
    /// A machine says how its nodes are, on joining.
    Nodes { machine: MachineName, nodes: Vec<NodeStatus> },
    /// A machine has been silent for too long.
    MachineLost { machine: MachineName, since_unix_ms: u64 },
    /// A machine can be reached again; on a fresh connection, orders that were under way are lost.
    MachineBack { machine: MachineName, fresh: bool },
    /// A machine came back and knows nothing of its part.
    PartGone { machine: MachineName, reason: String },
    /// Somebody wants it to end.
    Stop { by: String, grace_ms: Option<u64>, force: bool },
    /// Time has passed.
    Tick,
}

/// What is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Order a machine to do something.
    Order { machine: MachineName, order: Order },
    /// Tell those who watch.
    Tell(DataflowEvent),
    /// Tell those who started it that it runs.
    Started,
    /// Tell those who started it that it does not.
    StartRefused(Refusal),
    /// Put the record on disk.
    Save,
    /// Nothing more will happen, except for log lines.
    Ended,
}

/// An order to one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Prepare,
    Spawn,
    Release { exited_before_subscribe: Vec<NodeId> },
    Stop { grace_ms: Option<u64> },
    Kill,
    Forget,
}

impl Order {
    pub(crate) const fn kind(&self) -> OrderKind {
        match self {
            Self::Prepare => OrderKind::Prepare,
            Self::Spawn => OrderKind::Spawn,
            Self::Release { .. } => OrderKind::Release,
            Self::Stop { .. } => OrderKind::Stop,
            Self::Kill => OrderKind::Kill,
            Self::Forget => OrderKind::Forget,
        }
    }
}

/// Which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OrderKind {
    Prepare,
    Spawn,
    Release,
    Stop,
    Kill,
    Forget,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Refused(Refusal),
    /// The connection is gone; whether the machine did it is not known.
    Lost,
    /// The machine is connected and did not answer in time.
    TimedOut,
    /// The machine takes no more orders: it answers too slowly.
    Full,
}
