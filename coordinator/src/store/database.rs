//! Databases as files: opening one with its cache, its format and its tables, and copying one. What is in the tables is the business
//! of their owners.

use super::StoreError;
use redb::{Database, Key, ReadTransaction, ReadableTable, TableDefinition, TableError, Value, WriteTransaction};
use std::path::Path;

/// Opens the file `path`, or makes it, and refuses one of another format. `cache_bytes` is the memory for its pages; redb would
/// take 1 GiB.
///
/// `prepare` makes the tables, in the same transaction; it is told whether the file is new.
///
/// # Errors
/// [`StoreError::Open`] when it is in use or cannot be made, [`StoreError::Format`], and what `prepare` says.
pub(crate) fn open(
    path: &Path,
    format: u64,
    cache_bytes: usize,
    prepare: impl FnOnce(&WriteTransaction, bool) -> Result<(), StoreError>,
) -> Result<Database, StoreError> {
    let db = create(path, cache_bytes)?;
    let transaction = db.begin_write()?;
    let found = transaction.open_table(META)?.get(FORMAT_KEY)?.map(|value| value.value());
    match found {
        None => {
            transaction.open_table(META)?.insert(FORMAT_KEY, format)?;
        }
        Some(found) if found == format => {}
        Some(found) => {
            return Err(StoreError::Format {
                path: path.to_owned(),
                found,
                known: format,
            });
        }
    }
    prepare(&transaction, found.is_none())?;
    transaction.commit()?;
    Ok(db)
}

/// Copies the tables of one database.
pub(crate) type CopyTables = fn(&ReadTransaction, &WriteTransaction) -> Result<(), StoreError>;

/// Copies a database, as it was at the moment of `from`, into the file `path`, which it makes.
///
/// # Errors
/// [`StoreError::Open`] when the file cannot be made, and what `copy_tables` says.
pub(crate) fn copy(path: &Path, from: &ReadTransaction, copy_tables: CopyTables) -> Result<(), StoreError> {
    let db = create(path, COPY_CACHE_BYTES)?;
    let to = db.begin_write()?;
    copy_tables(from, &to)?;
    to.commit()?;
    Ok(())
}

/// Copies one table; one that does not exist is left out.
pub(crate) fn copy_table<K: Key + 'static, V: Value + 'static>(
    from: &ReadTransaction,
    to: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<(), StoreError> {
    let source = match from.open_table(table) {
        Ok(source) => source,
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut target = to.open_table(table)?;
    for row in source.iter()? {
        let (key, value) = row?;
        target.insert(key.value(), value.value())?;
    }
    Ok(())
}

fn create(path: &Path, cache_bytes: usize) -> Result<Database, StoreError> {
    let made = Database::builder().set_cache_size(cache_bytes).create(path);
    made.map_err(|error| StoreError::Open {
        path: path.to_owned(),
        source: Box::new(error.into()),
    })
}

/// Memory for pages of a copy.
const COPY_CACHE_BYTES: usize = 8 << 20;

/// Numbers about the file itself; each database has this table.
pub(crate) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Key of the format in [`META`].
pub(crate) const FORMAT_KEY: &str = "format";
