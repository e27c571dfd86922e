//! What `up` writes down about the processes that it started: where they are reached and which they are.
//!
//! Read by `down`, and by every verb that was given no address. Starting and ending them is not done here.

use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Version of the record.
const SCHEMA: u32 = 1;
/// Its name within the state directory of `up`.
const FILE: &str = "up.json";

/// What runs on this machine because of `up`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this record.
    schema: u32,
    /// Where the coordinator is reached: `HOST:PORT`.
    pub address: String,
    /// The coordinator.
    pub coordinator: Process,
    /// The daemon.
    pub daemon: Process,
}

/// One process: a number that is used again some day, and what tells it from its successors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Its start, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub started: u64,
}

impl Record {
    /// A record of what was just started.
    #[must_use]
    pub fn new(address: String, coordinator: Process, daemon: Process) -> Self {
        Self {
            schema: SCHEMA,
            address,
            coordinator,
            daemon,
        }
    }

    /// Reads the record of the `up` in `dir`; none when nothing was started or it cannot be understood.
    #[must_use]
    pub fn read(dir: &Path) -> Option<Self> {
        let record: Self = serde_json::from_slice(&fs::read(dir.join(FILE)).ok()?).ok()?;
        (record.schema == SCHEMA).then_some(record)
    }

    /// Writes the record, whole or not at all.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let temporary = dir.join(format!("{FILE}.new"));
        fs::write(&temporary, serde_json::to_vec_pretty(self)?)?;
        fs::rename(temporary, dir.join(FILE))
    }

    /// Removes the record.
    ///
    /// # Errors
    /// What the file system says, unless there was none.
    pub fn remove(dir: &Path) -> io::Result<()> {
        match fs::remove_file(dir.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Process {
    /// The process with this id as it is now; none when there is none.
    #[must_use]
    pub fn now(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let started = start_ticks(&stat)?;
        Some(Self { pid, started })
    }

    /// Whether this very process is there and runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", self.pid)) else {
            return false;
        };
        let is_zombie = fields(&stat).is_some_and(|mut fields| matches!(fields.next(), Some("Z" | "X")));
        !is_zombie && start_ticks(&stat) == Some(self.started)
    }
}

/// The directory of `up` within the state directory of this user.
#[must_use]
pub fn up_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("up")
}

/// The identity that `up` makes for the person who runs it.
#[must_use]
pub fn up_identity(up_dir: &Path) -> PathBuf {
    up_dir.join("admin")
}

/// The fields behind the process name, which may hold spaces and parentheses (`proc_pid_stat(5)`).
fn fields(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace())
}

fn start_ticks(stat: &str) -> Option<u64> {
    // The state is field 3 of the file and the first behind the name, the start field 22.
    fields(stat)?.nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_its_namesake_is_not() {
        let this = Process::now(std::process::id()).expect("this process exists");
        assert!(this.is_alive());
        let namesake = Process {
            started: this.started + 1,
            ..this
        };
        assert!(!namesake.is_alive());
    }

    #[test]
    fn a_record_survives_its_file_and_a_strange_one_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(Record::read(dir.path()), None);
        let this = Process::now(std::process::id()).expect("this process exists");
        let record = Record::new("127.0.0.1:6013".to_owned(), this, this);
        record.write(dir.path()).expect("written");
        assert_eq!(Record::read(dir.path()), Some(record));
        fs::write(dir.path().join(FILE), "{\"schema\": 99}").expect("written");
        assert_eq!(Record::read(dir.path()), None);
        Record::remove(dir.path()).expect("removed");
        Record::remove(dir.path()).expect("removing nothing is fine");
    }
}
