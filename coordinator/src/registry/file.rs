//! The registry's own database. Each change is one transaction that is on the disk before anybody hears of it.

use super::{
    Delta, Stored,
    record::{Invite, Record, Restored},
    restored::void,
};
use crate::store::{
    StoreError,
    database::{self, META, copy_table},
};
use dora_remote_protocol::access::{MAX_REVOCATIONS, Revocation};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::{path::Path, sync::Arc};
use uuid::Uuid;

/// `access.redb`.
#[derive(Debug)]
pub(crate) struct AccessFile {
    db: Arc<Database>,
}

impl AccessFile {
    /// Opens the file `path`, or makes it, and reads all that it has.
    pub(crate) fn open(path: &Path) -> Result<(Self, Stored), StoreError> {
        let db = database::open(path, FORMAT, CACHE_BYTES, |transaction, is_new| {
            if is_new {
                transaction.open_table(META)?.insert(EPOCH_KEY, new_epoch())?;
            }
            transaction.open_table(RECORDS)?;
            transaction.open_table(INVITES)?;
            transaction.open_table(REVOCATIONS)?;
            transaction.open_table(STATE)?;
            Ok(())
        })?;
        let file = Self { db: Arc::new(db) };
        let stored = file.load()?;
        Ok((file, stored))
    }

    /// Stores all of a change, or nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails; nothing is changed then.
    pub(crate) fn apply(&mut self, delta: &Delta) -> Result<(), StoreError> {
        self.write(delta, None)
    }

    /// The file itself, for a backup.
    pub(crate) fn database(&self) -> Arc<Database> {
        Arc::clone(&self.db)
    }

    /// Copies everything into a fresh file.
    pub(crate) fn copy_tables(from: &ReadTransaction, to: &WriteTransaction) -> Result<(), StoreError> {
        copy_table(from, to, META)?;
        copy_table(from, to, RECORDS)?;
        copy_table(from, to, INVITES)?;
        copy_table(from, to, REVOCATIONS)?;
        copy_table(from, to, STATE)
    }

