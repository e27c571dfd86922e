//! Whether the database still lies where it was made: a copy must not pass for the original.
//!
//! Event numbers, the outbox, runs and the engine belong to an instance. The original still has all of them, so that a copy
//! forgets them and counts its events anew under an instance id of its own: nothing is reported twice, and no process of the
//! original is taken for one of the copy. What is true for both stays: the last good time, and what was witnessed.
//!
//! A disk that was cloned bit by bit keeps everything, this mark included. Its boot id tells it apart, at the coordinator.

use super::{
    CURSORS, Fault, KEY_ENGINE_CURSORS, KEY_ENGINES, KEY_HOME, KEY_INSTANCE, KEY_LAST_SEQ, LOST, MESSAGES, META, OUTBOX, PLANS,
    STATES, Store, StoreError, get, put,
};
use dora_remote_protocol::ids::{BootId, InstanceId};
use redb::ReadableTableMetadata;
use serde::{Deserialize, Serialize};
use std::{fs, os::unix::fs::MetadataExt};
use uuid::Uuid;

/// Where the database's file lies, as its file system counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Home {
    device: u64,
    inode: u64,
    boot: BootId,
}

impl Home {
    /// A disk may get another number at the next boot, and keeps its inodes.
    fn is_same_as(self, other: Self) -> bool {
        self.inode == other.inode && (self.device == other.device || self.boot != other.boot)
    }
}

/// What was found when the database was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// It lies where it was.
    AtHome,
    /// It is a copy, and is an instance of its own from now on.
    Copied {
        /// Runs that were forgotten.
        runs: u64,
        /// Events in its outbox that were dropped.
        events: u64,
    },
}

impl Store {
    /// Finds out whether this is a copy, and makes it an instance of its own then. To be called once, before anything is read.
    ///
    /// `is_lived_in` says whether an engine of this very directory answers, which proves the original where a file system gives
    /// its files new numbers.
    pub(crate) fn settle(&self, boot: BootId, is_lived_in: impl FnOnce() -> bool) -> Result<Settled, StoreError> {
        let file = fs::metadata(&self.path).map_err(|source| StoreError::Io {
            path: self.path.clone(),
            source: Box::new(redb::Error::Io(source)),
        })?;
        let present = Home {
            device: file.dev(),
            inode: file.ino(),
            boot,
        };
        let known = self.read(|meta| get::<Home>(meta, KEY_HOME))?;
        let is_copy = known.is_some_and(|known| !known.is_same_as(present)) && !is_lived_in();
        if known == Some(present) {
            return Ok(Settled::AtHome);
        }
        self.write(|tx| {
            let mut meta = tx.open_table(META)?;
            put(&mut meta, KEY_HOME, &present)?;
            if !is_copy {
                return Ok(Settled::AtHome);
            }
            put(&mut meta, KEY_INSTANCE, &InstanceId(Uuid::new_v4()))?;
            for key in [KEY_LAST_SEQ, KEY_ENGINES, KEY_ENGINE_CURSORS] {
                meta.remove(key)?;
            }
            let (runs, events) = (tx.open_table(STATES)?.len()?, tx.open_table(OUTBOX)?.len()?);
            clear(&mut tx.open_table(OUTBOX)?)?;
            clear(&mut tx.open_table(PLANS)?)?;
            clear(&mut tx.open_table(STATES)?)?;
            clear(&mut tx.open_table(CURSORS)?)?;
            clear(&mut tx.open_table(MESSAGES)?)?;
            clear(&mut tx.open_table(LOST)?)?;
            Ok(Settled::Copied { runs, events })
        })
    }
}

fn clear<K: redb::Key + 'static, V: redb::Value + 'static>(table: &mut redb::Table<'_, K, V>) -> Result<(), Fault> {
    table.retain(|_, _| false)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        records::{Changes, EngineRecord},
        seat::Seat,
    };
    use dora_remote_protocol::{
        ids::{DataflowId, EngineId},
        machine::{Lifecycle, LifecycleEvent},
    };
    use std::path::Path;

    fn boot() -> BootId {
        BootId(Uuid::from_u128(1))
    }

    /// A database with a pending event and an engine, settled at `path`.
    fn lived_in(path: &Path) -> InstanceId {
        let store = Store::open(path).unwrap();
        assert_eq!(store.settle(boot(), || false).unwrap(), Settled::AtHome);
        let engine = EngineId(Uuid::new_v4());
        let changes = Changes {
            engine_cursors: Some([(Seat::default(), (engine, 3))].into()),
            events: vec![LifecycleEvent {
                seq: 1,
                at_unix_ms: 1,
                dataflow: DataflowId(Uuid::now_v7()),
                what: Lifecycle::LogsShipped,
            }],
            ..Changes::default()
        };
        store.commit(&changes).unwrap();
        let process = None;
        store
            .set_engine(EngineRecord {
                seat: Seat::default(),
                program: None,
                engine,
                process,
                boot: boot(),
            })
            .unwrap();
        store.instance().unwrap()
    }

    #[test]
    fn a_copy_is_another_instance_without_events_runs_and_engine() {
        let dir = tempfile::tempdir().unwrap();
        let (original, copied) = (dir.path().join("a.redb"), dir.path().join("b.redb"));
        let instance = lived_in(&original);
        fs::copy(&original, &copied).unwrap();
        let copy = Store::open(&copied).unwrap();
        let (runs, events) = (0, 1);
        assert_eq!(copy.settle(boot(), || false).unwrap(), Settled::Copied { runs, events });
        assert_eq!(copy.settle(boot(), || false).unwrap(), Settled::AtHome, "once");
        assert_ne!(copy.instance().unwrap(), instance);
        assert!(copy.outbox(0, 10, usize::MAX).unwrap().is_empty() && copy.engines().unwrap().is_empty());
        let loaded = copy.load().unwrap();
        assert_eq!((loaded.last_seq, loaded.engine_cursors.len()), (0, 0));
        let original = Store::open(&original).unwrap();
        assert_eq!(original.settle(boot(), || false).unwrap(), Settled::AtHome);
        assert_eq!(original.instance().unwrap(), instance);
        assert_eq!(original.outbox(0, 10, usize::MAX).unwrap().len(), 1);
    }

    #[test]
    fn a_moved_directory_and_one_whose_engine_answers_are_no_copies() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new, odd) = (
            dir.path().join("a.redb"),
            dir.path().join("b.redb"),
            dir.path().join("c.redb"),
        );
        let instance = lived_in(&old);
        fs::rename(&old, &new).unwrap();
        let moved = Store::open(&new).unwrap();
        assert_eq!(moved.settle(boot(), || false).unwrap(), Settled::AtHome);
        drop(moved);
        fs::copy(&new, &odd).unwrap();
        let renumbered = Store::open(&odd).unwrap();
        assert_eq!(renumbered.settle(boot(), || true).unwrap(), Settled::AtHome);
        assert_eq!(renumbered.settle(boot(), || false).unwrap(), Settled::AtHome);
        assert_eq!(renumbered.instance().unwrap(), instance);
    }

    #[test]
    fn a_disk_may_get_another_number_only_at_a_boot() {
        let home = |device, inode, boot| Home {
            device,
            inode,
            boot: BootId(Uuid::from_u128(boot)),
        };
        assert!(home(1, 7, 1).is_same_as(home(1, 7, 2)) && home(1, 7, 1).is_same_as(home(2, 7, 2)));
        assert!(!home(1, 7, 1).is_same_as(home(2, 7, 1)) && !home(1, 7, 1).is_same_as(home(1, 8, 2)));
    }
}
