//! The stable machine form of everything that is listed or followed.
//!
//! Field names and their meaning are a promise; fields are added, never renamed or reused. `schema` grows only when that
//! promise must be broken. Points in time are RFC 3339 in UTC. Documents carry `schema` at their top, lines of a feed carry `type`.

mod machines;

pub use machines::{Back, Disk, Machine, MachineList, Older, Twin};

use super::time::rfc3339;
use dora_remote_protocol::{
    cli_to_coordinator::CoordinatorStatus,
    dataflow::{DataflowResult, DataflowSummary, FailureCause, NodeFailure, NodeStatus, PlacedNode},
    ids::DataflowId,
    log_line::{LogLine, LogSource, LogStream},
    machine::MachineSummary,
    name::{DataflowName, MachineName},
};
use serde::Serialize;
use std::collections::BTreeMap;

/// Version of the machine form.
pub const SCHEMA: u32 = 1;

/// The document of `list`.
#[derive(Debug, Serialize)]
pub struct DataflowList<'a> {
    /// See [`SCHEMA`].
    pub schema: u32,
    /// Oldest first.
    pub dataflows: Vec<Dataflow<'a>>,
}

/// One dataflow.
#[derive(Debug, Serialize)]
pub struct Dataflow<'a> {
    /// Id of the run.
    pub id: DataflowId,
    /// Its name.
    pub name: &'a DataflowName,
    /// `Preparing`, `Starting`, `Running`, `Stopping`, `Finished` or `Failed`.
    pub state: &'static str,
    /// When it was asked for.
    pub created: String,
    /// When it came to run.
    pub running_since: Option<String>,
    /// When it ended.
    pub ended: Option<String>,
    /// Who asked for it.
    pub started_by: &'a str,
    /// Its nodes.
    pub nodes: Vec<Node<'a>>,
    /// Machines of it that cannot be reached.
    pub unreachable: Vec<Unreachable<'a>>,
    /// How it ended.
    pub result: Option<Outcome<'a>>,
    /// What a machine does with it while it does not hear the coordinator: `keep` or `stop-after=30s`.
    pub on_link_loss: String,
    /// Machines of it that could not be reached for a while and are back.
    pub restored: Vec<Back<'a>>,
}

/// One node.
#[derive(Debug, Serialize)]
pub struct Node<'a> {
    /// Its id.
    pub id: &'a str,
    /// Where it runs.
    pub machine: &'a MachineName,
    /// `Waiting`, `Running`, `Stopped` or `Failed`.
    pub state: &'static str,
    /// Its process id while it runs.
    pub pid: Option<u32>,
}

/// One machine that cannot be reached.
#[derive(Debug, Serialize)]
pub struct Unreachable<'a> {
    /// Which machine.
    pub machine: &'a MachineName,
    /// When it was last heard.
    pub since: String,
}

/// How a dataflow ended.
#[derive(Debug, Serialize)]
pub struct Outcome<'a> {
    /// Whether every node ended well or was asked to stop.
    pub success: bool,
    /// Whether somebody asked for the end.
    pub stopped: bool,
    /// First causes before their consequences.
    pub failures: Vec<Fault<'a>>,
    /// What else is to be said, or empty.
    pub note: &'a str,
}

/// Why one node failed.
#[derive(Debug, Serialize)]
pub struct Fault<'a> {
    /// Which node.
    pub node: &'a str,
    /// On which machine.
    pub machine: &'a MachineName,
    /// `grace`, `cascading`, `spawn`, `own` or `engine-lost`.
    pub cause: &'static str,
    /// What is known of it.
    pub message: &'a str,
    /// How the process ended.
    pub exit: &'a str,
}

