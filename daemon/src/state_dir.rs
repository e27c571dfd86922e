//! The daemon's directory: made with owner-only rights, held by one daemon at a time, and where things lie in it.

use crate::seat::Seat;
use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io,
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};
use thiserror::Error;

/// A state directory that this process holds; another daemon cannot use it until this is dropped.
#[derive(Debug)]
pub(crate) struct StateDir {
    root: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the directory if need be, and locks it.
    pub(crate) fn hold(root: &Path) -> Result<Self, StateDirError> {
        make_private(root)?;
        // Runs, sockets and child processes need a path that holds from everywhere.
        let root = fs::canonicalize(root).map_err(fault(root))?;
        let path = root.join("daemon.lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(fault(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateDirError::InUse { path: root }),
            Err(TryLockError::Error(source)) => return Err(StateDirError::Io { path, source }),
        }
        let dir = Self { root, _lock: lock };
        for seat in Seat::all() {
            make_private(&dir.engine(seat))?;
        }
        make_private(&dir.runs())?;
        Ok(dir)
    }

    /// The database.
    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("daemon.redb")
    }

    /// The own directory of the engine in a place.
    pub(crate) fn engine(&self, seat: Seat) -> PathBuf {
        self.root.join(seat.dir_name())
    }

    /// Whether an engine answers in this very directory. A copy of the directory holds a copy of its socket, where nobody listens.
    pub(crate) fn is_lived_in(&self) -> bool {
        Seat::all().any(|seat| UnixStream::connect(self.engine(seat).join("engine.sock")).is_ok())
    }

    /// Where the run directories lie.
    pub(crate) fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }
}

/// Makes a directory that only its owner may enter, with all that leads to it; an existing one is narrowed to that.
pub(crate) fn make_private(path: &Path) -> Result<(), StateDirError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(fault(path))?;
    let mode = fs::metadata(path).map_err(fault(path))?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(fault(path))?;
    }
    Ok(())
}

fn fault(path: &Path) -> impl FnOnce(io::Error) -> StateDirError {
    let path = path.to_owned();
    move |source| StateDirError::Io { path, source }
}

/// Why a state directory cannot be used.
#[derive(Debug, Error)]
pub(crate) enum StateDirError {
    /// Another daemon holds it.
    #[error("the state directory {path} is in use by another daemon", path = path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// It cannot be made, read or locked.
    #[error("the state directory cannot be used: {path}: {source}", path = path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_daemon_holds_a_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let held = StateDir::hold(&path).unwrap();
        assert!(matches!(StateDir::hold(&path), Err(StateDirError::InUse { .. })));
        assert_eq!(fs::metadata(held.runs()).unwrap().permissions().mode() & 0o777, 0o700);
        drop(held);
        StateDir::hold(&path).unwrap();
    }
}
