//! A node that prints without end, and a reader of lines that costs little: for measurements of rates.

use crate::{binary, cluster::Cluster, patience, python, run_cli::Cli};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// The node. Once there is a file `go`, it prints lines of 25 bytes as fast as it can until it is stopped or has printed `LINES`, and
/// notes in files of its own how many there are and before which of them it stood still.
const NODE: &str = r#"
import os
import struct
import threading
import time
from dora import Node

node, stopped = Node(), threading.Event()
folder, lines = os.environ["NOTES"], int(os.environ["LINES"])


def write():
    while not os.path.exists(folder + "/go") and not stopped.is_set():
        time.sleep(0.01)
    printed = os.open(folder + "/printed", os.O_CREAT | os.O_WRONLY)
    number, before = 0, time.time_ns()
    with open(folder + "/pauses", "w") as pauses:
        while number < lines and not stopped.is_set():
            number += 1
            now = time.time_ns()
            print(f"tick {number:07} at {now // 1_000_000 % 100_000_000:08}", flush=True)
            if now - before > 50_000_000:
                print(number, (now - before) // 1_000_000, file=pauses, flush=True)
            before = now
            if number % 100 == 0:
                os.pwrite(printed, struct.pack("<Q", number), 0)
        os.pwrite(printed, struct.pack("<Q", number), 0)


writer = threading.Thread(target=write)
writer.start()
for event in node:
    if event["type"] == "STOP":
        break
stopped.set()
writer.join()
"#;

/// A flow of one node that prints.
#[derive(Debug)]
pub struct Flood {
    notes: PathBuf,
}

impl Flood {
    /// Starts one that prints at once and until it is stopped.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(cluster: &Cluster, name: &str) -> Self {
        let flood = Self::of_lines(cluster, name, u64::MAX);
        flood.go();
        flood
    }

    /// Starts one that waits for [`Self::go`], prints `lines`, and waits for its stop.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn of_lines(cluster: &Cluster, name: &str, lines: u64) -> Self {
        let notes = cluster.path(&format!("notes-{name}"));
        fs::create_dir(&notes).expect("a fresh folder");
        let yaml = format!(
            "
nodes:
  - id: flood
    path: flood.py
    inputs: {{ tick: dora/timer/millis/1000 }}
    env: {{ LINES: '{lines}', NOTES: {} }}
",
            notes.display()
        );
        let yaml = cluster.flow(name, &[("dataflow.yml", &yaml), ("flood.py", NODE)]);
        cluster.cli().run(&["start", &yaml, "--detach", "--name", name]).exits_with(0);
        Self { notes }
    }

    /// Lets it print.
    ///
    /// # Panics
    /// When its folder cannot be written.
    pub fn go(&self) {
        fs::write(self.notes.join("go"), []).expect("our own folder");
    }

    /// Lines that it has printed, to the hundred.
    #[must_use]
    pub fn printed(&self) -> u64 {
        let noted = fs::read(self.notes.join("printed")).unwrap_or_default();
        noted.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// Its longest pause before a line between these two, by its own clock; zero when none was over 50 ms.
    #[must_use]
    pub fn longest_pause(&self, from: u64, to: u64) -> Duration {
        let noted = fs::read_to_string(self.notes.join("pauses")).unwrap_or_default();
        let pauses = noted.lines().filter_map(|line| {
            let (number, milliseconds) = line.split_once(' ')?;
            Some((number.parse::<u64>().ok()?, milliseconds.parse().ok()?))
        });
        let longest = pauses
            .filter(|(number, _)| (from..=to).contains(number))
            .map(|(_, ms)| ms)
            .max();
        Duration::from_millis(longest.unwrap_or_default())
    }
}

/// A command that shows lines of a [`Flood`] for people, whose numbers are looked at as they come. Killed when it is dropped.
#[derive(Debug)]
pub struct Consumer {
    child: Child,
    seen: Arc<Mutex<Seen>>,
    reader: Option<JoinHandle<()>>,
}

/// What a [`Consumer`] has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Lines of the flood.
    pub lines: u64,
    /// Number of the first one.
    pub first: u64,
    /// When the first one came.
    pub first_at: Option<Instant>,
    /// Number of the last one.
    pub last: u64,
    /// Lines that are not the one after the line before them.
    pub wrong: u64,
}

impl Seen {
    /// Whether every line between the first and the last one came, once and in order.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.wrong == 0 && self.lines > 0 && self.lines == self.last - self.first + 1
    }

    fn take(&mut self, line: &[u8]) {
        const WORD: &[u8] = b"| tick ";
        let Some(at) = line.windows(WORD.len()).position(|word| word == WORD) else {
            return;
        };
        let digits = line[at + WORD.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        let number = digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
        if self.lines == 0 {
            (self.first, self.first_at) = (number, Some(Instant::now()));
        } else if number != self.last + 1 {
            self.wrong += 1;
        }
        self.last = number;
        self.lines += 1;
    }
}

impl Consumer {
    /// Starts a command; what it says to people is shown.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(cli: &Cli, arguments: &[&str]) -> Self {
        let mut child = Command::new(binary::program())
            .args(arguments)
            .args(&cli.global)
            .current_dir(&cli.folder)
            .env_clear()
            .env("PATH", python::search_path())
            .env("HOME", &cli.folder)
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let counting = Arc::clone(&seen);
        let mut out = BufReader::with_capacity(1 << 20, child.stdout.take().expect("a pipe"));
        let reader = std::thread::spawn(move || {
            let mut line = Vec::new();
            while out.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                counting.lock().unwrap_or_else(PoisonError::into_inner).take(&line);
                line.clear();
            }
        });
        Self {
            child,
            seen,
            reader: Some(reader),
        }
    }

    /// What it has seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has seen this line, or later ones.
    ///
    /// # Panics
    /// When that takes longer than `deadline`.
    #[track_caller]
    pub fn until_line(&self, number: u64, deadline: Duration) {
        patience::until_within(deadline, &format!("line {number}"), || {
            (self.seen().last >= number).then_some(())
        });
    }

    /// Waits for the end of the command, which `watch` looks at meanwhile, and of what it has written.
    ///
    /// # Panics
    /// When that takes longer than `deadline`.
    pub fn finish(&mut self, deadline: Duration, mut watch: impl FnMut(u32)) -> ExitStatus {
        let pid = self.pid();
        let status = patience::until_within(deadline, "the end of a command", || {
            watch(pid);
            self.child.try_wait().expect("our own child")
        });
        if let Some(reader) = self.reader.take() {
            reader.join().expect("a reader of lines");
        }
        status
    }

    /// Kills the command; what it has written before is still read.
    pub fn end(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.end();
    }
}
