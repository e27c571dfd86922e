//! Processes that were started in a home, by whomever: an engine is in no group of a test, and is started by a daemon.

use crate::patience;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{fs, path::Path};

/// Asks all processes of a home to end and waits until they have; those that do not in time are killed.
pub(crate) fn end(home: &Path) {
    signal(home, Signal::SIGTERM);
    if !patience::comes(|| of(home).is_empty()) {
        signal(home, Signal::SIGKILL);
    }
}

fn signal(home: &Path, signal: Signal) {
    for pid in of(home) {
        // It may have ended meanwhile.
        let _ = kill(pid, signal);
    }
}

/// Those that live; nobody else has this home.
fn of(home: &Path) -> Vec<Pid> {
    let mark = format!("HOME={}", home.display());
    let is_ours = |pid: i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|pair| pair == mark.as_bytes())
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| is_ours(*pid))
        .map(Pid::from_raw)
        .collect()
}
