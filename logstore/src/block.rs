//! How lines stand in a block: packed as they travel, so that most of them go out to readers as they are. A block is written once and
//! never changed.
//!
//! Every entry takes one sequence number, gaps too, so that a follower that was cut right behind a gap is not told of it twice.

use crate::{error::LogStoreError, filter::Filter};
use dora_remote_protocol::{
    ids::DataflowId,
    limits::MAX_LOG_LINE_BYTES,
    log_line::{LogLine, LogRecord, LogSource},
    name::MachineName,
    packed::Packed,
};
use serde::{Deserialize, Serialize};

/// Weight of entries after which a block is closed: bounds what a reader unpacks at once.
pub(crate) const BLOCK_BYTES: usize = 256 << 10;

/// What stands at one sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A line.
    Line(LogLine),
    /// Lines that the machine lost.
    Lost(Lost),
}

/// Lines that a machine lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lost {
    pub(crate) machine: MachineName,
    pub(crate) source: LogSource,
    pub(crate) lines: u64,
}

impl Entry {
    /// The entry of a line as it was shipped; text beyond the bound of a line is cut.
    pub(crate) fn line(seq: u64, machine: &MachineName, source: &LogSource, record: &LogRecord) -> Self {
        let mut end = record.text.len().min(MAX_LOG_LINE_BYTES);
        while !record.text.is_char_boundary(end) {
            end -= 1;
        }
        Self::Line(LogLine {
            seq,
            machine: machine.clone(),
            source: source.clone(),
            stream: record.stream,
            level: record.level,
            at_unix_ms: record.at_unix_ms,
            text: record.text[..end].to_owned(),
        })
    }

    /// What wrote it, or would have.
    pub(crate) const fn source(&self) -> &LogSource {
        match self {
            Self::Line(LogLine { source, .. }) | Self::Lost(Lost { source, .. }) => source,
        }
    }

    /// When it was written, by the clock of its machine; lost lines have no time.
    pub(crate) const fn at_unix_ms(&self) -> Option<u64> {
        match self {
            Self::Line(line) => Some(line.at_unix_ms),
            Self::Lost(_) => None,
        }
    }

    /// Lines that are gone once this entry is.
    pub(crate) const fn lines(&self) -> u64 {
        match self {
            Self::Line(_) => 1,
            Self::Lost(lost) => lost.lines,
        }
    }

    /// About how many bytes it takes in memory.
    pub(crate) const fn weight(&self) -> usize {
        const OVERHEAD: usize = 160;
        match self {
            Self::Line(line) => line.text.len() + OVERHEAD,
            Self::Lost(_) => OVERHEAD,
        }
    }
}

/// Neighbours in a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Segment {
    /// Lines, all of them messages of machines or none.
    Lines { of_machines: bool, lines: Packed },
    /// Lines that a machine lost.
    Lost(Lost),
}

impl Segment {
    /// The lines, if they can go out as they are: all are wanted, and they are neither more than `most` bytes nor so few that they
    /// had better go together with others. The first number of their block is `first_seq`.
    pub(crate) fn passed_on(&self, filter: &Filter, first_seq: u64, most: usize) -> Option<&Packed> {
        const FEW_BYTES: usize = 8 << 10;
        match self {
            Self::Lines { of_machines, lines } => {
                let fits = (FEW_BYTES..=most).contains(&lines.raw_bytes());
                (fits && filter.wants_all(first_seq, *of_machines)).then_some(lines)
            }
            Self::Lost(_) => None,
        }
    }
}

/// Packs entries into the bytes of a block.
pub(crate) fn pack(dataflow: DataflowId, first_seq: u64, entries: Vec<Entry>) -> Result<Vec<u8>, LogStoreError> {
    let mut segments = Vec::new();
    let mut run: Vec<LogLine> = Vec::new();
    let close = |run: &mut Vec<LogLine>, segments: &mut Vec<Segment>| {
        if let Some(first) = run.first() {
            segments.push(Segment::Lines {
                of_machines: first.source == LogSource::Machine,
                lines: Packed::of_lines(run),
            });
            run.clear();
        }
    };
    for entry in entries {
        match entry {
            Entry::Line(line) => {
                let is_message = |line: &LogLine| line.source == LogSource::Machine;
                if run.last().is_some_and(|last| is_message(last) != is_message(&line)) {
                    close(&mut run, &mut segments);
                }
                run.push(line);
            }
            Entry::Lost(lost) => {
                close(&mut run, &mut segments);
                segments.push(Segment::Lost(lost));
            }
        }
    }
    close(&mut run, &mut segments);
    postcard::to_stdvec(&segments).map_err(|error| damaged(dataflow, first_seq, &error))
}

/// The segments of a block.
pub(crate) fn segments(dataflow: DataflowId, first_seq: u64, bytes: &[u8]) -> Result<Vec<Segment>, LogStoreError> {
    postcard::from_bytes(bytes).map_err(|error| damaged(dataflow, first_seq, &error))
}

/// The entries of some segments.
pub(crate) fn entries(dataflow: DataflowId, first_seq: u64, segments: Vec<Segment>) -> Result<Vec<Entry>, LogStoreError> {
    let mut entries = Vec::new();
    for segment in segments {
        match segment {
            Segment::Lines { lines, .. } => {
                let lines = lines.lines().map_err(|error| damaged(dataflow, first_seq, &error))?;
                entries.extend(lines.into_iter().map(Entry::Line));
            }
            Segment::Lost(lost) => entries.push(Entry::Lost(lost)),
        }
    }
    Ok(entries)
}

fn damaged(dataflow: DataflowId, first_seq: u64, error: &dyn std::fmt::Display) -> LogStoreError {
    LogStoreError::Block {
        dataflow,
        first_seq,
        reason: error.to_string(),
    }
}
