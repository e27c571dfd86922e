//! What the daemon keeps on disk: runs, log cursors, its engine, and one transaction's worth of changes.
//!
//! Plain data. How it is stored is the business of `store`, what it means that of `book` and `tail`.

use crate::{processes, seat::Seat};
use dora_remote_protocol::{
    agent_to_engine::RunOrder,
    dataflow::{Files, LinkLoss, NodeStatus},
    engine_to_agent::NodeOutput,
    ids::{BootId, DataflowId, EngineId, NodeId},
    log_line::{LogRecord, LogSource},
    machine::{LifecycleEvent, RunPhase},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The part of a run that never changes once it is prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunPlan {
    /// What the engine was told.
    pub(crate) order: RunOrder,
    /// Where its files came from.
    pub(crate) files: Files,
    /// Where the output of each local node is written.
    pub(crate) outputs: Vec<NodeOutput>,
    /// Whether the run directory was made for this run and is removed with it.
    pub(crate) owns_dir: bool,
    /// Place of the engine that has it.
    pub(crate) seat: Seat,
    /// What becomes of it when the coordinator is not heard.
    pub(crate) link_loss: LinkLoss,
}

/// The part of a run that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunState {
    /// How far it is.
    pub(crate) phase: RunPhase,
    /// The local nodes.
    pub(crate) nodes: Vec<NodeStatus>,
    /// Whether the engine confirmed that all processes exist.
    pub(crate) spawned: bool,
    /// When its last node ended, in milliseconds since the Unix epoch; later than the same of every run that ended before it, whatever
    /// the clock said: runs go in this order.
    pub(crate) ended_unix_ms: Option<u64>,
    /// Whether every log line was shipped and acknowledged.
    pub(crate) logs_shipped: bool,
    /// Whether, and when, it is to be forgotten.
    pub(crate) forget: Forget,
    /// Number of the latest message of the machine about this run, from 1.
    pub(crate) last_message: u64,
    /// Number of the latest line of build output, from 1.
    pub(crate) last_build_line: u64,
    /// Whether this machine stops it by itself, as the coordinator was not heard.
    pub(crate) link_lost: bool,
}

/// Whether a run is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Forget {
    /// Kept until newer runs push it out.
    No,
    /// Once its log lines are shipped.
    WhenShipped,
    /// As soon as it has no process; nobody wants its log lines.
    WhenEnded,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// What never changes.
    pub(crate) plan: RunPlan,
    /// What changes.
    pub(crate) state: RunState,
}

/// How far the log lines of one source were shipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogCursor {
    /// See `LogBatch::epoch`.
    pub(crate) epoch: u64,
    /// Acknowledged offset, as in `LogRecord::offset`.
    pub(crate) offset: u64,
    /// Time of the last acknowledged line; later lines are older only if the clock was set back.
    pub(crate) at_unix_ms: u64,
    /// Where that is in the files; none for messages.
    pub(crate) place: Option<FilePlace>,
    /// Lines that are lost at that offset and are being told of; 0 once that is acknowledged.
    pub(crate) gap: u64,
    /// Lines that could not be written and were told of, from the beginning of the run on.
    pub(crate) failed_told: u64,
    /// Lines behind the place that were given up for their space, and not told of yet.
    pub(crate) dropped: u64,
}

impl Default for LogCursor {
    /// The beginning of a source. It has the same epoch whenever it is made: an agent that was killed before it could store a cursor
    /// sends again what it has sent, and the coordinator knows the lines by their offsets.
    fn default() -> Self {
        Self {
            epoch: FIRST_EPOCH,
            offset: 0,
            at_unix_ms: 0,
            place: None,
            gap: 0,
            failed_told: 0,
            dropped: 0,
        }
    }
}

/// Epoch of a source that never had to start over.
const FIRST_EPOCH: u64 = 1;

/// A place in one file of a rotated series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FilePlace {
    /// Inode of the file.
    pub(crate) inode: u64,
    /// Bytes of it that are done.
    pub(crate) position: u64,
    /// Hash of the first [`FilePlace::head_bytes`] bytes: a file system may give an inode again to a later file.
    pub(crate) head: u64,
    /// Bytes that `head` covers.
    pub(crate) head_bytes: u64,
}

/// An engine as it was spawned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EngineRecord {
    /// Its place.
    pub(crate) seat: Seat,
    /// Which life.
    pub(crate) engine: EngineId,
    /// Its process, once it exists.
    pub(crate) process: Option<ProcessRecord>,
    /// The boot of the machine in which it was made: process ids of another one mean nothing.
    pub(crate) boot: BootId,
    /// The program that it was started from, where that could be looked at.
    pub(crate) program: Option<ProgramId>,
}

impl EngineRecord {
    /// Its process, if that lives in this boot of the machine.
    pub(crate) fn living(&self, boot: BootId) -> Option<ProcessRecord> {
        self.process.filter(|process| self.boot == boot && processes::lives(*process))
    }
}

/// A file that cannot be taken for a later one at the same path: an engine that runs keeps its program's inode from being given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProgramId {
    /// Device of the file.
    pub(crate) device: u64,
    /// Inode on it.
    pub(crate) inode: u64,
}

/// The engine in each place, and the last event of it that took effect.
pub(crate) type EngineCursors = BTreeMap<Seat, (EngineId, u64)>;

/// A process that cannot be taken for a later one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessRecord {
    /// Process id.
    pub(crate) pid: u32,
    /// When it started, in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub(crate) start_ticks: u64,
}

/// One message about a run, on its way to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MessageRow {
    /// Which run.
    pub(crate) dataflow: DataflowId,
    /// [`LogSource::Machine`] or [`LogSource::Build`].
    pub(crate) source: LogSource,
    /// The line; its offset is its number.
    pub(crate) record: LogRecord,
}

/// What one step of the supervisor changes on disk: all of it or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// The engines and the last event of each whose effects are in this transaction.
    pub(crate) engine_cursors: Option<EngineCursors>,
    /// New entries of the outbox, numbers rising.
    pub(crate) events: Vec<LifecycleEvent>,
    /// Runs that are new.
    pub(crate) plans: Vec<RunPlan>,
    /// Runs that changed.
    pub(crate) states: Vec<(DataflowId, RunState)>,
    /// New messages.
    pub(crate) messages: Vec<MessageRow>,
    /// Lines that could not be written, by node.
    pub(crate) lost: Vec<(DataflowId, NodeId, u64)>,
    /// Runs that are forgotten, with their cursors and messages.
    pub(crate) removed: Vec<DataflowId>,
}

impl Changes {
    /// Whether there is nothing to store.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
