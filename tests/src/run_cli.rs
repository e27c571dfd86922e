//! Runs the program as people do: arguments in, exit code, stdout and stderr out. No run outlives its deadline.

use crate::{patience, processes};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Longest time that one command may take. A stop with dora's default grace takes up to half of it.
const COMMAND_DEADLINE: Duration = Duration::from_secs(120);

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

/// What came of one command.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was run, for messages.
    pub command: String,
    /// Exit code; 128 + signal when it was killed.
    pub code: i32,
    /// Data.
    pub stdout: String,
    /// Texts for people.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
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
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{words:?}: {error}"));
        let stdout = Lines::read(child.stdout.take().expect("a pipe"));
        let stderr = Lines::read(child.stderr.take().expect("a pipe"));
        Running {
            command: text,
            child,
            stdout,
            stderr,
            began: Instant::now(),
        }
    }
}

impl Outcome {
    /// Asserts the exit code.
    ///
    /// # Panics
    /// When it is another one; shows everything that is known.
    #[track_caller]
    pub fn exits_with(&self, code: i32) -> &Self {
        assert_eq!(
            self.code, code,
            "`{}` after {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.took, self.stdout, self.stderr
        );
        self
    }

    /// The lines of a feed that was asked for with `--format json`.
    ///
    /// # Panics
    /// When a line is no JSON.
    #[must_use]
    pub fn feed(&self) -> Vec<Value> {
        self.stdout.lines().map(parse_line).collect()
    }

    /// What one node wrote, out of a feed that was asked for with `--format json`.
    #[must_use]
    pub fn output_of(&self, node: &str) -> Vec<String> {
        output_of(&self.feed(), node)
    }

    /// Asserts that stderr has all these texts, ignoring case.
    ///
    /// # Panics
    /// When one is missing.
    #[track_caller]
    pub fn says(&self, texts: &[&str]) -> &Self {
        let stderr = self.stderr.to_lowercase();
        for text in texts {
            assert!(
                stderr.contains(&text.to_lowercase()),
                "`{}` does not say `{text}`:\n{}",
                self.command,
                self.stderr
            );
        }
        self
    }
}

/// A command that runs. Killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    command: String,
    child: Child,
    stdout: Lines,
    stderr: Lines,
    began: Instant,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lines of stdout so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.stdout.lines()
    }

    /// What one node has written so far, out of a feed that was asked for with `--format json`.
    #[must_use]
    pub fn output_of(&self, node: &str) -> Vec<String> {
        let mut text = self.stdout.text();
        // The last line may be torn.
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        output_of(&text.lines().map(parse_line).collect::<Vec<_>>(), node)
    }

    /// Text of stderr so far.
    #[must_use]
    pub fn complaints(&self) -> String {
        self.stderr.lines().join("\n")
    }

    /// Waits until stdout has a line with `text`.
    ///
    /// # Panics
    /// When it never has, or the command ends without it.
    #[track_caller]
    pub fn until_line(&mut self, text: &str) -> String {
        let what = format!("a line with `{text}` from `{}`", self.command);
        patience::until(&what, || {
            let ended = self.child.try_wait().expect("a child").is_some();
            let line = self.lines().into_iter().find(|line| line.contains(text));
            assert!(
                line.is_some() || !ended,
                "`{}` ended without a line with `{text}`:\n{}\n{}",
                self.command,
                self.lines().join("\n"),
                self.complaints()
            );
            line
        })
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        processes::signal(self.pid(), signal);
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// When the operating system does not say.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it takes longer than two minutes from now.
    pub fn wait(mut self) -> Outcome {
        let what = format!("the end of `{}`", self.command);
        let (stdout, stderr) = (self.stdout.clone(), self.stderr.clone());
        let began = Instant::now();
        let status = patience::until_within(COMMAND_DEADLINE + Duration::from_secs(1), &what, || {
            let status = self.child.try_wait().expect("a child");
            assert!(
                status.is_some() || began.elapsed() < COMMAND_DEADLINE,
                "`{}` does not end:\n{}\n{}",
                self.command,
                stdout.lines().join("\n"),
                stderr.lines().join("\n")
            );
            status
        });
        self.stdout.finish();
        self.stderr.finish();
        Outcome {
            command: self.command.clone(),
            code: code_of(status),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
            took: self.began.elapsed(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Lines of a pipe, read by a thread as they come.
#[derive(Clone, Debug)]
struct Lines {
    text: Arc<Mutex<String>>,
    reader: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Lines {
    fn read(pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = vec![];
            while pipe.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                sink.lock()
                    .expect("no reader panics")
                    .push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self {
            text,
            reader: Arc::new(Mutex::new(Some(reader))),
        }
    }

    fn text(&self) -> String {
        self.text.lock().expect("no reader panics").clone()
    }

    fn lines(&self) -> Vec<String> {
        self.text().lines().map(str::to_owned).collect()
    }

    /// Waits for the rest of the pipe, once the process has ended.
    fn finish(&self) {
        if let Some(reader) = self.reader.lock().expect("no reader panics").take() {
            patience::until_true("the end of a pipe whose process has ended", || reader.is_finished());
        }
    }
}

fn parse_line(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn output_of(feed: &[Value], node: &str) -> Vec<String> {
    feed.iter()
        .filter(|line| line["type"] == "log" && line["node"] == node)
        .map(|line| line["text"].as_str().expect("`text`").to_owned())
        .collect()
}

fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
