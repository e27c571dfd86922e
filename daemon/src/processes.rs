//! Processes of this machine as `/proc` shows them: whether one still lives, and the orphans of an engine.
//!
//! Only processes of our own user are ever looked at closely or signalled.

use crate::{
    environment::ENGINE_ID,
    records::{ProcessRecord, ProgramId},
};
use dora_remote_protocol::ids::EngineId;
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::{Pid, getpgid, getpid, getuid},
};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};
use tracing::warn;

/// Time between SIGTERM and SIGKILL for orphans. Their engine is gone, so that little is left for them to do well.
const ORPHAN_GRACE: Duration = Duration::from_millis(500);
/// Time after which killing orphans is given up (a process in an uninterruptible wait cannot be killed).
const ORPHAN_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two looks at `/proc`.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// Looks in a row that find nothing: the environment of a process reads as empty while it starts its program.
const EMPTY_LOOKS: u32 = 3;

/// Looks up a living process. A zombie does not live.
pub(crate) fn find(pid: u32) -> Option<ProcessRecord> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    // Field 22 of the file, the state being field 3.
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some(ProcessRecord { pid, start_ticks })
}

/// Whether exactly this process lives.
pub(crate) fn lives(process: ProcessRecord) -> bool {
    find(process.pid) == Some(process)
}

/// Which file a program is now; none where it cannot be looked at.
pub(crate) fn program(path: &Path) -> Option<ProgramId> {
    let file = fs::metadata(path).ok()?;
    Some(ProgramId {
        device: file.dev(),
        inode: file.ino(),
    })
}

/// Sends SIGKILL to exactly this process, if it lives.
pub(crate) fn kill_hard(process: ProcessRecord) {
    if lives(process) {
        signal(process.pid, Signal::SIGKILL);
    }
}

/// Ends every process that carries the mark of `engine`, the engine itself included: SIGTERM, then SIGKILL, until none is left.
/// Blocks for up to [`ORPHAN_DEADLINE`]. Returns how many there were.
pub(crate) fn end_marked(engine: EngineId) -> usize {
    let started = Instant::now();
    let mut asked = BTreeSet::new();
    let mut empty_looks = 0;
    loop {
        let left = marked(engine);
        empty_looks = if left.is_empty() { empty_looks + 1 } else { 0 };
        if empty_looks == EMPTY_LOOKS {
            return asked.len();
        }
        let hard = started.elapsed() >= ORPHAN_GRACE;
        for pid in &left {
            let first = asked.insert(*pid);
            if hard {
                signal_group(*pid, Signal::SIGKILL);
            } else if first {
                signal_group(*pid, Signal::SIGTERM);
            }
        }
        if started.elapsed() >= ORPHAN_DEADLINE {
            warn!(%engine, processes = ?left, "processes of a dead engine cannot be killed");
            return asked.len();
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Living processes of our user that carry the mark of `engine` in their environment, ourselves excluded.
fn marked(engine: EngineId) -> Vec<u32> {
    let mark = format!("{ENGINE_ID}={engine}");
    let uid = getuid().as_raw();
    let us = getpid().as_raw().unsigned_abs();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let path: PathBuf = entry.path();
        let ours = fs::metadata(&path).is_ok_and(|meta| meta.uid() == uid);
        if pid == us || !ours {
            continue;
        }
        let Ok(environment) = fs::read(path.join("environ")) else {
            continue;
        };
        if environment.split(|b| *b == 0).any(|variable| variable == mark.as_bytes()) && find(pid).is_some() {
            found.push(pid);
        }
    }
    found
}

/// Signals a process, and its whole group where it leads one: a node may have children that cleared their environment.
fn signal_group(pid: u32, what: Signal) {
    let Ok(raw) = i32::try_from(pid) else {
        return;
    };
    let pid = Pid::from_raw(raw);
    if getpgid(Some(pid)) == Ok(pid) {
        let _ = killpg(pid, what);
    } else {
        let _ = kill(pid, what);
    }
}

fn signal(pid: u32, what: Signal) {
    if let Ok(raw) = i32::try_from(pid) {
        // It may have ended by itself meanwhile.
        let _ = kill(Pid::from_raw(raw), what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use uuid::Uuid;

    #[test]
    fn a_stubborn_orphan_and_its_unmarked_child_are_ended() {
        use std::os::unix::process::CommandExt;
        let engine = EngineId(Uuid::new_v4());
        let script = "trap '' TERM; env -i sh -c 'while :; do sleep 0.05; done' & while :; do sleep 0.05; done";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .env(ENGINE_ID, engine.to_string())
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        assert!(find(child.id()).is_some());
        let deadline = Instant::now() + Duration::from_secs(30);
        while marked(engine).is_empty() {
            assert!(Instant::now() < deadline, "the child never showed up");
            thread::yield_now();
        }
        assert!(end_marked(engine) >= 1);
        child.wait().unwrap();
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        // Killed children stay in the group as zombies until their new parent has collected them.
        while fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
            pid.is_some_and(|pid| getpgid(Some(Pid::from_raw(pid))) == Ok(group) && find(pid.unsigned_abs()).is_some())
        }) {
            assert!(Instant::now() < deadline, "a child of the orphan lives on");
            thread::yield_now();
        }
    }

    #[test]
    fn a_process_is_not_taken_for_another_one_with_its_id() {
        let me = find(std::process::id()).unwrap();
        assert!(lives(me));
        assert!(!lives(ProcessRecord {
            start_ticks: me.start_ticks + 1,
            ..me
        }));
    }
}
