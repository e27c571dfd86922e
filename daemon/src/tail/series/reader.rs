//! Reads lines out of the files of a series.

use crate::{records::LogCursor, tail::line};
use dora_remote_protocol::{
    limits::{LOG_BATCH_BYTES, LOG_BATCH_LINES},
    log_line::LogRecord,
};
use std::{fs::File, io, os::unix::fs::FileExt};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
/// Longest line of a file: a line of output of 1 MiB whose every character is escaped. A longer one is passed on in pieces.
const MAX_WRITTEN_LINE: usize = 8 << 20;

/// Gathers the records of one batch.
pub(super) struct Reader {
    pub(super) records: Vec<LogRecord>,
    bytes: usize,
    pub(super) offset: u64,
    pub(super) at: u64,
    now: u64,
    /// Whether a torn line was counted as lost already.
    torn_is_lost: bool,
}

impl Reader {
    /// Goes on at a cursor.
    pub(super) fn new(cursor: &LogCursor, now: u64, torn_is_lost: bool) -> Self {
        Self {
            records: Vec::new(),
            bytes: 0,
            offset: cursor.offset,
            at: cursor.at_unix_ms,
            now,
            torn_is_lost,
        }
    }

    /// Reads lines of one file from `position` on that end at or before `until`, until the batch is full or the file is at its end.
    /// Returns the position behind the last line.
    pub(super) fn read_file(&mut self, file: &File, mut position: u64, until: u64, complete: bool) -> io::Result<u64> {
        let mut wanted = READ_BYTES;
        while !self.is_full() {
            let chunk = read_at(file, position, wanted)?;
            let at_end = chunk.len() < wanted;
            let mut taken = 0;
            while let Some(end) = chunk[taken..].iter().position(|byte| *byte == b'\n') {
                if position + (taken + end + 1) as u64 > until {
                    return Ok(position + taken as u64);
                }
                self.push(&chunk[taken..taken + end], end as u64 + 1);
                taken += end + 1;
                if self.is_full() {
                    break;
                }
            }
            position += taken as u64;
            if taken > 0 {
                wanted = READ_BYTES;
                continue;
            }
            if chunk.is_empty() || (at_end && !complete) {
                break;
            }
            if position + chunk.len() as u64 > until {
                break;
            }
            if at_end && self.torn_is_lost && !line::is_whole(&chunk) {
                self.offset += chunk.len() as u64;
                position += chunk.len() as u64;
            } else if at_end || wanted >= MAX_WRITTEN_LINE {
                self.push(&chunk, chunk.len() as u64);
                position += chunk.len() as u64;
            } else {
                wanted = MAX_WRITTEN_LINE;
            }
        }
        Ok(position)
    }

    fn push(&mut self, written: &[u8], bytes: u64) {
        self.offset += bytes;
        let written = written.strip_suffix(b"\r").unwrap_or(written);
        let record = line::parse(written, self.offset, self.at, self.now);
        self.at = record.at_unix_ms;
        self.bytes += record.text.len();
        self.records.push(record);
    }

    pub(super) fn is_full(&self) -> bool {
        self.records.len() >= LOG_BATCH_LINES || self.bytes >= LOG_BATCH_BYTES
    }
}

/// Lines of a file from `position` on.
pub(super) fn count_lines(file: &File, mut position: u64) -> io::Result<u64> {
    let mut lines = 0;
    loop {
        let chunk = read_at(file, position, READ_BYTES)?;
        if chunk.is_empty() {
            return Ok(lines);
        }
        position += chunk.len() as u64;
        lines += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
    }
}

/// Reads up to `wanted` bytes; fewer only at the end of the file.
pub(super) fn read_at(file: &File, position: u64, wanted: usize) -> io::Result<Vec<u8>> {
    let left = file.metadata()?.len().saturating_sub(position);
    let mut buffer = vec![0; wanted.min(usize::try_from(left).unwrap_or(usize::MAX))];
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}
