//! The columns: how many lines, their numbers, times, machines and sources, streams and levels, lengths of texts, and the texts.
//!
//! Numbers are little-endian groups of seven bits, as postcard writes them. A run is a length above 0 and what all of its lines have.

use super::PackError;
use crate::{
    ids::NodeId,
    limits::LOG_BATCH_LINES,
    log_line::{LogLevel, LogLine, LogRecord, LogSource, LogStream},
    name::MachineName,
};

/// What both kinds of lines have.
pub(super) struct Cells<'a> {
    number: u64,
    at_unix_ms: u64,
    kind: Kind,
    text: &'a str,
}

/// How a line was written, and how much it matters.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind(LogStream, Option<LogLevel>);

/// Which machine wrote a line, and what there.
type Origin = (MachineName, LogSource);

/// One kind of line.
pub(super) trait Shape: Sized {
    /// What both kinds have.
    fn cells(&self) -> Cells<'_>;
    /// Where the line is from; none for lines of a batch, which says it once.
    fn origin(&self) -> Option<(&MachineName, &LogSource)>;
    /// Whether lines say where they are from.
    const HAS_ORIGIN: bool;
    /// The line; none when it wants an origin and there is none.
    fn build(cells: &Cells<'_>, origin: Option<&Origin>) -> Option<Self>;
}

impl Shape for LogRecord {
    const HAS_ORIGIN: bool = false;

    fn cells(&self) -> Cells<'_> {
        Cells {
            number: self.offset,
            at_unix_ms: self.at_unix_ms,
            kind: Kind(self.stream, self.level),
            text: &self.text,
        }
    }

    fn origin(&self) -> Option<(&MachineName, &LogSource)> {
        None
    }

    fn build(cells: &Cells<'_>, _: Option<&Origin>) -> Option<Self> {
        Some(Self {
            offset: cells.number,
            at_unix_ms: cells.at_unix_ms,
            stream: cells.kind.0,
            level: cells.kind.1,
            text: cells.text.to_owned(),
        })
    }
}

impl Shape for LogLine {
    const HAS_ORIGIN: bool = true;

    fn cells(&self) -> Cells<'_> {
        Cells {
            number: self.seq,
            at_unix_ms: self.at_unix_ms,
            kind: Kind(self.stream, self.level),
            text: &self.text,
        }
    }

    fn origin(&self) -> Option<(&MachineName, &LogSource)> {
        Some((&self.machine, &self.source))
    }

    fn build(cells: &Cells<'_>, origin: Option<&Origin>) -> Option<Self> {
        let (machine, source) = origin?.clone();
        Some(Self {
            seq: cells.number,
            machine,
            source,
            stream: cells.kind.0,
            level: cells.kind.1,
            at_unix_ms: cells.at_unix_ms,
            text: cells.text.to_owned(),
        })
    }
}

/// Writes all columns.
pub(super) fn write<T: Shape>(rows: &[T]) -> Vec<u8> {
    let texts: usize = rows.iter().map(|row| row.cells().text.len()).sum();
    let mut raw = Vec::with_capacity(texts + 8 * rows.len() + 64);
    put(&mut raw, rows.len() as u64);
    let mut before = 0_u64;
    for row in rows {
        let number = row.cells().number;
        put(&mut raw, number.wrapping_sub(before));
        before = number;
    }
    let mut before = 0_u64;
    for row in rows {
        let at = row.cells().at_unix_ms;
        put(&mut raw, zigzag(at.wrapping_sub(before).cast_signed()));
        before = at;
    }
    if T::HAS_ORIGIN {
        for run in rows.chunk_by(|one, next| one.origin() == next.origin()) {
            put(&mut raw, run.len() as u64);
            if let Some((machine, source)) = run.first().and_then(T::origin) {
                put_text(&mut raw, machine.as_str());
                match source {
                    LogSource::Node(node) => {
                        raw.push(0);
                        put_text(&mut raw, node.as_str());
                    }
                    LogSource::Machine => raw.push(1),
                    LogSource::Build => raw.push(2),
                }
            }
        }
    }
    for run in rows.chunk_by(|one, next| one.cells().kind == next.cells().kind) {
        put(&mut raw, run.len() as u64);
        raw.extend(run.first().map(|row| row.cells().kind.number()));
    }
    for row in rows {
        put(&mut raw, row.cells().text.len() as u64);
    }
    for row in rows {
        raw.extend_from_slice(row.cells().text.as_bytes());
    }
    raw
}

fn put(raw: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        raw.push(value as u8 | 0x80);
        value >>= 7;
    }
    raw.push(value as u8);
}

fn put_text(raw: &mut Vec<u8>, text: &str) {
    put(raw, text.len() as u64);
    raw.extend_from_slice(text.as_bytes());
}

