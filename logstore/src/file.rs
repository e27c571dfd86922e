//! The open file of a store. After a failed write, for want of room say, it has to be opened anew; the next who asks does it.

use crate::error::LogStoreError;
use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};
use std::{
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

/// A database that gets over its failures.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    database: RwLock<Option<Database>>,
}

impl LogFile {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, LogStoreError> {
        Ok(Self {
            path: path.to_owned(),
            database: RwLock::new(Some(open(path)?)),
        })
    }

    pub(crate) fn begin_read(&self) -> Result<ReadTransaction, LogStoreError> {
        self.with(|database| Ok(database.begin_read()?))
    }

    pub(crate) fn begin_write(&self) -> Result<WriteTransaction, LogStoreError> {
        self.with(|database| Ok(database.begin_write()?))
    }

    /// Passes on what came of a use of the file, and closes it when that has failed in a way that it does not get over.
    pub(crate) fn judge<T>(&self, result: Result<T, LogStoreError>) -> Result<T, LogStoreError> {
        if let Err(LogStoreError::Disk(error)) = &result
            && matches!(**error, redb::Error::Io(_) | redb::Error::PreviousIo)
        {
            *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        result
    }

    fn with<T>(&self, work: impl Fn(&Database) -> Result<T, LogStoreError>) -> Result<T, LogStoreError> {
        if let Some(database) = &*self.database.read().unwrap_or_else(PoisonError::into_inner) {
            return work(database);
        }
        let mut place = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if place.is_none() {
            // Whoever still reads the former one holds it; it is tried again then.
            *place = Some(open(&self.path)?);
        }
        match &*place {
            Some(database) => work(database),
            None => Err(redb::Error::PreviousIo.into()),
        }
    }
}

fn open(path: &Path) -> Result<Database, LogStoreError> {
    Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create(path)
        .map_err(|error| LogStoreError::Open {
            path: path.to_owned(),
            source: Box::new(error.into()),
        })
}

/// Memory for pages of the file; redb would take 1 GiB.
const CACHE_BYTES: usize = 32 << 20;
