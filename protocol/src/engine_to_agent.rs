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
    /// What a checked run would start.
    Facts(RunFacts),
}

/// What the local nodes of a checked run would start, for a machine's policy to judge: names and places, never values or arguments.
///
/// Paths are absolute with all links resolved, as they were at the check; a byte that is no UTF-8 stands as U+FFFD.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFacts {
    /// Names of the environment variables that the dataflow sets for all its nodes.
    pub environment: Vec<String>,
    /// Whether programs and scripts are started through `uv run`, which takes the project of the node's directory as its own.
    pub uv: bool,
    /// One for each local node, by id.
    pub nodes: Vec<NodeFacts>,
}

/// What one node would start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Which node.
    pub node: NodeId,
    /// What its process is.
    pub starts: Starts,
    /// The directory in which it runs; it may not exist yet.
    pub dir: String,
    /// Whether it, or an operator of it, has a `build:` command.
    pub build: bool,
    /// Whether its source is a git repository.
    pub git: bool,
    /// Names of the environment variables that the node sets for itself.
    pub environment: Vec<String>,
}

/// What the process of a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Starts {
    /// None: somebody else starts it (`path: dynamic`).
    Nothing,
    /// A shell with a command out of the descriptor (`path: shell`).
    ShellCommand,
    /// A program file.
    Program {
        /// Its real path.
        file: String,
        /// Why it counts as a shell, if it does: a fragment that fits after "it counts as a shell: ".
        shell: Option<String>,
    },
    /// The machine's Python with a script: a file that ends in `.py`, or one whose first line names Python.
    Python {
        /// Real path of the script.
        script: String,
    },
    /// Whatever a URL leads to.
    Download,
    /// The dora runtime with these operators.
    Operators(Vec<OperatorFacts>),
}

/// One operator of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorFacts {
    /// Its language.
    pub kind: OperatorKind,
    /// Its real path; none when it is downloaded from a URL.
    pub file: Option<String>,
    /// Whether it names the conda environment whose interpreter runs it.
    pub conda: bool,
}

/// What an operator is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperatorKind {
    /// A shared library.
    SharedLibrary,
    /// A Python file.
    Python,
    /// A WebAssembly module.
    Wasm,
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
    /// Lines of a node could not be written to its file, most often for want of space. They are lost.
    LinesLost {
        /// Which node.
        node: NodeId,
        /// How many, since the last such event of the node.
        lines: u64,
    },
}

impl EngineEvent {
    /// The first version that knows the event.
    #[must_use]
    pub const fn since(&self) -> Version {
        match self {
            Self::NodeStarted { .. }
            | Self::NodeStopped { .. }
            | Self::BarrierReached { .. }
            | Self::Finished { .. }
            | Self::Message { .. }
            | Self::MessagesDropped { .. } => Version(1),
            Self::LinesLost { .. } => Version(3),
        }
    }

    /// The event as an agent is told of it with which `version` was agreed. Numbers have no holes, so that something it can read stands
    /// in place of what it does not know.
    #[must_use]
    pub fn told_in(self, version: Version) -> Self {
        if self.since() <= version {
            return self;
        }
        match self {
            Self::LinesLost { node, lines } => Self::Message {
                source: LogSource::Machine,
                level: LogLevel::Error,
                text: format!("{node}: {lines} lines of its output could not be written and are lost"),
            },
            other => other,
        }
    }
}
