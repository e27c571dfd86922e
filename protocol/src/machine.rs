//! What a machine is to all sides: its facts, its engine, and what happened on it.

use crate::{
    dataflow::{Labels, LinkLoss, NodeFailure, NodeStatus},
    ids::{BootId, DataflowId, EngineId, InstanceId, NodeId},
    name::{DataflowName, MachineName},
};
use serde::{Deserialize, Serialize};

/// What a daemon says of its machine when it joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineFacts {
    /// Labels given on its command line.
    pub labels: Labels,
    /// Build of the daemon.
    pub build: String,
    /// Operating system and architecture: `linux x86_64`.
    pub platform: String,
    /// Its engine.
    pub engine: EngineStatus,
    /// When it ships log lines.
    pub logs: LogShipping,
}

/// When a machine ships log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogShipping {
    /// As they are written.
    #[default]
    Always,
    /// While somebody reads them (see [`crate::coordinator_to_daemon::WantLogs`]); until then it keeps them.
    OnDemand,
}

impl LogShipping {
    /// As people and JSON see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::OnDemand => "on-demand",
        }
    }
}

/// The engine child of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineStatus {
    /// It is on its way up.
    Starting,
    /// It answers.
    Up {
        /// Which life.
        engine: EngineId,
        /// Its process id.
        pid: u32,
        /// Version of the dora engine inside.
        dora_version: String,
        /// Engines of an older program beside it, which still have runs and take no new ones. At most a few.
        older: Vec<OlderEngine>,
    },
    /// It is not there.
    Down {
        /// Why.
        reason: String,
    },
}

/// What a daemon takes of its machine's disk, in bytes, as it was measured within the last seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskUse {
    /// Free space of the file system of its state directory.
    pub free_bytes: u64,
    /// Free space that is kept: below it, log files and ended runs are given up and no dataflow is started.
    pub free_bytes_min: u64,
    /// Log files of dataflows whose lines are not all shipped.
    pub log_bytes: u64,
    /// Bound of these.
    pub log_bytes_max: u64,
    /// What ended dataflows left behind, their log files included.
    pub ended_bytes: u64,
    /// Bound of that.
    pub ended_bytes_max: u64,
    /// Unpacked bundles of dataflows that have not ended.
    pub bundle_bytes: u64,
    /// The daemon's database.
    pub store_bytes: u64,
}

impl EngineStatus {
    /// The engines beside it, as far as they are known.
    #[must_use]
    pub fn older(&self) -> &[OlderEngine] {
        match self {
            Self::Up { older, .. } => older,
            Self::Starting | Self::Down { .. } => &[],
        }
    }
}

/// An engine that goes on with the runs that it has beside the one that takes new ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OlderEngine {
    /// Its process id.
    pub pid: u32,
    /// Version of the dora engine inside; none when it has not said so since the daemon started.
    pub dora_version: Option<String>,
    /// Runs of it that have not ended.
    pub runs: u32,
    /// Why the daemon cannot talk with it, while that is so: its nodes go on, and cannot be stopped.
    pub trouble: Option<String>,
}

/// One machine as the coordinator knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSummary {
    /// Name in its certificate.
    pub name: MachineName,
    /// What it said of itself when it last joined.
    pub facts: MachineFacts,
    /// Whether it can be reached.
    pub reach: Reach,
    /// When it was last heard, in milliseconds since the Unix epoch, by the coordinator's clock.
    pub last_heard_unix_ms: u64,
    /// Address it was last heard from.
    pub address: String,
    /// Smoothed round trip in microseconds, while it can be reached.
    pub rtt_us: Option<u64>,
    /// Bytes of the largest datagram on the way to it, while it can be reached.
    pub mtu: Option<u16>,
    /// How often larger ones have vanished on this connection.
    pub black_holes: u64,
    /// Dataflows that run on it now.
    pub dataflows: Vec<DataflowId>,
    /// What its daemon takes of its disk, as it last said; none before it was measured.
    pub disk: Option<DiskUse>,
    /// Other machines that came with its identity within the last hour and were refused, the latest last; at most [`MAX_QUARANTINED`].
    pub quarantined: Vec<Quarantine>,
    /// When it last came back from being unreachable.
    pub restored: Option<Restored>,
}

/// A machine that was refused, because another one with the same identity is in use and answers: most often a cloned disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Its state directory.
    pub instance: InstanceId,
    /// Its boot.
    pub boot: BootId,
    /// Address that it came from.
    pub address: String,
    /// When it was last refused, in milliseconds since the Unix epoch, by the coordinator's clock.
    pub at_unix_ms: u64,
    /// How often it was refused.
    pub tries: u64,
}

/// Most refused machines that are remembered for one name; the one that has not tried for the longest time is forgotten.
pub const MAX_QUARANTINED: usize = 8;

/// Whether a machine can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    /// It is connected and answers.
    Connected,
    /// It is silent or gone.
    Unreachable {
        /// When it was last heard, in milliseconds since the Unix epoch.
        since_unix_ms: u64,
    },
}

/// The last time that a machine was heard again after it could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// When it had been heard last before, in milliseconds since the Unix epoch, by the coordinator's clock.
    pub unreachable_since_unix_ms: u64,
    /// When it was heard again.
    pub at_unix_ms: u64,
}

/// One dataflow that a machine has in hand, as its daemon reports it on joining.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    /// Which run.
    pub dataflow: DataflowId,
    /// Its name.
    pub name: DataflowName,
    /// How far it is on this machine.
    pub phase: RunPhase,
    /// The nodes on this machine.
    pub nodes: Vec<NodeStatus>,
    /// See [`crate::dataflow::DataflowSpec::link_loss`].
    pub link_loss: LinkLoss,
}

/// How far a run is on one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunPhase {
    /// Files are there and were checked.
    Prepared,
    /// Processes are being spawned.
    Spawning,
    /// Spawned; waits for other machines at the barrier.
    AtBarrier,
    /// Its nodes run.
    Running,
    /// It was asked to stop.
    Stopping,
    /// All its nodes have ended; what is left is to say so and to ship logs.
    Ended,
}

/// One thing that happened to a run on a machine. Numbered without holes per daemon instance, so that it arrives exactly once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifecycleEvent {
    /// Number within the daemon instance, from 1.
    pub seq: u64,
    /// When, in milliseconds since the Unix epoch, by the machine's clock.
    pub at_unix_ms: u64,
    /// To which run.
    pub dataflow: DataflowId,
    /// What.
    pub what: Lifecycle,
}

/// What happened to a run on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifecycle {
    /// A process was made for a node (also on a restart by dora).
    NodeStarted {
        /// Which node.
        node: NodeId,
        /// Its process id.
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
    /// All local nodes have ended.
    Finished {
        /// Nodes that failed.
        failures: Vec<NodeFailure>,
        /// What else is to be said. Empty when there is nothing.
        note: String,
    },
    /// Every log line of the run on this machine was shipped and acknowledged.
    LogsShipped,
    /// The machine stops its part by itself: see [`LinkLoss::StopAfter`]. The end follows as an event of its own.
    LinkLost {
        /// For how long the coordinator had not been heard, in milliseconds.
        silent_ms: u64,
    },
}
