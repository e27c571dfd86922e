//! What is left of processes: finding and ending those that this engine or one of its nodes made.
//!
//! Dora ends its nodes itself wherever it can. This is the last resort, for the ways out on which it cannot.

use crate::ENGINE_ID_ENV;
use dora_remote_protocol::ids::EngineId;
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

/// Time for killed processes to disappear; SIGKILL cannot be caught, so that this covers the kernel alone.
const SETTLE: Duration = Duration::from_secs(3);
/// Pause between two looks at the process table.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Looks in a row that must find nothing: the environment of a process reads as empty in the middle of its `execve`.
const EMPTY_LOOKS: u32 = 3;

/// Ends everything that carries the mark of this engine when it is dropped, on whichever way out the engine takes.
#[derive(Debug)]
pub(crate) struct Sweeper(pub(crate) EngineId);

impl Drop for Sweeper {
    fn drop(&mut self) {
        let ended = sweep(self.0);
        if ended > 0 {
            tracing::warn!(processes = ended, "killed processes that nodes left behind");
        }
    }
}

/// Kills every process with the mark of `engine` in its environment, except this one. Returns how many there were.
pub(crate) fn sweep(engine: EngineId) -> usize {
    let deadline = Instant::now() + SETTLE;
    let (mut ended, mut empty) = (0, 0);
    while empty < EMPTY_LOOKS && Instant::now() < deadline {
        let left = marked(engine);
        empty = if left.is_empty() { empty + 1 } else { 0 };
        ended = ended.max(left.len());
        for pid in left {
            // A process that is gone by now is what was wanted.
            let _ = kill(pid, Signal::SIGKILL);
        }
        sleep(LOOK_EVERY);
    }
    ended
}

/// Kills the process group that `pid` leads, if `pid` is a child of this process. Tells whether a signal was sent.
pub(crate) fn kill_own_group(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 1).map(Pid::from_raw) else {
        return false;
    };
    is_own_child(pid) && (killpg(pid, Signal::SIGKILL).is_ok() || kill(pid, Signal::SIGKILL).is_ok())
}

/// A pid that ended may by now be somebody else's, so that parentage decides and not the number.
fn is_own_child(pid: Pid) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // The second field is the name in parentheses, which may itself hold spaces and parentheses.
    let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
    parent.and_then(|parent| parent.parse().ok()) == Some(Pid::this().as_raw())
}

fn marked(engine: EngineId) -> Vec<Pid> {
    let mark = format!("{ENGINE_ID_ENV}={engine}");
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .filter(|pid| *pid != Pid::this())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::process::CommandExt as _, process::Command};
    use uuid::Uuid;

    #[test]
    fn only_marked_processes_are_swept() {
        let engine = EngineId(Uuid::new_v4());
        let sleeper = |mark: EngineId| {
            let mut command = Command::new("sleep");
            command.arg("600").env(ENGINE_ID_ENV, mark.to_string()).process_group(0);
            command.spawn().expect("`sleep` is everywhere")
        };
        let mut ours = sleeper(engine);
        let mut theirs = sleeper(EngineId(Uuid::new_v4()));
        assert!(sweep(engine) <= 1, "one sleeper");
        assert!(!ours.wait().expect("a child").success());
        assert!(theirs.try_wait().expect("a child").is_none(), "somebody else's sleeper lives");
        assert!(kill_own_group(theirs.id()));
        assert!(!theirs.wait().expect("a child").success());
        assert!(!kill_own_group(theirs.id()), "a reaped child is nobody's child");
        assert!(!kill_own_group(1));
    }
}
