//! Orders to a machine, each with its reply beside it. Verbs 100 to 199. Each may be repeated without harm.

use crate::{
    audit::{SignedHead, SignedRevocations},
    dataflow::{Files, LinkLoss, PlacedNode},
    identity::RoleSet,
    ids::{DataflowId, NodeId},
    name::DataflowName,
    request::request,
};
use serde::{Deserialize, Serialize};

/// Makes a machine ready: fetch and unpack the files, check every local node. No process is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareRun {
    /// Id of the run.
    pub dataflow: DataflowId,
    /// Name of the run.
    pub name: DataflowName,
    /// See [`crate::dataflow::DataflowSpec::descriptor`].
    pub descriptor: String,
    /// All nodes of the dataflow with their machines.
    pub nodes: Vec<PlacedNode>,
    /// Where the files come from.
    pub files: Files,
    /// See [`crate::dataflow::DataflowSpec::uv`].
    pub uv: bool,
    /// SPIFFE id of the one who starts it, as the coordinator has it from the certificate; the machine's policy looks at it.
    pub by: String,
    /// See [`crate::dataflow::DataflowSpec::link_loss`].
    pub link_loss: LinkLoss,
}
request!(PrepareRun, 100, "prepare-run", RoleSet::COORDINATOR, Call, Command => ());

/// Spawns the local nodes of a prepared run; answered once every process exists. A run over several machines then waits at the barrier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnRun {
    /// Which run.
    pub dataflow: DataflowId,
}
request!(SpawnRun, 101, "spawn-run", RoleSet::COORDINATOR, Call, Command => ());

/// Lets the local nodes of a run go: all machines have reached the barrier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseBarrier {
    /// Which run.
    pub dataflow: DataflowId,
    /// Nodes of all machines that exited before they were ready; if there are any, dora fails the waiting nodes.
    pub exited_before_subscribe: Vec<NodeId>,
}
request!(ReleaseBarrier, 102, "release-barrier", RoleSet::COORDINATOR, Call, Command => ());

/// Stops the local nodes of a run; answered when the stop is under way. The end comes as an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRun {
    /// Which run.
    pub dataflow: DataflowId,
    /// See [`crate::cli_to_coordinator::StopDataflow::grace_ms`].
    pub grace_ms: Option<u64>,
    /// SIGKILL at once.
    pub force: bool,
}
request!(StopRun, 103, "stop-run", RoleSet::COORDINATOR, Call, Safety => ());

/// Forgets a run that has no process: removes its directory and its record. Refused while a node of it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetRun {
    /// Which run.
    pub dataflow: DataflowId,
}
request!(ForgetRun, 104, "forget-run", RoleSet::COORDINATOR, Call, Command => ());

/// Has a machine keep the end of the audit's chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepHead {
    /// The end, signed.
    pub head: SignedHead,
}
request!(KeepHead, 105, "keep-head", RoleSet::COORDINATOR, Call, Event => ());

/// Has a machine keep the revocations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepRevocations {
    /// All of them, signed.
    pub revocations: SignedRevocations,
}
request!(KeepRevocations, 106, "keep-revocations", RoleSet::COORDINATOR, Call, Event => ());

/// Asks for the heads that a machine keeps, oldest first; at most [`crate::audit::MAX_WITNESSED_HEADS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShowHeads {}
request!(ShowHeads, 107, "show-heads", RoleSet::COORDINATOR, Call, Event => Vec<SignedHead>);

/// Asks whether a machine is still there: before another one of the same name may take its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {}
request!(Ping, 108, "ping", RoleSet::COORDINATOR, Call, Safety => ());

/// Tells a machine that ships log lines on demand that somebody reads those of a run: it ships what it has, and what comes, for so long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantLogs {
    /// Which run.
    pub dataflow: DataflowId,
    /// For how many milliseconds, at most [`crate::limits::LOGS_LEASE`], unless that is renewed; 0: nobody reads any more.
    pub lease_ms: u64,
}
request!(WantLogs, 109, "want-logs", RoleSet::COORDINATOR, Call, Event => ());

/// Asks a machine to answer once every log line of a run that exists there now is acknowledged. It ships them only while it is told
/// that somebody reads them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainLogs {
    /// Which run.
    pub dataflow: DataflowId,
}
request!(DrainLogs, 110, "drain-logs", RoleSet::COORDINATOR, Call, Event => ());
