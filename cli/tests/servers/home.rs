//! A home of its own for each test, and processes that end with it.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

/// Time for everything that a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A home.
pub(crate) struct Home(tempfile::TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        // A short path: sockets lie below it.
        Self(tempfile::Builder::new().prefix("svc").tempdir_in("/tmp").expect("a home"))
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.0.path().join(relative)
    }

    pub(crate) fn command<S: AsRef<OsStr>>(&self, line: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dora-remote"));
        command
            .args(line)
            .env_clear()
            .env("HOME", self.0.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, line: &[&str]) -> Output {
        self.command(line).output().expect("runs")
    }
}

/// What a command that succeeded has printed.
#[track_caller]
pub(crate) fn good(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// Whether one of the lines is that one.
pub(crate) fn has_line(text: &str, line: &str) -> bool {
    text.lines().any(|known| known == line)
}

/// A process that ends with the test.
pub(crate) struct Service(pub(crate) Child);

impl Service {
    pub(crate) fn terminate(&self) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).expect("a pid")), Signal::SIGTERM).expect("sent");
    }

    /// Where it listens, by the first line that it prints.
    pub(crate) fn address(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("a line");
        line.trim().strip_prefix("listening on ").expect("an address").to_owned()
    }
}

impl Service {
    /// Ends it as a crash would.
    pub(crate) fn crash(&mut self) {
        self.0.kill().expect("our own child");
        self.0.wait().expect("our own child");
    }
}

impl Drop for Service {
    /// In order, as a daemon that crashes leaves its engine to the next one.
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.terminate();
            let _ = self.0.wait();
        }
    }
}

/// What a process prints, line by line, each awaited for at most [`PATIENCE`].
pub(crate) struct Lines(Receiver<String>);

impl Lines {
    pub(crate) fn of(stdout: ChildStdout) -> Self {
        let (sender, receiver) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self(receiver)
    }

    #[track_caller]
    pub(crate) fn next(&self) -> String {
        self.0.recv_timeout(PATIENCE).expect("a line in time")
    }
}
