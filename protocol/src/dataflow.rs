//! What a dataflow is to all sides: how it is described, placed, what state it is in and how it ended.

use crate::{
    ids::{BundleHash, DataflowId, NodeId},
    limits::{MAX_LINK_SILENCE, MIN_LINK_SILENCE},
    machine::Restored,
    name::{DataflowName, MachineName},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, convert::Infallible, fmt, str::FromStr, time::Duration};

/// Labels of a machine, or labels that a node asks for.
pub type Labels = BTreeMap<String, String>;

/// A dataflow as somebody wants it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataflowSpec {
    /// What it shall be called.
    pub name: NameWish,
    /// The descriptor as YAML: modules expanded, `--env` applied, every `$` of an env value doubled, so that the one who parses
    /// it (the engine) gets the values as they are meant. The coordinator carries it and never parses it.
    pub descriptor: String,
    /// Every node of the descriptor with what it asks of its machine; the engine refuses when text and list disagree.
    pub nodes: Vec<NodeSpec>,
    /// Where nodes run that ask for nothing.
    pub default_machine: Option<MachineName>,
    /// Where the files of the dataflow come from.
    pub files: Files,
    /// Whether Python nodes run in an environment managed by uv.
    pub uv: bool,
    /// What each machine does with its part when it does not hear the coordinator for long.
    pub link_loss: LinkLoss,
}

/// What a machine does by itself with its part of a dataflow while it does not hear the coordinator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkLoss {
    /// Its nodes go on, however long that is.
    #[default]
    Keep,
    /// Once nothing was heard for that long, its nodes are stopped with the default grace. The nodes do not wait for the link.
    StopAfter {
        /// Milliseconds, within [`MIN_LINK_SILENCE`] and [`MAX_LINK_SILENCE`].
        silence_ms: u64,
    },
}

impl LinkLoss {
    /// Whether the silence is one that can be kept.
    #[must_use]
    pub fn is_within_bounds(self) -> bool {
        self.silence()
            .is_none_or(|silence| (MIN_LINK_SILENCE..=MAX_LINK_SILENCE).contains(&silence))
    }

    /// The silence that ends it; none when it goes on.
    #[must_use]
    pub const fn silence(self) -> Option<Duration> {
        match self {
            Self::Keep => None,
            Self::StopAfter { silence_ms } => Some(Duration::from_millis(silence_ms)),
        }
    }
}

impl fmt::Display for LinkLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("keep"),
            Self::StopAfter { silence_ms } if silence_ms % 1000 == 0 => write!(f, "stop-after={}s", silence_ms / 1000),
            Self::StopAfter { silence_ms } => write!(f, "stop-after={silence_ms}ms"),
        }
    }
}

/// What a dataflow shall be called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NameWish {
    /// This name, or a refusal when a dataflow of that name has not ended.
    Exactly(DataflowName),
    /// This name, or one made from it by a number behind it (`flow-2`).
    Like(DataflowName),
}

/// One node and what it asks of its machine (`deploy.machine` before `deploy.labels`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Id within the dataflow.
    pub id: NodeId,
    /// The machine it is pinned to.
    pub machine: Option<MachineName>,
    /// Labels its machine must have, all of them.
    pub labels: Labels,
    /// A `path: dynamic` node: it is started by somebody else, and its output is not captured.
    pub dynamic: bool,
}

/// Where the files of a dataflow come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Files {
    /// An archive that was uploaded before, unpacked into a fresh directory for each run and machine.
    Bundle(BundleRef),
    /// An absolute directory that is already on every machine concerned.
    OnMachine(String),
}

/// Names one archive: a zstd-compressed tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleRef {
    /// BLAKE3 hash of the compressed bytes.
    pub hash: BundleHash,
    /// Compressed bytes, at most [`crate::limits::MAX_BUNDLE_BYTES`].
    pub bytes: u64,
    /// Unpacked bytes, at most [`crate::limits::MAX_UNPACKED_BYTES`].
    pub unpacked_bytes: u64,
    /// Files, directories and links inside.
    pub entries: u64,
}

/// One node and the machine it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedNode {
    /// Id within the dataflow.
    pub id: NodeId,
    /// Where it runs.
    pub machine: MachineName,
    /// See [`NodeSpec::dynamic`].
    pub dynamic: bool,
}

/// How a person names a dataflow: by its id or by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataflowRef {
    /// By id; also finds dataflows that have ended.
    Id(DataflowId),
    /// By name: the one that has not ended, else the latest that has.
    Name(String),
}

impl FromStr for DataflowRef {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Id))
    }
}

impl fmt::Display for DataflowRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// Where a dataflow is in its life. Only ever moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DataflowState {
    /// Machines fetch files and check their part; no process exists.
    Preparing,
    /// Processes are being spawned, or wait for each other at the barrier.
    Starting,
    /// All nodes were let go together.
    Running,
    /// Somebody asked for its end.
    Stopping,
    /// Ended, and every node ended well or was asked to stop.
    Finished,
    /// Ended because something failed.
    Failed,
}

