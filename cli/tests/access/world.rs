//! A coordinator of this binary with a home of its own, and homes of others who join, ask and are shut out.

use crate::{held_port::HeldPort, leftovers, patience::until};
use dora_remote_certs::Authority;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, SystemTime},
};
use tempfile::TempDir;

pub(crate) const BIN: &str = env!("CARGO_BIN_EXE_dora-remote");

/// A home directory: that of one user on one machine. What was started there ends with it.
pub(crate) struct Home(TempDir);

/// What one command has said.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A coordinator that runs, in a home of its own.
pub(crate) struct Coordinator {
    pub(crate) home: Home,
    pub(crate) address: String,
    _port: HeldPort,
    process: Option<Group>,
}

/// A process with all that it starts in its group; asked to end when the test does.
pub(crate) struct Group(Child);

impl Home {
    pub(crate) fn new() -> Self {
        // A short path: sockets lie below it, and the names of unix sockets are short.
        Self(tempfile::Builder::new().prefix("ac").tempdir_in("/tmp").expect("a home"))
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.0.path().join(relative)
    }

    /// Where `join` puts the identity of that role and name.
    pub(crate) fn identity(&self, role: &str, name: &str) -> PathBuf {
        self.path(&format!(".config/dora-remote/identities/lab-{role}-{name}"))
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let own = Path::new(BIN).parent().expect("a folder").to_str().expect("UTF-8");
        let others = std::env::var("PATH").expect("a path");
        let mut command = Command::new(program);
        command
            .current_dir(self.0.path())
            .env_clear()
            .env("HOME", self.0.path())
            .env("PATH", format!("{own}:{others}"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, line: &[&str]) -> Seen {
        self.command(BIN).args(line).output().expect("runs").into()
    }

    /// Runs a command that must succeed, and gives its standard output without the last line end.
    pub(crate) fn ok(&self, line: &[&str]) -> String {
        let seen = self.run(line);
        assert_eq!(seen.exit, 0, "{line:?}: {seen:?}");
        seen.stdout.trim_end().to_owned()
    }

    pub(crate) fn json(&self, line: &[&str]) -> Value {
        let text = self.ok(&[line, &["--format", "json"]].concat());
        serde_json::from_str(&text).expect("one document")
    }

    /// Runs a command with that on its standard input.
    pub(crate) fn feed(&self, line: &[&str], input: &str) -> Seen {
        let mut command = self.command(BIN);
        command
            .args(line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("runs");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("written");
        drop(stdin);
        child.wait_with_output().expect("ends").into()
    }

    /// Starts a command in a group of its own, with its two outputs in files of that name.
    pub(crate) fn start(&self, mut command: Command, name: &str) -> Group {
        let file = |end: &str| File::create(self.path(&format!("{name}.{end}"))).expect("a file");
        command.stdout(file("out")).stderr(file("err")).process_group(0);
        Group(command.spawn().expect("runs"))
    }

    pub(crate) fn text(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap_or_default()
    }

    /// The serial number of the certificate in a directory.
    pub(crate) fn serial(&self, dir: &Path) -> String {
        let shown = self.json(&["certs", "show", dir.to_str().expect("UTF-8")]);
        shown["certificates"][0]["serial"].as_str().expect("a serial").to_owned()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A daemon finds its engine no more once the files are gone, and would leave it behind.
        leftovers::end(self.0.path());
    }
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

impl Coordinator {
    /// One of the trust domain `lab` that has made its authority.
    pub(crate) fn start() -> Self {
        Self::within(Home::new())
    }

    /// One whose authority is a day old, so that certificates can have been issued before the test began.
    pub(crate) fn of_yesterday() -> Self {
        let (home, domain) = (Home::new(), "lab".parse().expect("a trust domain"));
        let yesterday = SystemTime::now() - Duration::from_secs(24 * 3600);
        Authority::init(&home.path(AUTHORITY), &domain, yesterday).expect("made");
        Self::within(home)
    }

    fn within(home: Home) -> Self {
        let port = HeldPort::new();
        let mut coordinator = Self {
            home,
            address: port.address().to_string(),
            _port: port,
            process: None,
        };
        coordinator.run();
        coordinator
    }

    /// Starts it, on the port that it had before.
    pub(crate) fn run(&mut self) {
        let mut command = self.home.command(BIN);
        command
            .args(["coordinator", "--trust-domain", "lab", "--listen", &self.address])
            .stdout(Stdio::piped())
            .stderr(File::create(self.home.path("log")).expect("a file"))
            .process_group(0);
        let mut child = command.spawn().expect("runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let first = lines.next().expect("it says where it listens").expect("UTF-8");
        self.address = first.strip_prefix("listening on ").expect("an address").to_owned();
        self.process = Some(Group(child));
    }

    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Makes an invite on the coordinator's host and gives its token.
    pub(crate) fn invite(&self, role: &str, name: &str, more: &[&str]) -> String {
        let line = [
            "invite",
            "--role",
            role,
            "--name",
            name,
            "--address",
            &self.address,
            "--token-only",
        ];
        self.home.ok(&[&line[..], more].concat())
    }

    /// Invites somebody, who joins.
    pub(crate) fn joined(&self, role: &str, name: &str) -> Home {
        let home = Home::new();
        home.ok(&["join", &self.invite(role, name, &[])]);
        home
    }

    /// A home with a certificate of that life, which was issued so long ago, and a context with it.
    pub(crate) fn issued(&self, identity: &str, life: Duration, ago: Duration) -> Home {
        let home = Home::new();
        let authority = Authority::load(&self.home.path(AUTHORITY)).expect("an authority");
        let identity = identity.parse().expect("an identity");
        let issued = authority.issue(&identity, life, SystemTime::now() - ago).expect("issued");
        let out = home.path(OWN);
        issued.save(&out, false).expect("saved");
        let line = ["context", "add", "lab", "--coordinator-addr", &self.address, "--identity"];
        home.ok(&[&line[..], &[out.to_str().expect("UTF-8")]].concat());
        home
    }
}

/// Where a coordinator keeps its authority.
const AUTHORITY: &str = ".local/state/dora-remote/coordinator/authority";
/// Where [`Coordinator::issued`] puts an identity.
pub(crate) const OWN: &str = "own";

impl Group {
    /// Waits for its end and gives its exit code.
    pub(crate) fn ended(&mut self) -> i32 {
        let mut status = None;
        until("the process ends", || {
            status = self.0.try_wait().expect("a child");
            status.is_some()
        });
        status.and_then(|status| status.code()).expect("no signal")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.0.id()).expect("a process id"));
        // It may have ended before.
        let _ = killpg(group, Signal::SIGTERM);
        drop(self.0.wait());
    }
}
