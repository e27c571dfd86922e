//! A command that runs: what it prints is read as it comes, and no run outlives its deadline.

use super::{
    Outcome,
    outcome::{output_of, parse_line},
};
use crate::{patience, processes};
use nix::sys::signal::Signal;
use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ExitStatus},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

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
    /// Takes over a command that was started with pipes.
    pub(super) fn new(command: String, mut child: Child) -> Self {
        Self {
            stdout: Lines::read(child.stdout.take().expect("a pipe")),
            stderr: Lines::read(child.stderr.take().expect("a pipe")),
            began: Instant::now(),
            command,
            child,
        }
    }

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

fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Longest time that one command may take. A stop with dora's default grace takes up to half of it.
const COMMAND_DEADLINE: Duration = Duration::from_secs(120);
