//! The engine's process: spawned with a chosen environment, in a process group of its own, so that it outlives this daemon.
//!
//! Knows nothing of what the engine does; `engine_keeper` decides when one is needed.

use crate::{
    environment,
    processes::{self},
    records::ProcessRecord,
};
use dora_remote_protocol::{dataflow::Labels, ids::EngineId, name::MachineName};
use std::{
    env,
    fs::{self, File, OpenOptions},
    io,
    os::unix::{
        fs::OpenOptionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
};
use tokio::sync::oneshot;

/// Size in bytes at which the engine's log is put aside when an engine starts; one older file is kept.
const LOG_BYTES: u64 = 8 << 20;

/// How engines are started.
#[derive(Clone, Debug)]
pub(crate) struct ChildConfig {
    /// The program; `engine` becomes its first argument.
    pub(crate) exe: PathBuf,
    /// The engine's own directory.
    pub(crate) dir: PathBuf,
    /// Name of this machine.
    pub(crate) machine: MachineName,
    /// Labels of this machine.
    pub(crate) labels: Labels,
    /// Names of further variables that the engine and its nodes get; `*` stands for any run of characters.
    pub(crate) pass_env: Vec<String>,
    /// Bytes that the log files of one node may have together, unless its descriptor says it.
    pub(crate) node_log_bytes: u64,
    /// Variables that the engine and its nodes get whatever the daemon's environment says.
    pub(crate) env: Vec<(String, String)>,
}

/// An engine that was spawned by this process.
#[derive(Debug)]
pub(crate) struct Child {
    /// Its process, unless it was gone at once.
    pub(crate) process: Option<ProcessRecord>,
    /// Says in words how it ended, once it has.
    pub(crate) ended: oneshot::Receiver<String>,
}

impl ChildConfig {
    /// Spawns an engine. Blocks for the time of a fork.
    pub(crate) fn spawn(&self, engine: EngineId) -> io::Result<Child> {
        let log = open_log(&self.dir.join("engine.log"))?;
        let mut command = Command::new(&self.exe);
        command
            .arg("engine")
            .arg("--state")
            .arg(&self.dir)
            .arg("--machine")
            .arg(self.machine.as_str())
            .arg("--node-log-bytes")
            .arg(self.node_log_bytes.to_string());
        for (key, value) in &self.labels {
            command.arg("--label").arg(format!("{key}={value}"));
        }
        let mut child = command
            .env_clear()
            .envs(environment::of_engine(env::vars_os(), &self.pass_env, &self.env, engine))
            .current_dir(&self.dir)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let process = processes::find(child.id());
        let (tell, ended) = oneshot::channel();
        thread::Builder::new().name("engine-wait".to_owned()).spawn(move || {
            let how = match child.wait() {
                Ok(status) => describe(status),
                Err(error) => format!("cannot be waited for: {error}"),
            };
            // The daemon may have ended meanwhile.
            let _ = tell.send(how);
        })?;
        Ok(Child { process, ended })
    }
}

/// How a process ended, to stand behind its name.
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (_, Some(signal)) => format!("was killed by signal {signal}"),
        (Some(0), None) => "ended".to_owned(),
        (Some(code), None) => format!("ended with exit code {code}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Opens the engine's log to append to it, and puts a long one aside before.
fn open_log(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|meta| meta.len() > LOG_BYTES) {
        fs::rename(path, path.with_extension("1.log"))?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process;

    #[test]
    fn the_end_of_a_process_is_told_in_words() {
        let run = |script: &str| describe(process::Command::new("sh").args(["-c", script]).status().unwrap());
        assert_eq!(run("kill -9 $$"), "was killed by signal 9");
        assert_eq!(run("exit 3"), "ended with exit code 3");
    }

    #[test]
    fn a_long_log_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.log");
        drop(open_log(&path).unwrap());
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(LOG_BYTES + 1)
            .unwrap();
        assert_eq!(open_log(&path).unwrap().metadata().unwrap().len(), 0);
        assert!(dir.path().join("engine.1.log").exists());
    }
}
