//! Log lines as they are shown: `node | text` for people, one object each for programs.

use super::{Printer, json::FeedLine, text::escape, time::span};
use dora_remote_protocol::{
    log_line::{LogLevel, LogLine, LogSource, LogStream},
    name::MachineName,
};
use std::time::Duration;

/// Renders the log lines of one dataflow.
#[derive(Clone, Debug)]
pub struct Lines {
    printer: Printer,
    width: usize,
}

impl Lines {
    /// A renderer whose first column is as wide as the longest of these names.
    pub fn new<'a>(printer: &Printer, names: impl Iterator<Item = &'a str>) -> Self {
        Self {
            printer: printer.clone(),
            width: names.map(|name| name.chars().count()).max().unwrap_or(0).min(MAX_WIDTH),
        }
    }

    /// Adds one log line to `out`.
    pub fn log(&mut self, line: &LogLine, out: &mut String) {
        if self.printer.is_json() {
            out.push_str(&FeedLine::from(line).to_line());
            return;
        }
        let name = match &line.source {
            LogSource::Node(node) => escape(node.as_str()),
            LogSource::Machine | LogSource::Build => origin(&line.machine),
        };
        // A name that is wider than all before moves the column from here on.
        self.width = self.width.max(name.chars().count().min(MAX_WIDTH));
        let name = format!("{name:<width$}", width = self.width);
        let prefix = if self.printer.has_colour() {
            format!("\u{1b}[{}m{name} |\u{1b}[0m ", colour_of(name.trim_end()))
        } else {
            format!("{name} | ")
        };
        let level = match line.level {
            Some(level @ (LogLevel::Error | LogLevel::Warn)) if line.stream == LogStream::Message => {
                format!("{}: ", level.as_str())
            }
            _ => String::new(),
        };
        // Messages may have several lines, each of which must tell whose it is.
        for (index, text) in line.text.split('\n').enumerate() {
            out.push_str(&prefix);
            out.push_str(if index == 0 { &level } else { "" });
            out.push_str(&self.printer.foreign(text));
            out.push('\n');
        }
    }

    /// Adds a gap to `out`, where programs read; people are told on standard error.
    pub fn gap(&self, lines: u64, out: &mut String) {
        if self.printer.is_json() {
            out.push_str(&FeedLine::Gap { lines }.to_line());
        }
        let count = if lines == 0 {
            "lines".to_owned()
        } else {
            format!("{lines} lines")
        };
        self.printer.warn(&format!(
            "{count} are missing here; they were dropped before they could be read"
        ));
    }

    /// Tells that lines are shown more slowly than they come; programs read it in `out`.
    pub fn lag(&self, lines: u64, milliseconds: u64, out: &mut String) {
        if self.printer.is_json() {
            out.push_str(&FeedLine::Lag { lines, milliseconds }.to_line());
        }
        let behind = span(Duration::from_millis(milliseconds));
        self.printer.note(&format!("{lines} lines behind ({behind})"));
    }
}

/// What stands for lines that no node wrote.
fn origin(machine: &MachineName) -> String {
    format!("@{machine}")
}

/// One of the six colours that are readable on dark and on light, always the same one for a name.
fn colour_of(name: &str) -> u8 {
    let sum = name
        .bytes()
        .fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    31 + (sum % 6) as u8
}

/// Widest first column in characters.
const MAX_WIDTH: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    fn line(source: LogSource, stream: LogStream, level: Option<LogLevel>, text: &str) -> LogLine {
        LogLine {
            seq: 7,
            machine: "arm".parse().expect("a name"),
            source,
            stream,
            level,
            at_unix_ms: 1_000,
            text: text.to_owned(),
        }
    }

    fn node(name: &str) -> LogSource {
        LogSource::Node(name.parse().expect("a node"))
    }

    #[test]
    fn people_see_who_wrote_what() {
        let mut printer = Printer::new(Format::Table, false);
        printer.colour = false;
        printer.stdout_is_terminal = true;
        let mut lines = Lines::new(&printer, ["camera", "b"].into_iter());
        let mut out = String::new();
        lines.log(&line(node("b"), LogStream::Stdout, None, "one\u{7}"), &mut out);
        lines.log(
            &line(LogSource::Machine, LogStream::Message, Some(LogLevel::Warn), "low disk\n3 MB"),
            &mut out,
        );
        assert_eq!(out, "b      | one\\u{7}\n@arm   | warn: low disk\n@arm   | 3 MB\n");
    }

    #[test]
    fn programs_see_everything() {
        let mut lines = Lines::new(&Printer::new(Format::Json, false), std::iter::empty());
        let mut out = String::new();
        lines.log(
            &line(node("b"), LogStream::Stderr, Some(LogLevel::Error), "a\n\u{1b}"),
            &mut out,
        );
        assert_eq!(
            out,
            concat!(
                r#"{"type":"log","seq":7,"time":"1970-01-01T00:00:01.000Z","machine":"arm","source":"node","node":"b","#,
                r#""stream":"stderr","level":"error","text":"a\n\u001b"}"#,
                "\n"
            )
        );
    }
}
