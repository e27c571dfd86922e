//! Processes of a test: found by a marker that only this test's processes carry, and ended without touching any other.

use crate::patience;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{collections::BTreeSet, fs, path::Path, time::Instant};

/// Environment variable that every process of a cluster carries, nodes included.
pub const MARKER: &str = "DORA_REMOTE_TEST_CLUSTER";
/// Environment variable that an engine and its nodes carry.
pub const ENGINE_MARKER: &str = "DORA_REMOTE_ENGINE_ID";

/// One process as `/proc` shows it.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its arguments, separated by blanks.
    pub command: String,
    /// Its environment, `KEY=VALUE`.
    pub environment: Vec<String>,
}

impl Process {
    /// The value of an environment variable that it was started with.
    #[must_use]
    pub fn variable(&self, key: &str) -> Option<&str> {
        self.environment
            .iter()
            .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
    }
}

/// Every living process that this user may look into.
#[must_use]
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries
        .filter_map(|entry| read(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .collect()
}

/// Every living process that carries `marker`, or names `folder` on its command line, or was spawned by an engine that does.
#[must_use]
pub fn of_cluster(marker: &str, folder: &Path) -> Vec<Process> {
    let folder = folder.to_str().expect("a temporary folder has a plain name");
    let everything = all();
    let ours = |process: &Process| process.variable(MARKER) == Some(marker) || process.command.contains(folder);
    let engines: BTreeSet<&str> = everything
        .iter()
        .filter(|process| ours(process))
        .filter_map(|process| process.variable(ENGINE_MARKER))
        .collect();
    everything
        .iter()
        .filter(|process| process.pid != std::process::id())
        .filter(|process| ours(process) || process.variable(ENGINE_MARKER).is_some_and(|id| engines.contains(id)))
        .cloned()
        .collect()
}

/// Ends every process of a cluster, and no other one: again and again, until none is left or the deadline is over.
pub fn end_all(marker: &str, folder: &Path) {
    let began = Instant::now();
    while began.elapsed() < patience::DEADLINE {
        let left = of_cluster(marker, folder);
        if left.is_empty() {
            break;
        }
        for process in left {
            signal(process.pid, Signal::SIGKILL);
        }
    }
}

/// Whether a process lives (a zombie does not).
#[must_use]
pub fn lives(pid: u32) -> bool {
    read(pid).is_some()
}

/// Sends a signal. A process that is already gone is no fault.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
    let _ = kill(pid, signal);
}

/// Most memory that a process has held at once so far, in bytes; 0 when it is gone.
#[must_use]
pub fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or_default() << 10
}

/// Processor time of a process so far, in seconds, all threads included; 0 when it is gone.
#[must_use]
pub fn cpu_seconds(pid: u32) -> f64 {
    /// What Linux shows times in, whatever the kernel's own clock is.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in the second field may hold anything, brackets included.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u32 = fields.skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    f64::from(ticks) / TICKS_PER_SECOND
}

fn read(pid: u32) -> Option<Process> {
    let folder = Path::new("/proc").join(pid.to_string());
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // The state stands behind the name, which is in brackets and may hold anything.
    if stat.rsplit_once(')')?.1.trim_start().starts_with(['Z', 'X']) {
        return None;
    }
    let text = |file: &str| {
        fs::read(folder.join(file))
            .ok()
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    Some(Process {
        pid,
        command: text("cmdline")?.replace('\0', " ").trim_end().to_owned(),
        environment: text("environ")?.split('\0').map(str::to_owned).collect(),
    })
}
