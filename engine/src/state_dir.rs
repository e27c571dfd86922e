//! The directory of one engine: `engine.sock`, `events.log` and `engine.json`. Private to the user, as whoever can write here rules
//! the robot.

use crate::{DORA_VERSION, EngineConfig, engine::now_unix_ms};
use nix::unistd::Uid;
use serde::Serialize;
use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Paths inside the directory.
#[derive(Debug)]
pub(crate) struct StateDir {
    dir: PathBuf,
}

/// What `engine.json` says: enough for an agent to find a living engine and to know a dead one.
#[derive(Serialize)]
struct Facts<'a> {
    engine: String,
    pid: u32,
    started_unix_ms: u64,
    machine: &'a str,
    dora_version: &'a str,
}

impl StateDir {
    /// Opens the directory, or makes it.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let found = fs::metadata(dir)?;
        if !found.is_dir() || found.uid() != Uid::effective().as_raw() || found.mode() & 0o077 != 0 {
            let problem = format!(
                "it must be a directory of this user with mode 0700, and has mode {:04o}",
                found.mode() & 0o7777
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// Where the agent knocks.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("engine.sock")
    }

    /// Where events wait.
    pub(crate) fn events(&self) -> PathBuf {
        self.dir.join("events.log")
    }

    /// Says in `engine.json` that this engine is up.
    pub(crate) fn announce(&self, config: &EngineConfig) -> io::Result<()> {
        let facts = Facts {
            engine: config.engine.to_string(),
            pid: std::process::id(),
            started_unix_ms: now_unix_ms(),
            machine: config.machine.as_str(),
            dora_version: DORA_VERSION,
        };
        let path = self.dir.join("engine.json");
        let fresh = self.dir.join("engine.json.new");
        let text = serde_json::to_vec_pretty(&facts)?;
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(fresh, path)
    }

    /// Takes the announcement and the socket back.
    pub(crate) fn withdraw(&self) {
        // What cannot be removed is found dead by the agent, which looks at the pid.
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_file(self.dir.join("engine.json"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn an_open_directory_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        StateDir::open(&dir.path().join("new")).expect("makes it");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        let error = StateDir::open(dir.path()).expect_err("others can read it");
        assert!(error.to_string().contains("0700"), "{error}");
    }
}
