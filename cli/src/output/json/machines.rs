//! The machine form of machines: where they are, what they take, and how their engines stand.

use super::super::time::rfc3339;
use dora_remote_protocol::{
    dataflow::Labels,
    ids::DataflowId,
    machine::{DiskUse, EngineStatus, MachineSummary, OlderEngine, Quarantine, Reach, Restored},
    name::MachineName,
};
use serde::Serialize;

/// One machine that is back.
#[derive(Debug, Serialize)]
pub struct Back<'a> {
    /// Which machine.
    pub machine: &'a MachineName,
    /// When it had been heard last before.
    pub unreachable_since: String,
    /// When it was heard again.
    pub at: String,
}

impl<'a> Back<'a> {
    pub(super) fn of(machine: &'a MachineName, restored: &Restored) -> Self {
        Self {
            machine,
            unreachable_since: rfc3339(restored.unreachable_since_unix_ms),
            at: rfc3339(restored.at_unix_ms),
        }
    }
}

/// The document of `machines`.
#[derive(Debug, Serialize)]
pub struct MachineList<'a> {
    /// See [`SCHEMA`](super::SCHEMA).
    pub schema: u32,
    /// By name.
    pub machines: Vec<Machine<'a>>,
}

/// An engine of an older program, which still has dataflows and takes no new ones.
#[derive(Debug, Serialize)]
pub struct Older<'a> {
    /// Its process id.
    pub pid: u32,
    /// Version of the dora engine inside; null when it has not said so yet.
    pub dora_version: Option<&'a str>,
    /// How many dataflows of it have not ended.
    pub dataflows: u32,
    /// Why it cannot be talked with; null when it can.
    pub problem: Option<&'a str>,
}

/// One machine.
#[derive(Debug, Serialize)]
pub struct Machine<'a> {
    /// Its name.
    pub name: &'a MachineName,
    /// Whether it can be reached.
    pub connected: bool,
    /// When it was last heard.
    pub last_heard: String,
    /// Address it was last heard from.
    pub address: &'a str,
    /// Smoothed round trip in milliseconds, while it can be reached.
    pub rtt_ms: Option<f64>,
    /// Bytes of the largest datagram on the way to it, while it can be reached.
    pub mtu: Option<u16>,
    /// How often larger ones have vanished on this connection.
    pub black_holes: u64,
    /// Its labels.
    pub labels: &'a Labels,
    /// Build of its daemon.
    pub build: &'a str,
    /// Its operating system and architecture.
    pub platform: &'a str,
    /// `starting`, `up` or `down`.
    pub engine: &'static str,
    /// Why it is down.
    pub engine_reason: Option<&'a str>,
    /// Version of dora inside, while the engine is up.
    pub dora_version: Option<&'a str>,
    /// Process id of the engine, while it is up.
    pub engine_pid: Option<u32>,
    /// Engines of an older program beside it, which still have runs and take no new ones.
    pub engines_older: Vec<Older<'a>>,
    /// Dataflows that run on it.
    pub dataflows: &'a [DataflowId],
    /// What its daemon takes of its disk, once it was measured.
    pub disk: Option<Disk>,
    /// Others that came with its identity of late and were refused.
    pub quarantined: Vec<Twin<'a>>,
    /// When it sends log lines: `always`, or `on-demand`.
    pub logs: &'static str,
    /// Since when it cannot be reached.
    pub unreachable_since: Option<String>,
    /// When it last came back from that.
    pub restored: Option<Back<'a>>,
}

/// What a daemon takes of its machine's disk, in bytes.
#[derive(Debug, Serialize)]
pub struct Disk {
    /// Free space.
    pub free_bytes: u64,
    /// Free space that is kept.
    pub free_bytes_min: u64,
    /// Log files that are not all shipped.
    pub log_bytes: u64,
    /// Bound of these.
    pub log_bytes_max: u64,
    /// What ended dataflows left behind.
    pub ended_bytes: u64,
    /// Bound of that.
    pub ended_bytes_max: u64,
    /// Unpacked bundles of dataflows that have not ended.
    pub bundle_bytes: u64,
    /// The daemon's database.
    pub store_bytes: u64,
}

/// A machine that came with the identity of another one and was refused.
#[derive(Debug, Serialize)]
pub struct Twin<'a> {
    /// Its state directory.
    pub instance: String,
    /// Its boot.
    pub boot: String,
    /// Address that it came from.
    pub address: &'a str,
    /// When it was last refused.
    pub at: String,
    /// How often it was refused.
    pub tries: u64,
}

impl From<&DiskUse> for Disk {
    fn from(disk: &DiskUse) -> Self {
        Self {
            free_bytes: disk.free_bytes,
            free_bytes_min: disk.free_bytes_min,
            log_bytes: disk.log_bytes,
            log_bytes_max: disk.log_bytes_max,
            ended_bytes: disk.ended_bytes,
            ended_bytes_max: disk.ended_bytes_max,
            bundle_bytes: disk.bundle_bytes,
            store_bytes: disk.store_bytes,
        }
    }
}

impl<'a> From<&'a OlderEngine> for Older<'a> {
    fn from(engine: &'a OlderEngine) -> Self {
        Self {
            pid: engine.pid,
            dora_version: engine.dora_version.as_deref(),
            dataflows: engine.runs,
            problem: engine.trouble.as_deref(),
        }
    }
}

impl<'a> From<&'a MachineSummary> for Machine<'a> {
    fn from(machine: &'a MachineSummary) -> Self {
        let (engine, dora_version, engine_pid, engine_reason) = match &machine.facts.engine {
            EngineStatus::Starting => ("starting", None, None, None),
            EngineStatus::Up { pid, dora_version, .. } => ("up", Some(dora_version.as_str()), Some(*pid), None),
            EngineStatus::Down { reason } => ("down", None, None, Some(reason.as_str())),
        };
        Self {
            name: &machine.name,
            connected: machine.reach == Reach::Connected,
            last_heard: rfc3339(machine.last_heard_unix_ms),
            address: &machine.address,
            rtt_ms: machine.rtt_us.map(|us| us as f64 / 1000.0),
            mtu: machine.mtu,
            black_holes: machine.black_holes,
            labels: &machine.facts.labels,
            build: &machine.facts.build,
            platform: &machine.facts.platform,
            engine,
            engine_reason,
            dora_version,
            engine_pid,
            engines_older: machine.facts.engine.older().iter().map(Older::from).collect(),
            dataflows: &machine.dataflows,
            disk: machine.disk.as_ref().map(Disk::from),
            quarantined: machine.quarantined.iter().map(Twin::from).collect(),
            logs: machine.facts.logs.as_str(),
            unreachable_since: match machine.reach {
                Reach::Connected => None,
                Reach::Unreachable { since_unix_ms } => Some(rfc3339(since_unix_ms)),
            },
            restored: machine.restored.as_ref().map(|restored| Back::of(&machine.name, restored)),
        }
    }
}

impl<'a> From<&'a Quarantine> for Twin<'a> {
    fn from(twin: &'a Quarantine) -> Self {
        Self {
            instance: twin.instance.to_string(),
            boot: twin.boot.to_string(),
            address: &twin.address,
            at: rfc3339(twin.at_unix_ms),
            tries: twin.tries,
        }
    }
}
