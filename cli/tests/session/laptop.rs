//! A laptop on which somebody types commands of the real binary, and what they see of them.

use crate::coordinator::{Coordinator, Script};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

/// A laptop: a home with an authority, and a dataflow in a folder.
pub(crate) struct Laptop {
    home: TempDir,
}

impl Laptop {
    pub(crate) fn new() -> Self {
        let laptop = Self {
            home: tempfile::tempdir().expect("a home"),
        };
        let authority = laptop.path("authority");
        let made = laptop
            .command(&["certs", "init", "--out", authority.to_str().expect("UTF-8")])
            .output()
            .expect("runs");
        assert!(made.status.success(), "{made:?}");
        let folder = laptop.path("arm");
        fs::create_dir(&folder).expect("made");
        fs::write(folder.join("dataflow.yml"), FLOW).expect("written");
        fs::write(folder.join("cam.py"), "print()").expect("written");
        laptop
    }

    /// A path in the home.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.home.path().join(relative)
    }

    /// A command of the first admin, with its outputs in pipes.
    pub(crate) fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dora-remote"));
        command
            .args(line)
            .current_dir(self.home.path())
            .env_clear()
            .env("HOME", self.home.path())
            .env("DORA_REMOTE_IDENTITY", self.path("authority/admin"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// A coordinator that this laptop's authority vouches for.
    pub(crate) fn coordinator(&self, script: Script) -> Coordinator {
        Coordinator::start(&self.path("authority"), script)
    }

    /// Runs a command against that coordinator.
    pub(crate) fn run(&self, coordinator: &Coordinator, line: &[&str]) -> Seen {
        let output = self.to(coordinator, line).output().expect("runs");
        Seen::from(output)
    }

    /// A command that will ask that coordinator.
    pub(crate) fn to(&self, coordinator: &Coordinator, line: &[&str]) -> Command {
        let mut command = self.command(line);
        command.env("DORA_REMOTE_ADDR", coordinator.address.to_string());
        command
    }
}

/// What one command has said.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Seen {
    fn from(output: Output) -> Self {
        Self {
            exit: output.status.code().expect("no signal"),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

/// Does what Ctrl-C does.
pub(crate) fn interrupt(pid: u32) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGINT).expect("sent");
}

const FLOW: &str = "nodes:\n  - id: cam\n    path: cam.py\n    outputs: [image]\n    env:\n      PRICE: \"5 $$\"\n";
