//! What can go wrong with a log store. Every case is the disk's or a fault of ours; none is the asker's.

use dora_remote_protocol::ids::DataflowId;
use std::path::PathBuf;
use thiserror::Error;

/// Why a log store cannot do what it was asked.
#[derive(Debug, Error)]
pub enum LogStoreError {
    /// The file cannot be opened or made.
    #[error("open the log store {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// The file was written by another version of this program.
    #[error("read the log store {}: it has format {found}, and this build knows format {known}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The format of this build.
        known: u64,
    },
    /// Reading or writing failed. A write that failed has changed nothing.
    #[error("use the log store: {0}")]
    Disk(#[source] Box<redb::Error>),
    /// A block cannot be encoded or decoded.
    #[error("use the block of log lines {first_seq} of {dataflow}: {reason}")]
    Block {
        /// Whose lines.
        dataflow: DataflowId,
        /// Sequence number of its first line.
        first_seq: u64,
        /// What is wrong.
        reason: String,
    },
}

impl From<redb::Error> for LogStoreError {
    fn from(error: redb::Error) -> Self {
        Self::Disk(Box::new(error))
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for LogStoreError {
            fn from(error: $error) -> Self {
                Self::Disk(Box::new(error.into()))
            }
        })*
    };
}
from_redb!(
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);
