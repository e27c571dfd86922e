//! The printer: the one place that writes to standard output, and to standard error for people.
//!
//! Standard output carries data and nothing else, standard error what people want to know besides. What a command wants
//! shown arrives as a value; tables, colours and JSON are made here and below.

pub mod audit;
pub mod json;
pub mod lines;
pub mod progress;
pub mod table;
pub mod text;
pub mod time;

use crate::{exit::Exit, failure::Failure};
use serde::Serialize;
use std::{
    env,
    io::{self, ErrorKind, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
};
use table::Table;
use thiserror::Error;

/// How data is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people: tables and lines.
    #[default]
    Table,
    /// For programs: one JSON document, or one JSON object per line where a command follows something.
    Json,
}

/// Writes for one command.
#[derive(Clone, Debug)]
pub struct Printer {
    format: Format,
    quiet: bool,
    stdout_is_terminal: bool,
    stderr_is_terminal: bool,
    colour: bool,
}

/// Why output ended.
#[derive(Debug, Error)]
pub enum OutputError {
    /// The reader went away.
    #[error("the reader of the output went away")]
    Closed,
    /// It could not be written.
    #[error("cannot write the output")]
    Write(#[source] io::Error),
}

impl Printer {
    /// A printer for this process.
    #[must_use]
    pub fn new(format: Format, quiet: bool) -> Self {
        let stdout_is_terminal = io::stdout().is_terminal();
        let allowed = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            format,
            quiet,
            stdout_is_terminal,
            stderr_is_terminal: io::stderr().is_terminal(),
            colour: stdout_is_terminal && allowed && !dumb && format == Format::Table,
        }
    }

    /// How data is written.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Whether JSON is written.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether people asked for silence about everything but failures.
    #[must_use]
    pub const fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether data may carry colour.
    #[must_use]
    pub const fn has_colour(&self) -> bool {
        self.colour
    }

    /// Whether a line on standard error may move.
    #[must_use]
    pub const fn may_move(&self) -> bool {
        self.stderr_is_terminal && !self.quiet
    }

    /// Whether a person can be asked: standard error shows the question and standard input has the answer.
    #[must_use]
    pub fn may_ask(&self) -> bool {
        self.stderr_is_terminal && io::stdin().is_terminal()
    }

    /// Makes foreign text safe to show as data: on a terminal, controls are escaped; elsewhere bytes stay as they are.
    #[must_use]
    pub fn foreign(&self, text: &str) -> String {
        if self.stdout_is_terminal {
            text::escape(text)
        } else {
            text.to_owned()
        }
    }

    /// Writes one JSON document with a line end.
    ///
    /// # Errors
    /// [`OutputError`] when it cannot be written.
    pub fn document<T: Serialize>(&self, value: &T) -> Result<(), OutputError> {
        let mut text = serde_json::to_string_pretty(value).map_err(|error| OutputError::Write(error.into()))?;
        text.push('\n');
        write_stdout(&text)
    }

    /// Writes a table.
    ///
    /// # Errors
    /// [`OutputError`] when it cannot be written.
    pub fn table(&self, table: &Table) -> Result<(), OutputError> {
        write_stdout(&table.render(self))
    }

    /// Writes one line of data.
    ///
    /// # Errors
    /// [`OutputError`] when it cannot be written.
    pub fn line(&self, text: &str) -> Result<(), OutputError> {
        write_stdout(&format!("{text}\n"))
    }

    /// Writes a chunk of a feed on a thread of its own, so that a reader that does not read does not stop the connection.
    ///
    /// # Errors
    /// [`OutputError`] when it cannot be written.
    pub async fn chunk(&self, chunk: String) -> Result<(), OutputError> {
        if chunk.is_empty() {
            return Ok(());
        }
        match tokio::task::spawn_blocking(move || write_stdout(&chunk)).await {
            Ok(done) => done,
            Err(error) => Err(OutputError::Write(io::Error::other(error))),
        }
    }

    /// Tells people something; silent with `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            write_stderr(&format!("{}\n", text::escape_lines(text)));
        }
    }

    /// Tells a person who looks something that no program needs: like [`Self::note`], and only on a terminal.
    pub fn aside(&self, text: &str) {
        if self.stderr_is_terminal {
            self.note(text);
        }
    }

    /// Warns people, with `--quiet` too.
    pub fn warn(&self, text: &str) {
        write_stderr(&format!("warning: {}\n", text::escape_lines(text)));
    }

    /// Tells why a command failed.
    pub fn failure(&self, failure: &Failure) {
        if !failure.message.is_empty() {
            write_stderr(&render_failure(failure));
        }
    }

    /// Asks a person; the answer stands on the same line.
    pub(crate) fn question(&self, text: &str) {
        write_stderr(&format!("{} ", text::escape_lines(text)));
    }

    /// Rewrites the moving line on standard error; an empty text removes it.
    pub(crate) fn moving_line(&self, text: &str) {
        if self.may_move() {
            clear_moving_line();
            IS_MOVING.store(!text.is_empty(), Ordering::Relaxed);
            // Nobody is left to tell when standard error cannot be written.
            let _ = io::stderr().lock().write_all(text::escape(text).as_bytes());
        }
    }
}

fn render_failure(failure: &Failure) -> String {
    let mut text = format!("error: {}\n", text::escape_lines(&failure.message));
    for cause in &failure.causes {
        text.push_str(&format!(
            "  cause: {}\n",
            text::escape_lines(cause).replace('\n', "\n         ")
        ));
    }
    let next = failure.next_step();
    if !next.is_empty() {
        text.push_str(&format!("\nhint: {}\n", text::escape_lines(&next)));
    }
    text
}

fn write_stdout(text: &str) -> Result<(), OutputError> {
    clear_moving_line();
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => OutputError::Closed,
            _ => OutputError::Write(error),
        })
}

/// Whether a moving line stands on standard error, which whatever is written next takes away.
static IS_MOVING: AtomicBool = AtomicBool::new(false);

fn clear_moving_line() {
    if IS_MOVING.swap(false, Ordering::Relaxed) {
        let _ = io::stderr().lock().write_all(b"\r\x1b[2K");
    }
}

fn write_stderr(text: &str) {
    clear_moving_line();
    // Nobody is left to tell when standard error cannot be written.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Writes what clap has to say (help and version to standard output, mistakes to standard error) and gives the exit code.
#[must_use]
pub fn show_clap(error: &clap::Error) -> Exit {
    // A reader that went away is no failure, and nobody is left to tell when standard error is closed.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Ok }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_from_what_happened_to_what_next() {
        let failure = Failure::new(Exit::Failed, "cannot stop `a`")
            .cause("first\nsecond")
            .cause("deeper\u{1b}[31m")
            .hint("try again");
        assert_eq!(
            render_failure(&failure),
            "error: cannot stop `a`\n  cause: first\n         second\n  cause: deeper\n\nhint: try again\n"
        );
    }
}
