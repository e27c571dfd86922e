//! One line of a node's JSONL file, as dora writes it, turned into a record.
//!
//! A node can write what it likes into its own lines; a line that is no JSON of dora's is passed on as it is.

use dora_remote_protocol::{
    limits::MAX_LOG_LINE_BYTES,
    log_line::{LogLevel, LogRecord, LogStream},
};
use jiff::Timestamp;
use serde::Deserialize;

#[derive(Deserialize)]
struct Written {
    ts: Option<String>,
    level: Option<String>,
    stream: Option<String>,
    msg: String,
}

/// Reads one line without its end. `before`: the time of the line before it, see [`time`].
pub(crate) fn parse(line: &[u8], offset: u64, before: u64, now: u64) -> LogRecord {
    let Some(written) = read(line) else {
        return LogRecord {
            offset,
            at_unix_ms: time(now, before, now),
            stream: LogStream::Stdout,
            level: None,
            text: cut(String::from_utf8_lossy(line).into_owned()),
        };
    };
    let at = written
        .ts
        .and_then(|ts| ts.parse::<Timestamp>().ok())
        .and_then(|ts| u64::try_from(ts.as_millisecond()).ok());
    LogRecord {
        offset,
        at_unix_ms: time(at.unwrap_or(now), before, now),
        stream: match written.stream.as_deref() {
            Some("stderr") => LogStream::Stderr,
            _ => LogStream::Stdout,
        },
        level: written.level.as_deref().and_then(level),
        text: cut(written.msg),
    }
}

/// The time of a line that says it was written at `said`, where the line before it has the time `before`, and the clock says `now`
/// (all in milliseconds since the Unix epoch). Nodes may say what they like, and dora's own times never run back, so that they stay
/// ahead once the clock was: a line is not later than now, nor earlier than the one before it. A line before it that is later than
/// now shows that the clock was set back; then times run back with it, once, and go on from there.
pub(crate) fn time(said: u64, before: u64, now: u64) -> u64 {
    let at = said.min(now);
    if before <= now { at.max(before) } else { at }
}

/// Whether this is a line as dora writes it.
pub(crate) fn is_whole(line: &[u8]) -> bool {
    read(line).is_some()
}

/// Reads a line. Where the disk was full in the middle of one, the next one stands behind its torn beginning: that one counts, and
/// the torn one was counted as lost by who wrote it. Within a string no object can begin, as its quotes are escaped.
fn read(line: &[u8]) -> Option<Written> {
    let mut rest = line;
    loop {
        if let Ok(written) = serde_json::from_slice(rest) {
            return Some(written);
        }
        let next = rest.get(1..)?.windows(2).position(|pair| pair == b"{\"")?;
        rest = &rest[next + 1..];
    }
}

fn level(text: &str) -> Option<LogLevel> {
    [
        LogLevel::Error,
        LogLevel::Warn,
        LogLevel::Info,
        LogLevel::Debug,
        LogLevel::Trace,
    ]
    .into_iter()
    .find(|level| level.as_str().eq_ignore_ascii_case(text))
}

fn cut(mut text: String) -> String {
    // One line is one line: a structured message may carry its own ends.
    while text.ends_with(['\n', '\r']) {
        text.pop();
    }
    if text.len() > MAX_LOG_LINE_BYTES {
        let mut end = MAX_LOG_LINE_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"ts":"1970-01-01T00:00:05.250Z","level":"stdout","node":"n","stream":"stderr","msg":"hi","target":null,"fields":null}"#;

    #[test]
    fn a_line_of_dora_is_understood() {
        let record = parse(LINE.as_bytes(), 7, 0, 10_000);
        assert_eq!((record.offset, record.at_unix_ms, record.level), (7, 5_250, None));
        assert_eq!((record.stream, record.text.as_str()), (LogStream::Stderr, "hi"));
        assert_eq!(
            parse(LINE.replace("\"stdout\"", "\"WARN\"").as_bytes(), 7, 0, 1).level,
            Some(LogLevel::Warn)
        );
    }

    #[test]
    fn times_never_run_ahead_and_run_back_only_with_the_clock() {
        assert_eq!(parse(LINE.as_bytes(), 0, 6_000, 10_000).at_unix_ms, 6_000);
        assert_eq!(parse(LINE.as_bytes(), 0, 0, 5_000).at_unix_ms, 5_000);
        assert_eq!(parse(b"not json", 0, 6_000, 10_000).at_unix_ms, 10_000);
        // The clock was set back.
        assert_eq!(parse(LINE.as_bytes(), 0, 9_000, 8_000).at_unix_ms, 5_250);
        assert_eq!(parse(b"not json", 0, 9_000, 8_000).at_unix_ms, 8_000);
    }

    #[test]
    fn a_clock_that_was_ahead_for_a_moment_does_not_stop_the_times_of_what_follows() {
        const YEAR: u64 = 365 * 86_400_000;
        const TODAY: u64 = 56 * YEAR;
        // Dora's clock does not run back: its times stay where the wrong clock was.
        let (mut before, mut dora) = (0, 0);
        let mut times = Vec::new();
        for now in [
            5,
            TODAY,
            TODAY + 50 * YEAR,
            TODAY + 1_000,
            TODAY + 2_000,
            TODAY - 10 * YEAR,
            TODAY + 3_000,
        ] {
            dora = now.max(dora + 1);
            before = time(dora, before, now);
            times.push(before);
        }
        let expected = [
            5,
            TODAY,
            TODAY + 50 * YEAR,
            TODAY + 1_000,
            TODAY + 2_000,
            TODAY - 10 * YEAR,
            TODAY + 3_000,
        ];
        assert_eq!(times, expected);
    }

    #[test]
    fn a_line_behind_a_torn_one_is_understood() {
        let torn = format!("{}{}{LINE}", &LINE[..20], &LINE[..90]);
        let record = parse(torn.as_bytes(), 7, 0, 10_000);
        assert_eq!((record.text.as_str(), record.at_unix_ms), ("hi", 5_250));
        assert!(is_whole(torn.as_bytes()) && !is_whole(&torn.as_bytes()[..100]));
    }

    #[test]
    fn anything_else_is_passed_on() {
        let record = parse(b"\xffnot json", 3, 0, 9);
        assert_eq!((record.text.as_str(), record.at_unix_ms), ("\u{fffd}not json", 9));
        assert_eq!(
            parse(&vec![b'x'; MAX_LOG_LINE_BYTES + 9], 0, 0, 0).text.len(),
            MAX_LOG_LINE_BYTES
        );
    }
}
