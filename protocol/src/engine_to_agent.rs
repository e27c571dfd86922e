//! What an engine child says to its daemon over their unix socket. See [`crate::agent_to_engine`] for the order of frames.

use crate::{
    agent_to_engine::RunOrder,
    dataflow::{NodeFailure, NodeStatus},
    ids::{DataflowId, EngineId, NodeId},
    log_line::{LogLevel, LogSource},
    machine::RunPhase,
    refusal::Refusal,
    version::Version,
};
use serde::{Deserialize, Serialize};

/// First frame of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineHello {
    /// The connection counts; an older one of the agent is closed.
    Welcome {
        /// Version that both speak.
        version: Version,
        /// This life of the engine.
        engine: EngineId,
        /// Its process id.
        pid: u32,
        /// Version of the dora engine inside.
        dora_version: String,
        /// Everything it has in hand.
        runs: Vec<EngineRun>,
        /// Number of the latest event; those above the agent's `resume` follow.
        last_seq: u64,
    },
    /// No common version, or this process may not attach.
    Refusal(Refusal),
}

/// One run that an engine has in hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineRun {
    /// What was ordered.
    pub order: RunOrder,
    /// How far it is.
    pub phase: RunPhase,
    /// The local nodes.
    pub nodes: Vec<NodeStatus>,
    /// Where the output of each local node is written.
    pub outputs: Vec<NodeOutput>,
}

/// Where the output of one node is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeOutput {
    /// Which node.
    pub node: NodeId,
    /// Absolute path of its current JSONL file; older ones lie beside it as `log_<node>.1.jsonl` and so on. None when its output
    /// is not captured (dynamic nodes).
    pub path: Option<String>,
}

/// Every later frame of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineFrame {
    /// The answer to an order.
    Reply {
        /// Number of the order.
        id: u64,
        /// What came of it.
        result: Result<EngineReply, Refusal>,
    },
    /// Something happened. Kept on disk until the agent has acknowledged it.
    Event {
        /// Number within this life of the engine, from 1, without holes.
        seq: u64,
        /// When, in milliseconds since the Unix epoch.
        at_unix_ms: u64,
        /// To which run; none for messages of the engine itself.
        dataflow: Option<DataflowId>,
        /// What.
        what: EngineEvent,
    },
    /// Nothing new; the engine is alive. Sent every second.
    Alive,
}

/// What a fulfilled order answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineReply {
    /// The run is checked, and this is where its output will be.
    Checked {
        /// One for each local node.
        outputs: Vec<NodeOutput>,
    },
    /// Done.
    Done,
}

/// What happens inside an engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineEvent {
    /// A process was made for a node.
    NodeStarted {
        /// Which node.
        node: NodeId,
        /// Its process id; it leads its own process group.
        pid: u32,
    },
    /// A node ended and will not be restarted.
    NodeStopped {
        /// Which node.
        node: NodeId,
        /// Whether it ended well or was asked to.
        clean: bool,
    },
    /// All local nodes of a run over several machines are ready.
    BarrierReached {
        /// Nodes that exited before they were ready.
        exited_before_subscribe: Vec<NodeId>,
    },
    /// All local nodes of a run have ended. The last event of a run.
    Finished {
        /// Nodes that failed.
        failures: Vec<NodeFailure>,
    },
    /// A message of dora's daemon or spawner, or a line of build output.
    Message {
        /// What it belongs to.
        source: LogSource,
        /// How much it matters.
        level: LogLevel,
        /// The text.
        text: String,
    },
    /// So many messages were dropped since the last one that was kept, as the agent was away for too long.
    MessagesDropped {
        /// How many.
        count: u64,
    },
}
