//! Log lines as they travel and as they are stored: column by column, then zstd where that pays. No I/O happens here.
//!
//! Neighbours resemble each other, so numbers and times stand as differences, and what rarely changes (machine, source, stream,
//! level) as runs. The texts come last, in one piece. Whoever passes lines on needs not unpack them.

mod columns;

use crate::{
    chunk::Chunk,
    limits::MAX_PACKED_BYTES,
    log_line::{LogLine, LogRecord},
};
use columns::{Reader, Shape};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Consecutive lines, packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// Number of the last line: its `seq` or its `offset`; 0 without lines. Holds only once the lines were unpacked.
    pub last: u64,
    /// Bytes before compression, at most [`MAX_PACKED_BYTES`]; 0 when they are not compressed.
    raw_bytes: u32,
    bytes: Chunk,
}

impl Packed {
    /// Packs lines as a daemon ships them. More than the bounds of [`Self::records`] cannot be unpacked again.
    #[must_use]
    pub fn of_records(records: &[LogRecord]) -> Self {
        let last = records.last().map_or(0, |record| record.offset);
        Self::compressed(last, columns::write(records))
    }

    /// Packs lines as a follower reads them. More than the bounds of [`Self::lines`] cannot be unpacked again.
    #[must_use]
    pub fn of_lines(lines: &[LogLine]) -> Self {
        let last = lines.last().map_or(0, |line| line.seq);
        Self::compressed(last, columns::write(lines))
    }

    /// Unpacks what [`Self::of_records`] packed. Takes at most [`MAX_PACKED_BYTES`] twice, and the records themselves, of which
    /// there are at most [`crate::limits::LOG_BATCH_LINES`].
    ///
    /// # Errors
    /// [`PackError`] for bytes that nobody packed.
    pub fn records(&self) -> Result<Vec<LogRecord>, PackError> {
        self.unpacked()
    }

    /// Unpacks what [`Self::of_lines`] packed, within the same bounds as [`Self::records`].
    ///
    /// # Errors
    /// [`PackError`] for bytes that nobody packed.
    pub fn lines(&self) -> Result<Vec<LogLine>, PackError> {
        self.unpacked()
    }

    /// Bytes that unpacking takes for the texts and their columns, by what the packed bytes say of themselves.
    #[must_use]
    pub fn raw_bytes(&self) -> usize {
        match self.raw_bytes {
            0 => self.bytes.0.len(),
            raw => raw as usize,
        }
    }

    fn compressed(last: u64, raw: Vec<u8>) -> Self {
        let compressed = u32::try_from(raw.len())
            .ok()
            .filter(|raw| *raw >= WORTHWHILE_BYTES)
            .and_then(|raw_bytes| Some((raw_bytes, zstd::bulk::compress(&raw, LEVEL).ok()?)))
            .filter(|(_, bytes)| bytes.len() < raw.len());
        // Where compression fails for want of memory, plain bytes still say the same.
        let (raw_bytes, bytes) = compressed.unwrap_or((0, raw));
        Self {
            last,
            raw_bytes,
            bytes: Chunk(bytes),
        }
    }

    fn unpacked<T: Shape>(&self) -> Result<Vec<T>, PackError> {
        let raw_bytes = self.raw_bytes();
        if raw_bytes > MAX_PACKED_BYTES {
            return Err(PackError::TooLong { bytes: raw_bytes });
        }
        let decompressed;
        let raw = if self.raw_bytes == 0 {
            &self.bytes.0
        } else {
            decompressed = zstd::bulk::decompress(&self.bytes.0, raw_bytes).map_err(|_| PackError::Zstd)?;
            &decompressed
        };
        if raw.len() != raw_bytes {
            return Err(PackError::Zstd);
        }
        Reader::new(raw).rows(self.last)
    }
}

/// Why bytes cannot be unpacked. Only a damaged or hostile sender makes such bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PackError {
    /// They say that they become too long.
    #[error("packed lines of {bytes} bytes, and at most {MAX_PACKED_BYTES} are allowed")]
    TooLong {
        /// Bytes before compression.
        bytes: usize,
    },
    /// They are no zstd, or not as long as they say.
    #[error("packed lines that zstd cannot decompress")]
    Zstd,
    /// A column is not what it should be.
    #[error("packed lines with a bad column of {column}")]
    Column {
        /// Which one.
        column: &'static str,
    },
}

/// zstd level: its default. Costs about 5 ns a byte of log lines, a third of what reading them out of their file does.
const LEVEL: i32 = 3;
/// Bytes below which zstd makes lines longer, not shorter.
const WORTHWHILE_BYTES: u32 = 96;

#[cfg(test)]
mod tests;
