//! Records in a redb database. Each [`Store::apply`] is one transaction that is on the disk when it returns.

use super::{
    Changes, Store, StoreError, Stored,
    database::{self, META, copy_table},
};
use crate::{dataflow::record::Record, machines::MachineRecord};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::{path::Path, sync::Arc};
use uuid::Uuid;

/// Records in one file.
#[derive(Debug)]
pub(crate) struct RedbStore {
    db: Arc<Database>,
}

impl RedbStore {
    /// Opens the file `path`, or makes it, and reads all that it has.
    pub(crate) fn open(path: &Path) -> Result<(Self, Stored), StoreError> {
        let db = database::open(path, FORMAT, CACHE_BYTES, |transaction, _| {
            transaction.open_table(DATAFLOWS)?;
            transaction.open_table(MACHINES)?;
            transaction.open_table(ENDS)?;
            Ok(())
        })?;
        let store = Self { db: Arc::new(db) };
        let stored = store.load()?;
        Ok((store, stored))
    }

    /// The file itself, for a backup.
    pub(crate) fn database(&self) -> Arc<Database> {
        Arc::clone(&self.db)
    }

    /// Copies everything into a fresh file.
    pub(crate) fn copy_tables(from: &ReadTransaction, to: &WriteTransaction) -> Result<(), StoreError> {
        copy_table(from, to, META)?;
        copy_table(from, to, DATAFLOWS)?;
        copy_table(from, to, MACHINES)?;
        copy_table(from, to, ENDS)
    }

    fn load(&self) -> Result<Stored, StoreError> {
        let transaction = self.db.begin_read()?;
        let ends = transaction.open_table(ENDS)?;
        let mut dataflows = Vec::new();
        for row in transaction.open_table(DATAFLOWS)?.iter()? {
            let (id, bytes) = row?;
            let what = Uuid::from_u128(id.value());
            let mut record: Record = postcard::from_bytes(bytes.value()).map_err(|error| StoreError::record(&what, error))?;
            record.ended_as = ends.get(id.value())?.map(|row| row.value());
            dataflows.push(record);
        }
        let mut machines = Vec::new();
        for row in transaction.open_table(MACHINES)?.iter()? {
            let (name, bytes) = row?;
            let record: MachineRecord =
                postcard::from_bytes(bytes.value()).map_err(|error| StoreError::record(&name.value(), error))?;
            machines.push(record);
        }
        Ok(Stored { dataflows, machines })
    }
}

impl Store for RedbStore {
    fn apply(&mut self, changes: &Changes) -> Result<(), StoreError> {
        let transaction = self.db.begin_write()?;
        {
            let mut dataflows = transaction.open_table(DATAFLOWS)?;
            let mut ends = transaction.open_table(ENDS)?;
            for (id, record) in &changes.dataflows {
                let key = id.0.as_u128();
                match record {
                    Some(record) => {
                        let bytes = postcard::to_stdvec(record).map_err(|error| StoreError::record(id, error))?;
                        dataflows.insert(key, bytes.as_slice())?;
                        if let Some(number) = record.ended_as {
                            ends.insert(key, number)?;
                        }
                    }
                    None => {
                        dataflows.remove(key)?;
                        ends.remove(key)?;
                    }
                }
            }
            let mut machines = transaction.open_table(MACHINES)?;
            for (name, record) in &changes.machines {
                let bytes = postcard::to_stdvec(record).map_err(|error| StoreError::record(name, error))?;
                machines.insert(name.as_str(), bytes.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for StoreError {
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

/// Id to [`Record`].
const DATAFLOWS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("dataflows");
/// Name to [`MachineRecord`].
const MACHINES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("machines");

/// Id to [`Record::ended_as`].
const ENDS: TableDefinition<'_, u128, u64> = TableDefinition::new("ends");

const FORMAT: u64 = 2;

/// Memory for pages of the file; redb would take 1 GiB.
const CACHE_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataflow::samples;
    use dora_remote_protocol::dataflow::DataflowState;

    #[test]
    fn records_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let (mut store, stored) = RedbStore::open(&path).unwrap();
        assert!(stored.dataflows.is_empty() && stored.machines.is_empty());
        let mut changes = Changes::default();
        changes.dataflow(samples::record_in(1, "one", DataflowState::Running));
        changes.dataflow(samples::record_in(2, "two", DataflowState::Failed));
        let third = Record {
            ended_as: Some(7),
            ..samples::record_in(3, "three", DataflowState::Failed)
        };
        changes.dataflow(third.clone());
        store.apply(&changes).unwrap();
        let mut changes = Changes::default();
        changes.forget(samples::id(2));
        store.apply(&changes).unwrap();
        drop(store);

        let (_store, again) = RedbStore::open(&path).unwrap();
        assert_eq!(again.dataflows, [samples::record_in(1, "one", DataflowState::Running), third]);
    }

    #[test]
    fn a_store_in_use_and_one_of_another_format_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let (store, _) = RedbStore::open(&path).unwrap();
        assert!(matches!(RedbStore::open(&path), Err(StoreError::Open { .. })));
        let transaction = store.db.begin_write().unwrap();
        transaction
            .open_table(META)
            .unwrap()
            .insert(database::FORMAT_KEY, 99)
            .unwrap();
        transaction.commit().unwrap();
        drop(store);
        assert!(matches!(RedbStore::open(&path), Err(StoreError::Format { found: 99, .. })));
    }
}
