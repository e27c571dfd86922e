//! How lines stand in a block: postcard, compressed with zstd. A block is written once and never changed.
//!
//! Every entry takes one sequence number, gaps too, so that a follower that was cut right behind a gap is not told of it twice.

use crate::error::LogStoreError;
use dora_remote_protocol::{
    ids::DataflowId,
    limits::MAX_LOG_LINE_BYTES,
    log_line::{LogItem, LogLevel, LogLine, LogRecord, LogSource, LogStream},
    name::MachineName,
};
use serde::{Deserialize, Serialize};

/// Bytes of text after which a block is closed: bounds what a reader decompresses at once.
pub(crate) const BLOCK_BYTES: usize = 256 << 10;

/// zstd level: 3 is its default, and log lines shrink about tenfold with it.
const LEVEL: i32 = 3;

/// What stands at one sequence number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// A line.
    Line {
        machine: MachineName,
        source: LogSource,
        stream: LogStream,
        level: Option<LogLevel>,
        at_unix_ms: u64,
        text: String,
    },
    /// Lines that the machine lost.
    Lost {
        machine: MachineName,
        source: LogSource,
        lines: u64,
    },
}

impl Entry {
    /// The entry of a line as it was shipped; text beyond the bound of a line is cut.
    pub(crate) fn line(machine: &MachineName, source: &LogSource, record: &LogRecord) -> Self {
        let mut end = record.text.len().min(MAX_LOG_LINE_BYTES);
        while !record.text.is_char_boundary(end) {
            end -= 1;
        }
        Self::Line {
            machine: machine.clone(),
            source: source.clone(),
            stream: record.stream,
            level: record.level,
            at_unix_ms: record.at_unix_ms,
            text: record.text[..end].to_owned(),
        }
    }

    /// What wrote it, or would have.
    pub(crate) const fn source(&self) -> &LogSource {
        match self {
            Self::Line { source, .. } | Self::Lost { source, .. } => source,
        }
    }

    /// When it was written, by the clock of its machine; lost lines have no time.
    pub(crate) const fn at_unix_ms(&self) -> Option<u64> {
        match self {
            Self::Line { at_unix_ms, .. } => Some(*at_unix_ms),
            Self::Lost { .. } => None,
        }
    }

    /// Lines that are gone once this entry is.
    pub(crate) const fn lines(&self) -> u64 {
        match self {
            Self::Line { .. } => 1,
            Self::Lost { lines, .. } => *lines,
        }
    }

    /// About how many bytes it takes in memory and on the wire.
    pub(crate) const fn weight(&self) -> usize {
        const OVERHEAD: usize = 160;
        match self {
            Self::Line { text, .. } => text.len() + OVERHEAD,
            Self::Lost { .. } => OVERHEAD,
        }
    }

    /// Appends the entry to `items` as the one with the number `seq`.
    pub(crate) fn push_to(self, items: &mut Vec<LogItem>, seq: u64) {
        match self {
            Self::Line {
                machine,
                source,
                stream,
                level,
                at_unix_ms,
                text,
            } => {
                let line = LogLine {
                    seq,
                    machine,
                    source,
                    stream,
                    level,
                    at_unix_ms,
                    text,
                };
                if let Some(LogItem::Lines(lines)) = items.last_mut() {
                    lines.push(line);
                } else {
                    items.push(LogItem::Lines(vec![line]));
                }
            }
            Self::Lost { lines, .. } => items.push(LogItem::Gap { lines, next_after: seq }),
        }
    }
}

/// A block as it is stored: bytes before compression, and the compressed bytes.
pub(crate) struct Packed {
    pub(crate) raw_bytes: u64,
    pub(crate) bytes: Vec<u8>,
}

/// Packs entries into a block.
pub(crate) fn pack(dataflow: DataflowId, first_seq: u64, entries: &[Entry]) -> Result<Packed, LogStoreError> {
    let fail = |reason: String| LogStoreError::Block {
        dataflow,
        first_seq,
        reason,
    };
    let raw = postcard::to_stdvec(entries).map_err(|error| fail(error.to_string()))?;
    let bytes = zstd::bulk::compress(&raw, LEVEL).map_err(|error| fail(error.to_string()))?;
    Ok(Packed {
        raw_bytes: raw.len() as u64,
        bytes,
    })
}

/// Unpacks a block that has `raw_bytes` before compression.
pub(crate) fn unpack(dataflow: DataflowId, first_seq: u64, raw_bytes: u64, bytes: &[u8]) -> Result<Vec<Entry>, LogStoreError> {
    let fail = |reason: String| LogStoreError::Block {
        dataflow,
        first_seq,
        reason,
    };
    let capacity = usize::try_from(raw_bytes).map_err(|error| fail(error.to_string()))?;
    let raw = zstd::bulk::decompress(bytes, capacity).map_err(|error| fail(error.to_string()))?;
    postcard::from_bytes(&raw).map_err(|error| fail(error.to_string()))
}
