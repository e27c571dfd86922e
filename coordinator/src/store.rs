//! What must outlive a restart, and nothing else: dataflows and machines.
//!
//! [`Store`] is the way to the disk; [`keeper::Keeper`] is the thread that goes it, so that nobody else waits for a disk.

pub(crate) mod database;
pub(crate) mod keeper;
pub(crate) mod redb;

use crate::{dataflow::record::Record, machines::MachineRecord};
use dora_remote_protocol::{ids::DataflowId, name::MachineName};
use std::{collections::BTreeMap, fmt, path::PathBuf};
use thiserror::Error;

/// A place that keeps records.
pub(crate) trait Store: Send + 'static {
    /// Stores all changes, or none of them.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails; nothing is changed then.
    fn apply(&mut self, changes: &Changes) -> Result<(), StoreError>;
}

/// Everything that a store had when it was opened.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) dataflows: Vec<Record>,
    pub(crate) machines: Vec<MachineRecord>,
}

/// What is to be stored together. Of each thing only the latest state counts, so that waiting changes never pile up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// A record to be written, or to be removed.
    pub(crate) dataflows: BTreeMap<DataflowId, Option<Record>>,
    pub(crate) machines: BTreeMap<MachineName, MachineRecord>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.dataflows.is_empty() && self.machines.is_empty()
    }

    pub(crate) fn dataflow(&mut self, record: Record) {
        self.dataflows.insert(record.id, Some(record));
    }

    pub(crate) fn forget(&mut self, id: DataflowId) {
        self.dataflows.insert(id, None);
    }

    pub(crate) fn machine(&mut self, record: MachineRecord) {
        self.machines.insert(record.name.clone(), record);
    }

    /// Adds later changes to these.
    pub(crate) fn absorb(&mut self, later: Self) {
        self.dataflows.extend(later.dataflows);
        self.machines.extend(later.machines);
    }
}

/// Why records cannot be kept or read.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file cannot be opened or made, or another process uses it.
    #[error("open the store {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<::redb::Error>,
    },
    /// The file was written by another version of this program.
    #[error("read the store {}: it has format {found}, and this build knows format {known}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The format of this build.
        known: u64,
    },
    /// Reading or writing failed.
    #[error("use the store: {0}")]
    Disk(#[source] Box<::redb::Error>),
    /// A record cannot be encoded or decoded.
    #[error("use the record of {what}: {source}")]
    Record {
        /// Which record.
        what: String,
        /// Why.
        source: postcard::Error,
    },
}

impl StoreError {
    pub(crate) fn record(what: &impl fmt::Display, source: postcard::Error) -> Self {
        Self::Record {
            what: what.to_string(),
            source,
        }
    }
}