/// The document of `status`.
#[derive(Debug, Serialize)]
pub struct Status<'a> {
    /// See [`SCHEMA`].
    pub schema: u32,
    /// Where the coordinator was reached.
    pub address: String,
    /// Its SPIFFE id.
    pub identity: &'a str,
    /// Its build.
    pub build: &'a str,
    /// The build of this program.
    pub own_build: &'static str,
    /// When it started.
    pub started: String,
    /// Its clock.
    pub now: String,
    /// End of its certificate.
    pub certificate_ends: String,
    /// Machines that can be reached.
    pub machines_connected: u64,
    /// Machines that are known and cannot be reached.
    pub machines_unreachable: u64,
    /// Dataflows that have not ended.
    pub dataflows_live: u64,
    /// Dataflows that have ended and are still listed.
    pub dataflows_ended: u64,
    /// Bytes of stored log lines.
    pub log_bytes: u64,
    /// Bound of that store.
    pub log_bytes_max: u64,
    /// Free space of the coordinator's disk, in bytes.
    pub free_bytes: u64,
    /// Free space below which it stores no more log lines.
    pub free_bytes_min: u64,
    /// Who asks, and in which role.
    pub asker: &'a str,
    /// What each machine takes of its disk, where it was measured.
    pub disks: BTreeMap<&'a MachineName, Disk>,
}

/// One line of a feed.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum FeedLine<'a> {
    /// The dataflow has its machines.
    Placed {
        /// Its id.
        id: DataflowId,
        /// Its name.
        name: &'a DataflowName,
        /// Which node runs where.
        nodes: Vec<Placed<'a>>,
    },
    /// The dataflow is in this state now.
    State {
        /// See [`Dataflow::state`].
        state: &'static str,
    },
    /// One log line.
    Log {
        /// Number within the dataflow, rising.
        seq: u64,
        /// When it was written.
        time: String,
        /// Where it was written.
        machine: &'a MachineName,
        /// `node`, `machine` or `build`.
        source: &'static str,
        /// Which node, when the source is one.
        node: Option<&'a str>,
        /// `stdout`, `stderr` or `message`.
        stream: &'static str,
        /// How much it matters, where it says so.
        level: Option<&'static str>,
        /// The line without its end.
        text: &'a str,
    },
    /// A node changed.
    Node {
        /// Which node.
        node: &'a str,
        /// Where it runs.
        machine: &'a MachineName,
        /// See [`Node::state`].
        state: &'static str,
        /// When, by the machine's clock; null where that is not known.
        time: Option<String>,
    },
    /// A machine was lost or came back.
    Reach {
        /// Which machine.
        machine: &'a MachineName,
        /// When it was last heard; null when it is back.
        unreachable_since: Option<String>,
    },
    /// A machine has stopped its part by itself, because it did not hear the coordinator.
    LinkLost {
        /// Which machine.
        machine: &'a MachineName,
        /// When, by its clock.
        time: String,
        /// For how long it had not heard the coordinator, in milliseconds.
        silent_ms: u64,
    },
    /// Lines that no longer exist.
    Gap {
        /// How many, where that is known, else 0.
        lines: u64,
    },
    /// This command takes lines more slowly than they come.
    Lag {
        /// Lines that are still to come.
        lines: u64,
        /// Age of the next of them.
        milliseconds: u64,
    },
    /// How the dataflow ended. Always the last line.
    Result {
        /// Its id.
        id: DataflowId,
        /// Its name.
        name: &'a DataflowName,
        /// How.
        result: Outcome<'a>,
    },
}

/// One placed node.
#[derive(Debug, Serialize)]
pub struct Placed<'a> {
    /// Its id.
    pub id: &'a str,
    /// Where it runs.
    pub machine: &'a MachineName,
    /// Whether somebody else starts it.
    pub dynamic: bool,
}

impl<'a> From<&'a PlacedNode> for Placed<'a> {
    fn from(node: &'a PlacedNode) -> Self {
        Self {
            id: node.id.as_str(),
            machine: &node.machine,
            dynamic: node.dynamic,
        }
    }
}