/// Small numbers of either sign become small numbers.
const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Reads columns; every length is held against what is there before memory is taken.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(raw: &'a [u8]) -> Self {
        Self { rest: raw }
    }

    /// All lines, of which the last one has this number.
    pub(super) fn rows<T: Shape>(mut self, last: u64) -> Result<Vec<T>, PackError> {
        let count = self.length("lines")?;
        // Each line takes at least one byte in each of three columns.
        if count > LOG_BATCH_LINES || count > self.rest.len() / 3 {
            return Err(bad("lines"));
        }
        let mut numbers = Vec::with_capacity(count);
        let mut number = 0_u64;
        for _ in 0..count {
            number = number.wrapping_add(self.number("numbers")?);
            numbers.push(number);
        }
        if number != last {
            return Err(bad("numbers"));
        }
        let mut times = Vec::with_capacity(count);
        let mut at = 0_u64;
        for _ in 0..count {
            at = at.wrapping_add(unzigzag(self.number("times")?).cast_unsigned());
            times.push(at);
        }
        let mut origins = Vec::new();
        if T::HAS_ORIGIN {
            self.runs(count, "sources", &mut origins, Self::origin)?;
        }
        let mut kinds = Vec::new();
        self.runs(count, "kinds", &mut kinds, Self::kind)?;
        let mut lengths = Vec::with_capacity(count);
        for _ in 0..count {
            lengths.push(self.length("lengths")?);
        }
        let mut texts = std::str::from_utf8(self.rest).map_err(|_| bad("texts"))?;
        let (mut origins, mut kinds) = (Runs::new(&origins), Runs::new(&kinds));
        let mut rows = Vec::with_capacity(count);
        for ((number, at_unix_ms), length) in numbers.into_iter().zip(times).zip(lengths) {
            let (text, rest) = texts.split_at_checked(length).ok_or_else(|| bad("texts"))?;
            texts = rest;
            let cells = Cells {
                number,
                at_unix_ms,
                kind: *kinds.next().ok_or_else(|| bad("kinds"))?,
                text,
            };
            rows.push(T::build(&cells, origins.next()).ok_or_else(|| bad("sources"))?);
        }
        if texts.is_empty() { Ok(rows) } else { Err(bad("texts")) }
    }

    /// Runs that have `count` lines together.
    fn runs<V>(
        &mut self,
        count: usize,
        column: &'static str,
        runs: &mut Vec<(usize, V)>,
        value: impl Fn(&mut Self) -> Result<V, PackError>,
    ) -> Result<(), PackError> {
        let mut left = count;
        while left > 0 {
            let length = self.length(column)?;
            if length == 0 || length > left {
                return Err(bad(column));
            }
            left -= length;
            runs.push((length, value(self)?));
        }
        Ok(())
    }

    fn origin(&mut self) -> Result<Origin, PackError> {
        let machine = self.text("sources")?.parse().map_err(|_| bad("sources"))?;
        let source = match self.byte("sources")? {
            0 => LogSource::Node(self.text("sources")?.parse::<NodeId>().map_err(|_| bad("sources"))?),
            1 => LogSource::Machine,
            2 => LogSource::Build,
            _ => return Err(bad("sources")),
        };
        Ok((machine, source))
    }

    fn kind(&mut self) -> Result<Kind, PackError> {
        let number = self.byte("kinds")?;
        Kind::of(number).ok_or_else(|| bad("kinds"))
    }

    fn text(&mut self, column: &'static str) -> Result<&'a str, PackError> {
        let length = self.length(column)?;
        let (text, rest) = self.rest.split_at_checked(length).ok_or_else(|| bad(column))?;
        self.rest = rest;
        std::str::from_utf8(text).map_err(|_| bad(column))
    }

    fn length(&mut self, column: &'static str) -> Result<usize, PackError> {
        usize::try_from(self.number(column)?).map_err(|_| bad(column))
    }

    fn number(&mut self, column: &'static str) -> Result<u64, PackError> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte(column)?;
            let part = u64::from(byte & 0x7f);
            if (part << shift) >> shift != part {
                return Err(bad(column));
            }
            value |= part << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(bad(column))
    }

    fn byte(&mut self, column: &'static str) -> Result<u8, PackError> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| bad(column))?;
        self.rest = rest;
        Ok(*first)
    }
}

/// The values of runs, line by line.
struct Runs<'a, V> {
    runs: std::slice::Iter<'a, (usize, V)>,
    value: Option<&'a V>,
    left: usize,
}

impl<'a, V> Runs<'a, V> {
    fn new(runs: &'a [(usize, V)]) -> Self {
        Self {
            runs: runs.iter(),
            value: None,
            left: 0,
        }
    }

    fn next(&mut self) -> Option<&'a V> {
        if self.left == 0 {
            let (length, value) = self.runs.next()?;
            (self.left, self.value) = (*length, Some(value));
        }
        self.left -= 1;
        self.value
    }
}

/// Streams and levels by their numbers.
const STREAMS: [LogStream; 3] = [LogStream::Stdout, LogStream::Stderr, LogStream::Message];
const LEVELS: [Option<LogLevel>; 6] = [
    None,
    Some(LogLevel::Error),
    Some(LogLevel::Warn),
    Some(LogLevel::Info),
    Some(LogLevel::Debug),
    Some(LogLevel::Trace),
];

impl Kind {
    const fn number(self) -> u8 {
        let stream = match self.0 {
            LogStream::Stdout => 0,
            LogStream::Stderr => 1,
            LogStream::Message => 2,
        };
        let level = match self.1 {
            None => 0,
            Some(LogLevel::Error) => 1,
            Some(LogLevel::Warn) => 2,
            Some(LogLevel::Info) => 3,
            Some(LogLevel::Debug) => 4,
            Some(LogLevel::Trace) => 5,
        };
        level * STREAMS.len() as u8 + stream
    }

    fn of(number: u8) -> Option<Self> {
        let (level, stream) = (usize::from(number) / STREAMS.len(), usize::from(number) % STREAMS.len());
        Some(Self(STREAMS[stream], *LEVELS.get(level)?))
    }
}

const fn bad(column: &'static str) -> PackError {
    PackError::Column { column }
}
