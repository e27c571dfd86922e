//! Copies of the databases of a coordinator that runs: each as it is at one moment, in a fresh file.

use super::archive::BackupHeader;
use crate::{
    audit::ledger,
    registry::AccessFile,
    store::{
        StoreError,
        database::{self, CopyTables},
        redb::RedbStore,
    },
};
use redb::{Database, ReadTransaction, ReadableDatabase};
use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The databases that a backup holds.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    pub(crate) state_dir: PathBuf,
    pub(crate) access: Arc<Database>,
    pub(crate) store: Arc<Database>,
    pub(crate) audit: Arc<Database>,
}

/// Copies that are removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Copies {
    dir: PathBuf,
    pub(crate) header: BackupHeader,
}

impl Records {
    /// Copies all of them. Only one set of copies may exist at a time.
    pub(crate) fn copy(&self, mut header: BackupHeader) -> Result<Copies, CopyError> {
        let dir = self.state_dir.join(COPIES);
        remove_left_copies(&self.state_dir)?;
        DirBuilder::new().mode(0o700).create(&dir)?;
        // One moment for all, as far as there is one.
        let [access, store, audit] = [self.access.begin_read(), self.store.begin_read(), self.audit.begin_read()];
        let copies: [(&str, ReadTransaction, CopyTables); 3] = [
            (ACCESS, access.map_err(StoreError::from)?, AccessFile::copy_tables),
            (STORE, store.map_err(StoreError::from)?, RedbStore::copy_tables),
            (AUDIT, audit.map_err(StoreError::from)?, ledger::copy_tables),
        ];
        header.files.clear();
        let mut made = Copies { dir, header };
        for (name, from, copy_tables) in copies {
            let path = made.path(name);
            database::copy(&path, &from, copy_tables)?;
            made.header.files.push((name.to_owned(), fs::metadata(&path)?.len()));
        }
        Ok(made)
    }
}

impl Copies {
    /// Where a copy lies.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot remove the copies of a backup");
        }
    }
}

/// Removes what a coordinator left that was killed while it made a backup.
pub(crate) fn remove_left_copies(state_dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(state_dir.join(COPIES)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Why copies cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("cannot {0}")]
    Store(#[from] StoreError),
    #[error("cannot write the copies: {0}")]
    Disk(#[from] io::Error),
}

/// Names of the files, in a state directory and in a backup.
pub(crate) const ACCESS: &str = "access.redb";
pub(crate) const STORE: &str = "store.redb";
pub(crate) const AUDIT: &str = "audit.redb";
/// Folder of the copies in a state directory.
const COPIES: &str = "backup.tmp";
