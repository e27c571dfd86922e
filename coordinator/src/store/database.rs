//! Opening a database: its cache, its format, and its tables on the first day. What is in the tables is the business of their owners.

use super::StoreError;
use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};
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
    let db = Database::builder()
        .set_cache_size(cache_bytes)
        .create(path)
        .map_err(|error| StoreError::Open {
            path: path.to_owned(),
            source: Box::new(error.into()),
        })?;
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

/// Numbers about the file itself; each database has this table.
pub(crate) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Key of the format in [`META`].
pub(crate) const FORMAT_KEY: &str = "format";
