//! What a machine reports and asks for. Verbs 200 to 299.

use crate::{
    audit::{SignedHead, SignedRevocations},
    chunk::Chunk,
    identity::RoleSet,
    ids::{BundleHash, DataflowId},
    log_line::{LogBatch, LogSource},
    machine::{DiskUse, EngineStatus, LifecycleEvent, MachineFacts, RunReport},
    packed::{PackError, Packed},
    request::request,
};
use serde::{Deserialize, Serialize};

/// First request of a daemon on a new connection; until it is answered the machine is not used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinMachine {
    /// What the machine is.
    pub facts: MachineFacts,
    /// What it has in hand.
    pub runs: Vec<RunReport>,
    /// Number of the latest lifecycle event that it ever made; those above [`Joined::acked_seq`] follow.
    pub last_seq: u64,
    /// The newest end of the audit's chain that it was given to keep: tells a coordinator that was restored from a backup.
    pub witnessed: Option<SignedHead>,
    /// The revocations that it was given to keep, if the last ones were not of this life of the coordinator's store.
    pub revocations: Option<SignedRevocations>,
}
request!(JoinMachine, 200, "join-machine", RoleSet::DAEMON, Call, Event => Joined);

/// The machine is in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Lifecycle events of this daemon instance up to this number were applied; send those above.
    pub acked_seq: u64,
    /// Runs that the coordinator does not want on this machine: stop them by force and forget them.
    pub unwanted: Vec<DataflowId>,
}

/// Says that the machine is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Its engine.
    pub engine: EngineStatus,
    /// What it takes of the disk, once it is measured.
    pub disk: Option<DiskUse>,
}
request!(Heartbeat, 201, "heartbeat", RoleSet::DAEMON, Call, Event => ());

/// Brings lifecycle events, numbers rising without holes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportEvents {
    /// At most [`crate::limits::MAX_EVENTS_PER_REPORT`].
    pub events: Vec<LifecycleEvent>,
}
request!(ReportEvents, 202, "report-events", RoleSet::DAEMON, Call, Event => EventsAcked);

/// The events are applied and stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsAcked {
    /// Up to and with this number.
    pub seq: u64,
}

/// Brings log lines: a [`LogBatch`] as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShipLogs {
    /// See [`LogBatch::dataflow`].
    pub dataflow: DataflowId,
    /// See [`LogBatch::source`].
    pub source: LogSource,
    /// See [`LogBatch::epoch`].
    pub epoch: u64,
    /// See [`LogBatch::lost_before`].
    pub lost_before: u64,
    /// See [`Packed::records`].
    pub records: Packed,
}
request!(ShipLogs, 203, "ship-logs", RoleSet::DAEMON, Call, Logs => LogsAcked);

impl ShipLogs {
    /// Packs a batch.
    #[must_use]
    pub fn pack(batch: LogBatch) -> Self {
        Self {
            dataflow: batch.dataflow,
            source: batch.source,
            epoch: batch.epoch,
            lost_before: batch.lost_before,
            records: Packed::of_records(&batch.records),
        }
    }

    /// Unpacks the batch.
    ///
    /// # Errors
    /// See [`Packed::records`].
    pub fn unpack(self) -> Result<LogBatch, PackError> {
        Ok(LogBatch {
            dataflow: self.dataflow,
            source: self.source,
            epoch: self.epoch,
            lost_before: self.lost_before,
            records: self.records.records()?,
        })
    }
}

/// The lines are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsAcked {
    /// Up to and with this offset of the batch's epoch.
    pub offset: u64,
}

/// Fetches an archive; each item is at most [`crate::limits::BUNDLE_CHUNK_BYTES`] of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchBundle {
    /// Which archive.
    pub hash: BundleHash,
}
request!(FetchBundle, 204, "fetch-bundle", RoleSet::DAEMON, Feed, Bundle => Chunk);
