//! Starts and ends the background processes of `up`. Ends only what is proven to be the process that was meant.

use crate::{exit::Exit, failure::Failure, local::Process};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Deserialize;
use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// How often a process is looked at while its end is awaited.
const GLANCE: Duration = Duration::from_millis(50);
/// Time for a process to vanish after SIGKILL.
const AFTER_KILL: Duration = Duration::from_secs(5);
/// Bytes of a log's end that an error shows.
const SHOWN_LOG: u64 = 2_000;

/// Starts this program with other arguments, away from the terminal, its output going to `log`.
///
/// # Errors
/// What the system says.
pub fn start(arguments: &[&std::ffi::OsStr], log: &Path) -> io::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
    Command::new(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // What runs here is told on the command line whom it belongs to.
        .env_remove("DORA_REMOTE_CONTEXT")
        // Ctrl-C in the terminal is not meant for it.
        .process_group(0)
        .spawn()
}

/// Ends a process: SIGTERM, and SIGKILL when `patience` is over. A process that is gone already is fine.
///
/// # Errors
/// A failure when it cannot be signalled or does not go.
pub async fn end(name: &str, process: Process, patience: Duration) -> Result<(), Failure> {
    for (signal, patience) in [(Signal::SIGTERM, patience), (Signal::SIGKILL, AFTER_KILL)] {
        if !process.is_alive() {
            return Ok(());
        }
        send(name, process, signal)?;
        if gone(process, patience).await {
            return Ok(());
        }
    }
    Err(Failure::new(
        Exit::Partly,
        format!("the {name} (pid {}) does not end", process.pid),
    ))
}

/// The engine that a daemon with this state directory has, if it is alive: the process whose id the engine wrote down, proven by
/// the mark in its environment.
#[must_use]
pub fn engine_of(daemon_state: &Path) -> Option<Process> {
    #[derive(Deserialize)]
    struct Facts {
        engine: String,
        pid: u32,
    }
    let facts: Facts = serde_json::from_slice(&fs::read(daemon_state.join("engine/engine.json")).ok()?).ok()?;
    let environment = fs::read(format!("/proc/{}/environ", facts.pid)).ok()?;
    let mark = format!("DORA_REMOTE_ENGINE_ID={}", facts.engine);
    let is_marked = environment
        .split(|byte| *byte == 0)
        .any(|variable| variable == mark.as_bytes());
    let process = Process::now(facts.pid)?;
    (is_marked && process.is_alive()).then_some(process)
}

/// The end of a log file, for an error.
#[must_use]
pub fn end_of_log(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(SHOWN_LOG)))?;
        let mut bytes = Vec::new();
        file.take(SHOWN_LOG).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    read().unwrap_or_default()
}

fn send(name: &str, process: Process, signal: Signal) -> Result<(), Failure> {
    let failed = |cause: String| Failure::new(Exit::Failed, format!("cannot end the {name} (pid {})", process.pid)).cause(cause);
    let pid = i32::try_from(process.pid).map_err(|error| failed(error.to_string()))?;
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(failed(errno.to_string())),
    }
}

async fn gone(process: Process, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    while process.is_alive() {
        if Instant::now() >= until {
            return false;
        }
        sleep(GLANCE).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stubborn_process_goes_in_the_end_and_a_namesake_stays() {
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; echo ready; while :; do read line; done"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut ready = [0; 6];
        child
            .stdout
            .as_mut()
            .expect("piped")
            .read_exact(&mut ready)
            .expect("it says so");
        let process = Process::now(child.id()).expect("it lives");
        let namesake = Process {
            started: process.started + 1,
            ..process
        };
        end("namesake", namesake, Duration::ZERO).await.expect("nothing to do");
        assert!(process.is_alive(), "another process with the same id is not touched");
        end("shell", process, Duration::from_millis(100)).await.expect("it goes");
        assert!(!process.is_alive());
        child.wait().expect("reaped");
    }

    #[test]
    fn a_process_without_the_mark_is_no_engine() {
        let state = tempfile::tempdir().expect("a directory");
        fs::create_dir(state.path().join("engine")).expect("made");
        let facts = format!(
            r#"{{"engine": "019f2c41-7d52-7cc8-a9a2-0f3c1e2b4d5e", "pid": {}}}"#,
            std::process::id()
        );
        fs::write(state.path().join("engine/engine.json"), facts).expect("written");
        assert_eq!(engine_of(state.path()), None);
    }
}
