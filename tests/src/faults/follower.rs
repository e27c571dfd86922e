//! A command whose lines are counted as they come, and not kept: for floods and for hours.

use super::Tally;
use crate::{binary, patience, python, run_cli::Cli};
use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Bytes of stderr that are kept, the first ones.
const KEPT_STDERR: usize = 64 << 10;

/// A command that follows lines. Killed when it is dropped.
#[derive(Debug)]
pub struct Follower {
    child: Child,
    tally: Arc<Mutex<Tally>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Follower {
    /// Starts a command with `--format json`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(cli: &Cli, arguments: &[&str]) -> Self {
        let mut words = cli.prefix.clone();
        words.push(binary::program().to_str().expect("a plain path").to_owned());
        words.extend(arguments.iter().map(|word| (*word).to_owned()));
        words.extend(["--format".to_owned(), "json".to_owned()]);
        words.extend(cli.global.iter().cloned());
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .current_dir(&cli.folder)
            .env_clear()
            .env("PATH", python::search_path())
            .env("HOME", &cli.folder)
            .env("LANG", "C.UTF-8")
            .envs(cli.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{words:?}: {error}"));
        let (tally, stderr) = (Arc::new(Mutex::new(Tally::default())), Arc::new(Mutex::new(String::new())));
        let (counting, noting) = (Arc::clone(&tally), Arc::clone(&stderr));
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut complaints = child.stderr.take().expect("a pipe");
        let readers = vec![
            std::thread::spawn(move || {
                let mut line = String::new();
                while out.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                    locked(&counting).take(&line);
                    line.clear();
                }
            }),
            std::thread::spawn(move || {
                let mut buffer = [0; 1024];
                while let Ok(bytes @ 1..) = complaints.read(&mut buffer) {
                    let mut text = locked(&noting);
                    if text.len() < KEPT_STDERR {
                        text.push_str(&String::from_utf8_lossy(&buffer[..bytes]));
                    }
                }
            }),
        ];
        Self {
            child,
            tally,
            stderr,
            readers,
        }
    }

    /// What it has seen so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        locked(&self.tally).clone()
    }

    /// Number of the last line so far.
    #[must_use]
    pub fn last(&self) -> u64 {
        locked(&self.tally).last()
    }

    /// Its stderr so far.
    #[must_use]
    pub fn complaints(&self) -> String {
        locked(&self.stderr).clone()
    }

    /// Measures from `began` how soon lines come again.
    pub fn mark(&self, began: Instant) {
        locked(&self.tally).mark(began);
    }

    /// Measures the longest pause of the node from now on.
    pub fn forget_pause(&self) {
        locked(&self.tally).forget_pause();
    }

    /// Waits until `look` is content with what was seen; tells whether it was within `deadline` and before the command ended.
    pub fn until(&mut self, deadline: Duration, look: impl Fn(&Tally) -> bool) -> bool {
        let began = Instant::now();
        loop {
            if look(&locked(&self.tally)) {
                return true;
            }
            if began.elapsed() >= deadline || !self.runs() {
                return look(&locked(&self.tally));
            }
            patience::for_a_while(Duration::from_millis(1), || {});
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// When the operating system does not say.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Waits for its end, and returns what it saw, its exit code and its stderr.
    ///
    /// # Panics
    /// When it does not end within `deadline`.
    pub fn finish(mut self, deadline: Duration) -> (Tally, Option<i32>, String) {
        let status = patience::until_within(deadline, "the end of a follower", || self.child.try_wait().expect("a child"));
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader of lines");
        }
        (self.tally(), status.code(), self.complaints())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