    fn write(&mut self, delta: &Delta, epoch: Option<u64>) -> Result<(), StoreError> {
        let transaction = self.db.begin_write()?;
        {
            let mut records = transaction.open_table(RECORDS)?;
            for (holder, record) in &delta.records {
                let bytes = postcard::to_stdvec(record).map_err(|error| StoreError::record(holder, error))?;
                records.insert(holder.to_string().as_str(), bytes.as_slice())?;
            }
            let mut invites = transaction.open_table(INVITES)?;
            for (key, invite) in &delta.invites {
                match invite {
                    Some(invite) => {
                        let bytes = postcard::to_stdvec(invite).map_err(|error| StoreError::record(&invite.identity, error))?;
                        invites.insert(key, bytes.as_slice())?;
                    }
                    None => {
                        invites.remove(key)?;
                    }
                }
            }
            let mut revocations = transaction.open_table(REVOCATIONS)?;
            for revocation in &delta.revocations {
                let bytes = postcard::to_stdvec(revocation).map_err(|error| StoreError::record(&revocation.target, error))?;
                let key = revocation.target.to_string().to_ascii_lowercase();
                revocations.insert(key.as_str(), bytes.as_slice())?;
            }
            let mut state = transaction.open_table(STATE)?;
            match &delta.restored {
                Some(Some(restored)) => {
                    let bytes = postcard::to_stdvec(restored).map_err(|error| StoreError::record(&RESTORED_KEY, error))?;
                    state.insert(RESTORED_KEY, bytes.as_slice())?;
                }
                Some(None) => {
                    state.remove(RESTORED_KEY)?;
                }
                None => {}
            }
            if let Some(epoch) = epoch {
                transaction.open_table(META)?.insert(EPOCH_KEY, epoch)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn load(&self) -> Result<Stored, StoreError> {
        let transaction = self.db.begin_read()?;
        let epoch = transaction.open_table(META)?.get(EPOCH_KEY)?.map_or(0, |value| value.value());
        let mut stored = Stored {
            epoch,
            ..Stored::default()
        };
        for row in transaction.open_table(RECORDS)?.iter()? {
            let (holder, bytes) = row?;
            let record: Record =
                postcard::from_bytes(bytes.value()).map_err(|error| StoreError::record(&holder.value(), error))?;
            stored.records.push(record);
        }
        for row in transaction.open_table(INVITES)?.iter()? {
            let (key, bytes) = row?;
            let invite: Invite = postcard::from_bytes(bytes.value()).map_err(|error| StoreError::record(&"an invite", error))?;
            stored.invites.insert(*key.value(), invite);
        }
        for row in transaction.open_table(REVOCATIONS)?.iter()? {
            let (target, bytes) = row?;
            let revocation: Revocation =
                postcard::from_bytes(bytes.value()).map_err(|error| StoreError::record(&target.value(), error))?;
            stored.revocations.push(revocation);
        }
        if let Some(bytes) = transaction.open_table(STATE)?.get(RESTORED_KEY)? {
            let restored: Restored =
                postcard::from_bytes(bytes.value()).map_err(|error| StoreError::record(&RESTORED_KEY, error))?;
            stored.restored = Some(restored);
        }
        Ok(stored)
    }
}

/// Makes the file `path`, which came from a backup, say so: a new epoch, open invites void, recoveries stopped, and `extra` among the
/// revocations. The coordinator that it belongs to must not run.
///
/// # Errors
/// [`StoreError`] when the file cannot be used, another process uses it, or there is no room for the revocations; nothing is changed then.
pub(crate) fn mark_restored(path: &Path, why: &str, extra: Vec<Revocation>, now_unix_ms: u64) -> Result<(), StoreError> {
    let (mut file, stored) = AccessFile::open(path)?;
    let mut delta = Delta {
        restored: Some(Some(Restored {
            why: why.to_owned(),
            at_unix_ms: now_unix_ms,
            voided_invites: 0,
        })),
        ..Delta::default()
    };
    let mut voided = 0;
    for (key, invite) in void(&stored.invites, now_unix_ms) {
        delta.invites.insert(key, Some(invite));
        voided += 1;
    }
    if let Some(Some(restored)) = &mut delta.restored {
        restored.voided_invites = voided;
    }
    let known: Vec<_> = stored.revocations.iter().map(|revocation| &revocation.target).collect();
    delta.revocations = extra
        .into_iter()
        .filter(|revocation| !known.contains(&&revocation.target))
        .take(MAX_REVOCATIONS.saturating_sub(known.len()))
        .collect();
    file.write(&delta, Some(new_epoch()))
}

fn new_epoch() -> u64 {
    Uuid::new_v4().as_u64_pair().0
}

/// Role and name in lower case to [`Record`].
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
/// Public key to [`Invite`].
const INVITES: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("invites");
/// Target in lower case to [`Revocation`].
const REVOCATIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("revocations");
/// Single things by name.
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");

const FORMAT: u64 = 1;
const EPOCH_KEY: &str = "epoch";
const RESTORED_KEY: &str = "restored";

/// Memory for pages of the file; redb would take 1 GiB.
const CACHE_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::samples;
    use dora_remote_protocol::access::RevokeTarget;

    #[test]
    fn everything_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.redb");
        let (mut file, first) = AccessFile::open(&path).unwrap();
        let mut delta = Delta::default();
        delta.record(samples::record("daemon", "Robot-7"));
        delta.invites.insert([1; 32], Some(samples::invite("daemon", "b", 1_000)));
        delta.invites.insert([2; 32], Some(samples::invite("viewer", "c", 1_000)));
        delta.revocations.push(samples::revocation("operator", "olga"));
        file.apply(&delta).unwrap();
        let forget = Delta {
            invites: [([2; 32], None)].into(),
            ..Delta::default()
        };
        file.apply(&forget).unwrap();
        assert!(
            matches!(AccessFile::open(&path), Err(StoreError::Open { .. })),
            "it is in use"
        );
        drop(file);

        let (_file, again) = AccessFile::open(&path).unwrap();
        assert_eq!(again.epoch, first.epoch);
        assert_eq!(again.records, [samples::record("daemon", "Robot-7")]);
        assert_eq!(again.invites.keys().collect::<Vec<_>>(), [&[1; 32]]);
        assert_eq!(again.revocations, [samples::revocation("operator", "olga")]);
        assert_eq!(again.restored, None);
    }

    #[test]
    fn a_file_from_a_backup_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.redb");
        let (mut file, first) = AccessFile::open(&path).unwrap();
        let mut delta = Delta::default();
        delta.invites.insert([1; 32], Some(samples::invite("daemon", "b", 1_000)));
        delta.revocations.push(samples::revocation("operator", "olga"));
        file.apply(&delta).unwrap();
        drop(file);
        let extra = vec![samples::revocation("operator", "olga"), samples::revocation("daemon", "x")];
        mark_restored(&path, "from a test", extra, 500).unwrap();

        let (_file, again) = AccessFile::open(&path).unwrap();
        assert_ne!(again.epoch, first.epoch);
        assert!(!again.invites[&[1; 32]].is_open(500));
        let targets: Vec<RevokeTarget> = again.revocations.into_iter().map(|revocation| revocation.target).collect();
        assert_eq!(targets.len(), 2, "{targets:?}");
        let restored = again.restored.unwrap();
        assert_eq!((restored.why.as_str(), restored.voided_invites), ("from a test", 1));
    }
}