impl<'a> From<&'a DataflowSummary> for Dataflow<'a> {
    fn from(dataflow: &'a DataflowSummary) -> Self {
        Self {
            id: dataflow.id,
            name: &dataflow.name,
            state: dataflow.state.as_str(),
            created: rfc3339(dataflow.created_unix_ms),
            running_since: dataflow.running_since_unix_ms.map(rfc3339),
            ended: dataflow.ended_unix_ms.map(rfc3339),
            started_by: &dataflow.started_by,
            nodes: dataflow.nodes.iter().map(Node::from).collect(),
            unreachable: dataflow
                .unreachable
                .iter()
                .map(|(machine, since)| Unreachable {
                    machine,
                    since: rfc3339(*since),
                })
                .collect(),
            result: dataflow.result.as_ref().map(Outcome::from),
            on_link_loss: dataflow.link_loss.to_string(),
            restored: dataflow
                .restored
                .iter()
                .map(|(machine, restored)| Back::of(machine, restored))
                .collect(),
        }
    }
}

impl<'a> From<&'a NodeStatus> for Node<'a> {
    fn from(node: &'a NodeStatus) -> Self {
        Self {
            id: node.id.as_str(),
            machine: &node.machine,
            state: node.state.as_str(),
            pid: node.pid,
        }
    }
}

impl<'a> From<&'a DataflowResult> for Outcome<'a> {
    fn from(result: &'a DataflowResult) -> Self {
        Self {
            success: result.success,
            stopped: result.stopped,
            failures: result.failures.iter().map(Fault::from).collect(),
            note: &result.note,
        }
    }
}

impl<'a> From<&'a NodeFailure> for Fault<'a> {
    fn from(failure: &'a NodeFailure) -> Self {
        let (cause, message) = match &failure.cause {
            FailureCause::GraceDuration => ("grace", "it did not end within the grace of a stop and was killed"),
            FailureCause::Cascading { caused_by } => ("cascading", caused_by.as_str()),
            FailureCause::FailedToSpawn { message } => ("spawn", message.as_str()),
            FailureCause::Own { stderr } => ("own", stderr.as_str()),
            FailureCause::EngineLost { message } => ("engine-lost", message.as_str()),
        };
        Self {
            node: failure.node.as_str(),
            machine: &failure.machine,
            cause,
            message,
            exit: &failure.exit,
        }
    }
}

impl<'a> Status<'a> {
    /// The document of one answer.
    #[must_use]
    pub fn of(status: &'a CoordinatorStatus, machines: &'a [MachineSummary], address: String) -> Self {
        Self {
            schema: SCHEMA,
            address,
            identity: &status.identity,
            build: &status.build,
            own_build: crate::BUILD,
            started: rfc3339(status.started_unix_ms),
            now: rfc3339(status.now_unix_ms),
            certificate_ends: rfc3339(status.certificate_ends_unix_ms),
            machines_connected: status.machines_connected,
            machines_unreachable: status.machines_unreachable,
            dataflows_live: status.dataflows_live,
            dataflows_ended: status.dataflows_ended,
            log_bytes: status.log_bytes,
            log_bytes_max: status.log_bytes_max,
            free_bytes: status.free_bytes,
            free_bytes_min: status.free_bytes_min,
            asker: &status.asker,
            disks: machines
                .iter()
                .filter_map(|machine| Some((&machine.name, machine.disk.as_ref()?.into())))
                .collect(),
        }
    }
}

impl<'a> From<&'a LogLine> for FeedLine<'a> {
    fn from(line: &'a LogLine) -> Self {
        let (source, node) = match &line.source {
            LogSource::Node(node) => ("node", Some(node.as_str())),
            LogSource::Machine => ("machine", None),
            LogSource::Build => ("build", None),
        };
        Self::Log {
            seq: line.seq,
            time: rfc3339(line.at_unix_ms),
            machine: &line.machine,
            source,
            node,
            stream: match line.stream {
                LogStream::Stdout => "stdout",
                LogStream::Stderr => "stderr",
                LogStream::Message => "message",
            },
            level: line.level.map(|level| level.as_str()),
            text: &line.text,
        }
    }
}

impl FeedLine<'_> {
    /// The line with its end.
    #[must_use]
    pub fn to_line(&self) -> String {
        // Every field is a string, a number or a list of them, which JSON can always hold.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}
