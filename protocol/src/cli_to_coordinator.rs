//! Requests of people, each with its reply beside it. Verbs 1 to 99.

use crate::{
    dataflow::{BundleRef, DataflowEvent, DataflowRef, DataflowResult, DataflowSpec, DataflowSummary},
    identity::RoleSet,
    ids::{BundleHash, DataflowId, NodeId, RequestId},
    log_line::{LogItem, LogLevel},
    machine::MachineSummary,
    name::DataflowName,
    request::request,
};
use serde::{Deserialize, Serialize};

/// Asks whether the coordinator already holds an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HasBundle {
    /// Which archive.
    pub hash: BundleHash,
}
request!(HasBundle, 10, "has-bundle", RoleSet::ACT, Call, Command => bool);

/// Brings an archive; its bytes follow on the same stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutBundle {
    /// What follows. The coordinator refuses bytes that do not match.
    pub bundle: BundleRef,
}
request!(PutBundle, 11, "put-bundle", RoleSet::ACT, Upload, Bundle => BundleStored);

/// The archive is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleStored {
    /// Which one.
    pub hash: BundleHash,
}

/// Starts a dataflow. The feed tells each step and ends whole once the dataflow runs; a start that fails is undone on every
/// machine and ends in a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartDataflow {
    /// Asking again with the same id joins the start that is under way, and starts nothing.
    pub start_id: RequestId,
    /// What to start.
    pub spec: DataflowSpec,
}
request!(StartDataflow, 12, "start", RoleSet::ACT, Feed, Command => DataflowEvent);

/// Stops a dataflow and answers once it has ended on every machine that can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopDataflow {
    /// Which one.
    pub dataflow: DataflowRef,
    /// Milliseconds between the stop event and SIGTERM; dora's default (10 s) when absent. SIGKILL follows at 1.5 times that.
    pub grace_ms: Option<u64>,
    /// SIGKILL at once.
    pub force: bool,
}
request!(StopDataflow, 13, "stop", RoleSet::ACT, Call, Safety => DataflowStopped);

/// The dataflow has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataflowStopped {
    /// Which one.
    pub id: DataflowId,
    /// Its name.
    pub name: DataflowName,
    /// How it ended.
    pub result: DataflowResult,
}

/// Lists dataflows, oldest first: those that have not ended and the latest of those that have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDataflows {}
request!(ListDataflows, 14, "list", RoleSet::LOOK, Call, Command => Vec<DataflowSummary>);

/// Tells what happens to a dataflow, from its present state on; ends whole when it has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchDataflow {
    /// Which one.
    pub dataflow: DataflowRef,
}
request!(WatchDataflow, 15, "watch", RoleSet::LOOK, Feed, Command => DataflowEvent);

/// Reads log lines of a dataflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadLogs {
    /// Which one.
    pub dataflow: DataflowRef,
    /// Only these nodes; empty for all nodes and the machines' messages.
    pub nodes: Vec<NodeId>,
    /// Only the last so many of the lines that exist.
    pub tail: Option<u64>,
    /// Only lines above this sequence number: where a follower goes on after a cut.
    pub after: Option<u64>,
    /// Go on with lines as they arrive, until the dataflow has ended and its last line was sent.
    pub follow: bool,
    /// Of the lines that exist when the feed is opened, only those that were written at or after this time, in milliseconds since
    /// the Unix epoch, by the clocks of the machines. Lines that arrive later are sent whatever their time is.
    pub since_unix_ms: Option<u64>,
    /// Only lines that were written at or before this time.
    pub until_unix_ms: Option<u64>,
    /// Only lines that say how much they matter, and matter at least so much.
    pub level: Option<LogLevel>,
    /// Of the messages of machines, only those that matter at least so much. Output of nodes and of builds is not concerned.
    pub machine_level: Option<LogLevel>,
    /// Only lines that contain this text, ignoring case; at most [`crate::limits::MAX_GREP_BYTES`].
    pub grep: Option<String>,
}
request!(ReadLogs, 16, "logs", RoleSet::LOOK, Feed, Logs => LogItem);

impl ReadLogs {
    /// Reads every line that there is of a dataflow, and does not follow it.
    #[must_use]
    pub const fn of(dataflow: DataflowRef) -> Self {
        Self {
            dataflow,
            nodes: Vec::new(),
            tail: None,
            after: None,
            follow: false,
            since_unix_ms: None,
            until_unix_ms: None,
            level: None,
            machine_level: None,
            grep: None,
        }
    }
}

/// Lists the machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListMachines {}
request!(ListMachines, 17, "machines", RoleSet::LOOK, Call, Command => Vec<MachineSummary>);

/// Asks how the coordinator is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetStatus {}
request!(GetStatus, 18, "status", RoleSet::LOOK, Call, Command => CoordinatorStatus);

/// How the coordinator is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorStatus {
    /// Its SPIFFE id.
    pub identity: String,
    /// Its build.
    pub build: String,
    /// When this process started, in milliseconds since the Unix epoch.
    pub started_unix_ms: u64,
    /// Its clock now, in milliseconds since the Unix epoch.
    pub now_unix_ms: u64,
    /// End of its certificate, in milliseconds since the Unix epoch.
    pub certificate_ends_unix_ms: u64,
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
    /// Bound of that store in bytes.
    pub log_bytes_max: u64,
    /// Free space of its disk in bytes.
    pub free_bytes: u64,
    /// Free space in bytes below which it stores no more log lines.
    pub free_bytes_min: u64,
    /// Role under which the asker was admitted, and the asker's SPIFFE id.
    pub asker: String,
}
