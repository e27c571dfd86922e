//! Runs the program as people do: arguments in, exit code, stdout and stderr out. No run outlives its deadline.

mod outcome;
mod running;

pub use outcome::Outcome;
pub use running::Running;

use crate::patience;
use serde_json::Value;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Somebody at a terminal: where they sit, who they are, which coordinator they mean.
#[derive(Clone, Debug)]
pub struct Cli {
    /// Words before the program, such as `ip netns exec laptop`.
    pub prefix: Vec<String>,
    /// Arguments behind the verb, in front of all others: address and identity.
    pub global: Vec<String>,
    /// Working directory.
    pub folder: PathBuf,
    /// Environment, in addition to a scrubbed one.
    pub environment: Vec<(String, String)>,
}

impl Cli {
    /// Somebody without an identity, in `folder`.
    #[must_use]
    pub fn nobody(folder: &Path) -> Self {
        Self {
            prefix: vec![],
            global: vec![],
            folder: folder.to_owned(),
            environment: vec![],
        }
    }

    /// The same person with another certificate.
    #[must_use]
    pub fn with_identity(&self, folder: &Path) -> Self {
        let mut other = self.clone();
        let at = other
            .global
            .iter()
            .position(|word| word == "--identity")
            .expect("an identity to replace");
        other.global[at + 1] = folder.to_str().expect("a plain path").to_owned();
        other
    }

    /// The same person who means another coordinator.
    #[must_use]
    pub fn with_address(&self, address: &str) -> Self {
        let mut other = self.clone();
        let at = other
            .global
            .iter()
            .position(|word| word == "--coordinator-addr")
            .expect("an address to replace");
        other.global[at + 1] = address.to_owned();
        other
    }

    /// Runs one command to its end.
    ///
    /// # Panics
    /// When the program cannot be started, or takes longer than two minutes.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        self.spawn(arguments).wait()
    }

    /// Runs one command that must succeed, and returns its stdout.
    ///
    /// # Panics
    /// When it does not exit with 0.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).exits_with(0).stdout.clone()
    }

    /// Runs one command with `--format json` that must succeed, and parses its one document.
    ///
    /// # Panics
    /// When it does not exit with 0 or its stdout is no JSON.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut words = arguments.to_vec();
        words.extend(["--format", "json"]);
        let stdout = self.ok(&words);
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stdout}"))
    }

    /// The dataflow of that name or id in `list --format json`.
    #[track_caller]
    pub fn dataflow(&self, name: &str) -> Option<Value> {
        let list = self.json(&["list"]);
        let found = |flow: &&Value| flow["name"] == name || flow["id"] == name;
        list["dataflows"]
            .as_array()
            .expect("`dataflows`")
            .iter()
            .rfind(found)
            .cloned()
    }

    /// Waits until `list --format json` shows a dataflow in a state, and returns it.
    ///
    /// # Panics
    /// When it never does.
    #[track_caller]
    pub fn until_state(&self, name: &str, state: &str) -> Value {
        patience::until(&format!("dataflow `{name}` in state {state}"), || {
            self.dataflow(name).filter(|flow| flow["state"] == state)
        })
    }

    /// Waits until a machine is listed as connected (or as not), and returns it.
    ///
    /// # Panics
    /// When that never happens.
    #[track_caller]
    pub fn until_machine(&self, name: &str, connected: bool) -> Value {
        patience::until(&format!("machine `{name}` with connected = {connected}"), || {
            let list = self.run(&["machines", "--format", "json"]);
            let list: Value = serde_json::from_str(&list.stdout).ok()?;
            let wanted = |machine: &&Value| machine["name"] == name && machine["connected"] == connected;
            list["machines"].as_array()?.iter().find(wanted).cloned()
        })
    }

    /// Starts a command and lets it run.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn spawn(&self, arguments: &[&str]) -> Running {
        let mut words: Vec<OsString> = vec![crate::binary::program().into()];
        words.extend(arguments.iter().map(OsString::from));
        words.extend(self.global.iter().map(OsString::from));
        self.launch(&words, format!("dora-remote {}", arguments.join(" ")))
    }

    /// Runs a line in a shell, as people paste it, with the program on the `PATH`.
    ///
    /// # Panics
    /// When there is no shell.
    #[must_use]
    pub fn paste(&self, line: &str) -> Running {
        self.launch(&["sh".into(), "-c".into(), line.into()], line.to_owned())
    }

    fn launch(&self, words: &[OsString], text: String) -> Running {
        let mut words = words.to_vec();
        words.splice(0..0, self.prefix.iter().map(OsString::from));
        let program = crate::binary::program();
        let folder = program.parent().expect("a program in a folder").display();
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", format!("{folder}:{}", crate::python::search_path()))
            .env("HOME", &self.folder)
            .env("LANG", "C.UTF-8")
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|error| panic!("{words:?}: {error}"));
        Running::new(text, child)
    }
}