impl DataflowState {
    /// Whether nothing more will happen to it.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Finished | Self::Failed)
    }

    /// The state as people and JSON see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "Preparing",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Stopping => "Stopping",
            Self::Finished => "Finished",
            Self::Failed => "Failed",
        }
    }
}

/// Where one node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodeState {
    /// Not spawned yet.
    Waiting,
    /// Its process exists.
    Running,
    /// Ended by itself with success, or was asked to stop.
    Stopped,
    /// Ended otherwise.
    Failed,
}

impl NodeState {
    /// The state as people and JSON see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::Running => "Running",
            Self::Stopped => "Stopped",
            Self::Failed => "Failed",
        }
    }
}

/// One node as last heard of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Id within the dataflow.
    pub id: NodeId,
    /// Where it runs.
    pub machine: MachineName,
    /// Where it is in its life.
    pub state: NodeState,
    /// Process id on its machine, while it runs.
    pub pid: Option<u32>,
}

/// One dataflow as the coordinator knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataflowSummary {
    /// Id of this run.
    pub id: DataflowId,
    /// Name of this run.
    pub name: DataflowName,
    /// Where it is in its life, as last heard.
    pub state: DataflowState,
    /// When it was asked for, in milliseconds since the Unix epoch, by the coordinator's clock.
    pub created_unix_ms: u64,
    /// When it came to run.
    pub running_since_unix_ms: Option<u64>,
    /// When its last node ended, by the clock of that machine, where it has said so; else when the coordinator learned of the end.
    pub ended_unix_ms: Option<u64>,
    /// Who asked for it: a SPIFFE id.
    pub started_by: String,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
    /// Machines of it that cannot be reached, and since when (last heard, milliseconds since the Unix epoch).
    pub unreachable: BTreeMap<MachineName, u64>,
    /// How it ended.
    pub result: Option<DataflowResult>,
    /// See [`DataflowSpec::link_loss`].
    pub link_loss: LinkLoss,
    /// Machines of it that could not be reached for a while and are back.
    pub restored: BTreeMap<MachineName, Restored>,
}

/// How a dataflow ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataflowResult {
    /// Whether every node ended well or was asked to stop.
    pub success: bool,
    /// Whether somebody asked for the end.
    pub stopped: bool,
    /// Nodes that failed, first causes before their consequences.
    pub failures: Vec<NodeFailure>,
    /// What else is to be said, such as the death of an engine. Empty when there is nothing.
    pub note: String,
}

/// Why one node failed (dora: `NodeError`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFailure {
    /// Which node.
    pub node: NodeId,
    /// On which machine.
    pub machine: MachineName,
    /// What went wrong.
    pub cause: FailureCause,
    /// How the process ended: `exit code 1`, `signal 9`.
    pub exit: String,
}

/// What made a node fail (dora: `NodeErrorCause`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureCause {
    /// It did not end within the grace of a stop and was killed.
    GraceDuration,
    /// Another node failed first.
    Cascading {
        /// That node.
        caused_by: NodeId,
    },
    /// Its process could not be made.
    FailedToSpawn {
        /// Why.
        message: String,
    },
    /// It ended with an error of its own.
    Own {
        /// The last lines of its standard error, cut to [`crate::limits::MAX_TEXT_BYTES`].
        stderr: String,
    },
    /// The engine that ran it died, or lost it.
    EngineLost {
        /// How.
        message: String,
    },
}

/// Something that happened to a dataflow, as those who watch it are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataflowEvent {
    /// It was accepted and its nodes have machines. Always the first event.
    Placed {
        /// Id of this run.
        id: DataflowId,
        /// Name of this run.
        name: DataflowName,
        /// Which node runs where.
        nodes: Vec<PlacedNode>,
    },
    /// It is in this state now.
    State(DataflowState),
    /// A machine has done its part of the current state.
    MachineDone {
        /// Which machine.
        machine: MachineName,
        /// Of which state.
        state: DataflowState,
    },
    /// A node changed.
    Node {
        /// How it is.
        node: NodeStatus,
        /// When it came to that, in milliseconds since the Unix epoch, by the clock of its machine; none where that is not known.
        at_unix_ms: Option<u64>,
    },
    /// A machine of it was lost or came back.
    Reach {
        /// Which machine.
        machine: MachineName,
        /// Since when it cannot be reached; none when it is back.
        unreachable_since_unix_ms: Option<u64>,
    },
    /// It ended. Always the last event.
    Ended(DataflowResult),
    /// A machine has stopped its part by itself: see [`LinkLoss::StopAfter`].
    LinkLost {
        /// Which machine.
        machine: MachineName,
        /// When it did so, in milliseconds since the Unix epoch, by its own clock.
        at_unix_ms: u64,
        /// For how long it had not heard the coordinator by then, in milliseconds.
        silent_ms: u64,
    },
}
