//! What can go wrong with the store.

use std::{io, path::PathBuf};
use thiserror::Error;

/// Why something could not be stored or read.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// The database cannot be opened.
    #[error("the daemon's database {path} cannot be opened: {source}", path = path.display())]
    Open {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// The database fails.
    #[error("the daemon's database {path} fails: {source}", path = path.display())]
    Io {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// A record cannot be read.
    #[error("the daemon's database {path} has a record that cannot be read: {source}", path = path.display())]
    Record {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: postcard::Error,
    },
    /// It was written by another build.
    #[error("the daemon's database {path} has format {found}, and this build reads format {}", super::FORMAT, path = path.display())]
    Format {
        /// Its file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Something that must be there is not.
    #[error("the daemon's database {path} has no {what}", path = path.display())]
    Missing {
        /// Its file.
        path: PathBuf,
        /// What.
        what: &'static str,
    },
    /// The thread of the store has ended.
    #[error("the daemon's database was closed")]
    Closed,
}

impl StoreError {
    /// Whether the disk has no room: nothing was changed, and the same may succeed later.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_full(source))
    }
}

/// Whether the disk has no room, or had none when the database was used before this.
pub(super) fn is_full(error: &redb::Error) -> bool {
    match error {
        redb::Error::Io(error) => matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded),
        redb::Error::PreviousIo => true,
        _ => false,
    }
}

/// A failure within a transaction, before the path is known.
pub(super) enum Fault {
    Database(Box<redb::Error>),
    Record(postcard::Error),
    Format { found: u32 },
    Missing { what: &'static str },
}

macro_rules! faults {
    ($($error:ty),*) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        })*
    };
}
faults!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);

impl From<postcard::Error> for Fault {
    fn from(error: postcard::Error) -> Self {
        Self::Record(error)
    }
}
