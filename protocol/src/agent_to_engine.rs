//! What a daemon (the agent of a machine) says to its engine child over their unix socket.
//!
//! The first frame is [`AgentHello`]; after the engine's answer only [`AgentFrame`]s follow. A newer agent must be able to adopt
//! an older engine, and an older agent a newer engine: enums are append-only, and nothing is sent that the agreed version does not know.

use crate::{
    dataflow::PlacedNode,
    ids::{DataflowId, EngineId, NodeId},
    name::{DataflowName, MachineName},
    version::{Version, VersionRange},
};
use serde::{Deserialize, Serialize};

/// Versions of this language that this build speaks.
///
/// The newest one is raised with every order, answer or event that is added, whichever side says it. The daemon of a machine may be put
/// back to a former program while an engine of the newer one still has runs: an older agent then adopts a newer engine, and one event that
/// it cannot read would cut its connection again and again, so that it could not even stop them.
///
/// 2: [`EngineOrder::Inspect`]. 3: [`EngineEvent::LinesLost`](crate::engine_to_agent::EngineEvent::LinesLost).
pub const ENGINE_VERSIONS: VersionRange = VersionRange {
    oldest: Version(1),
    newest: Version(3),
};

/// First frame of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentHello {
    /// Versions spoken.
    pub versions: VersionRange,
    /// The life of the engine that the agent knows and the last event of it that the agent has stored.
    pub resume: Option<(EngineId, u64)>,
}

/// Every later frame of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentFrame {
    /// An order; answered under the same number.
    Order {
        /// Number of the order on this connection.
        id: u64,
        /// What to do.
        order: EngineOrder,
    },
    /// Events up to and with this number are stored by the agent and may be forgotten.
    Acked {
        /// Number of the last stored event.
        seq: u64,
    },
}

/// What an engine can be told to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineOrder {
    /// Parse the descriptor, resolve and check all nodes, check the files of the local ones, remember the order. No process is made.
    Check(RunOrder),
    /// Spawn the local nodes of a checked run; answered when all processes exist or one could not be made.
    Spawn {
        /// Which run.
        dataflow: DataflowId,
    },
    /// Let the nodes of a run over several machines go.
    Release {
        /// Which run.
        dataflow: DataflowId,
        /// Nodes of all machines that exited before they were ready.
        exited_before_subscribe: Vec<NodeId>,
    },
    /// Stop the local nodes of a run; answered when the stop is under way.
    Stop {
        /// Which run.
        dataflow: DataflowId,
        /// Milliseconds of grace; dora's default when absent.
        grace_ms: Option<u64>,
        /// SIGKILL at once.
        force: bool,
    },
    /// Forget a run that has no process.
    Forget {
        /// Which run.
        dataflow: DataflowId,
    },
    /// End the engine. Refused while a run has processes, unless `force` is set, which stops them first.
    Shutdown {
        /// Stop what runs.
        force: bool,
    },
    /// Tell what the local nodes of a checked run would start; answered with [`crate::engine_to_agent::RunFacts`].
    Inspect {
        /// Which run.
        dataflow: DataflowId,
    },
}

impl EngineOrder {
    /// The first version that knows the order: it must not be sent to an engine with which an older one was agreed.
    #[must_use]
    pub const fn since(&self) -> Version {
        match self {
            Self::Check(_)
            | Self::Spawn { .. }
            | Self::Release { .. }
            | Self::Stop { .. }
            | Self::Forget { .. }
            | Self::Shutdown { .. } => Version(1),
            Self::Inspect { .. } => Version(2),
        }
    }
}

/// One run as an engine needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOrder {
    /// Id of the run.
    pub dataflow: DataflowId,
    /// Name of the run.
    pub name: DataflowName,
    /// See [`crate::dataflow::DataflowSpec::descriptor`].
    pub descriptor: String,
    /// All nodes of the dataflow with their machines.
    pub nodes: Vec<PlacedNode>,
    /// This machine.
    pub machine: MachineName,
    /// Absolute directory that exists and becomes dora's `local_working_dir`.
    pub run_dir: String,
    /// Whether Python nodes run in an environment managed by uv.
    pub uv: bool,
}
