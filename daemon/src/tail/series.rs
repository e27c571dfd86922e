//! The output of one node: a JSONL file that grows, is renamed and is begun anew, read line by line without a gap or a double.
//!
//! Files are held open from the moment they are seen, so that a rotation cannot take away what was not read yet. Offsets count
//! bytes over all files of the series.

use super::line;
use crate::records::{FilePlace, LogCursor};
use dora_remote_protocol::{
    limits::{LOG_BATCH_BYTES, LOG_BATCH_LINES},
    log_line::LogRecord,
};
use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

/// Files of one series that are held open at most; older ones beyond that are dropped, and their lines counted as lost.
const MAX_HELD: usize = 16;
/// Rotated files that are looked for beside the current one.
const MAX_ROTATED: usize = 100;
/// Looks at the series that is being rotated meanwhile, before the next poll tries again.
const LOOKS: usize = 5;
/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
/// Longest line of a file: a line of output of 1 MiB whose every character is escaped. A longer one is passed on in pieces.
const MAX_WRITTEN_LINE: usize = 8 << 20;
/// Bytes at the head of a file that tell it from a later one with the same inode.
const HEAD_BYTES: u64 = 256;

/// A series of files and how far it was read and acknowledged.
#[derive(Debug)]
pub(crate) struct Series {
    path: PathBuf,
    /// Oldest first; the first is the one being read, the last the current one.
    files: VecDeque<Held>,
    cursor: LogCursor,
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Held {
    file: File,
    inode: u64,
    /// Bytes that are acknowledged.
    position: u64,
    /// Lines that were lost before its first one.
    lost_before: u64,
}

/// What an acknowledgement of the batch under way will mean.
#[derive(Debug)]
struct Pending {
    files_done: usize,
    position: u64,
    offset: u64,
    at_unix_ms: u64,
}

/// The next lines of a series.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lines {
    /// Lines that are lost before these.
    pub(crate) lost_before: u64,
    /// At least one.
    pub(crate) records: Vec<LogRecord>,
    /// Whether there was no room for more.
    pub(crate) is_full: bool,
}

impl Series {
    /// A series that goes on at a stored cursor, or begins.
    pub(crate) fn new(path: PathBuf, cursor: Option<LogCursor>) -> Self {
        Self {
            path,
            files: VecDeque::new(),
            cursor: cursor.unwrap_or_default(),
            pending: None,
        }
    }

    /// How far lines were acknowledged.
    pub(crate) fn cursor(&self) -> &LogCursor {
        &self.cursor
    }

    /// Epoch, and offset behind the last byte that was written.
    pub(crate) fn end(&self) -> io::Result<(u64, u64)> {
        let mut offset = self.cursor.offset;
        for held in &self.files {
            offset += held.file.metadata()?.len().saturating_sub(held.position);
        }
        Ok((self.cursor.epoch, offset))
    }

    /// Whether a batch is under way.
    pub(crate) fn in_flight(&self) -> bool {
        self.pending.is_some()
    }

    /// Looks for new files and for rotations. Cheap when there are none.
    pub(crate) fn look(&mut self, now: u64) -> io::Result<()> {
        let current = match std::fs::metadata(&self.path) {
            Ok(meta) => meta.ino(),
            // Between a rename and the first line of the next file, there is none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.files.back().is_some_and(|held| held.inode == current) {
            return self.check_truncated(now);
        }
        for _ in 0..LOOKS {
            let found = listing(&self.path)?;
            let steady = std::fs::metadata(&self.path).is_ok_and(|meta| found.last().is_some_and(|last| last.1 == meta.ino()));
            if steady {
                return self.take(found, now);
            }
        }
        Ok(())
    }

    /// The next lines after the acknowledged ones. `complete`: nothing will be appended any more, so that a torn last line is
    /// taken as it is. `now` in milliseconds since the Unix epoch.
    pub(crate) fn read(&mut self, complete: bool, now: u64) -> io::Result<Option<Lines>> {
        if self.pending.is_some() {
            return Ok(None);
        }
        let mut reader = Reader {
            records: Vec::new(),
            bytes: 0,
            offset: self.cursor.offset,
            at: self.cursor.at_unix_ms,
            now,
        };
        let mut lost_before = 0;
        loop {
            let last = self.files.len() <= 1;
            let Some(held) = self.files.front() else {
                return Ok(None);
            };
            if held.position == 0 {
                lost_before += held.lost_before;
            }
            let position = reader.read_file(held, !last || complete)?;
            if !reader.records.is_empty() {
                let done = !last && position >= held.file.metadata()?.len();
                self.pending = Some(Pending {
                    files_done: usize::from(done),
                    position: if done { 0 } else { position },
                    offset: reader.offset,
                    at_unix_ms: reader.at,
                });
                return Ok(Some(Lines {
                    lost_before,
                    is_full: reader.is_full(),
                    records: reader.records,
                }));
            }
            if last {
                return Ok(None);
            }
            self.files.pop_front();
        }
    }

    /// The batch under way is stored where it belongs.
    pub(crate) fn acked(&mut self) -> io::Result<()> {
        let Some(pending) = self.pending.take() else {
            return Ok(());
        };
        self.files.drain(..pending.files_done);
        self.cursor.offset = pending.offset;
        self.cursor.at_unix_ms = pending.at_unix_ms;
        if let Some(held) = self.files.front_mut() {
            held.position = pending.position;
            let head_bytes = held.position.min(HEAD_BYTES);
            self.cursor.place = Some(FilePlace {
                inode: held.inode,
                position: held.position,
                head: head(&held.file, head_bytes)?,
                head_bytes,
            });
        }
        Ok(())
    }

    /// Whether everything that was written is acknowledged.
    pub(crate) fn is_drained(&self) -> io::Result<bool> {
        Ok(match (&self.pending, self.files.len(), self.files.front()) {
            (None, 0, _) => true,
            (None, 1, Some(held)) => held.position >= held.file.metadata()?.len(),
            _ => false,
        })
    }

    /// Takes in a listing, oldest first, of which the last is the current file.
    fn take(&mut self, found: Vec<(File, u64)>, now: u64) -> io::Result<()> {
        let mut lost = 0;
        let (newer, mut first_position) = if let Some(back) = self.files.back() {
            // Files behind the one that was current are new; if it is gone, all are, and others may have come and gone.
            match found.iter().position(|(_, inode)| *inode == back.inode) {
                Some(at) => (at + 1, 0),
                None => {
                    lost = u64::from(found.len() > MAX_ROTATED);
                    (0, 0)
                }
            }
        } else if let Some(place) = self.cursor.place.clone() {
            if let Some(at) = find(&found, &place)? {
                (at, place.position)
            } else {
                // What was read last is gone, and nobody can tell what came after it: offsets start over.
                lost = 1;
                self.start_over(now);
                (0, 0)
            }
        } else {
            (0, 0)
        };
        for (file, inode) in found.into_iter().skip(newer) {
            self.files.push_back(Held {
                file,
                inode,
                position: std::mem::take(&mut first_position),
                lost_before: std::mem::take(&mut lost),
            });
        }
        self.drop_surplus()
    }

    /// Keeps the number of held files bounded: those right behind the one being read go first.
    fn drop_surplus(&mut self) -> io::Result<()> {
        let kept = self.pending.as_ref().map_or(0, |pending| pending.files_done) + 1;
        while self.files.len() > MAX_HELD.max(kept + 1) {
            let Some(dropped) = self.files.remove(kept) else {
                break;
            };
            let lost = dropped.lost_before + count_lines(&dropped.file)?;
            if let Some(next) = self.files.get_mut(kept) {
                next.lost_before += lost;
            }
        }
        Ok(())
    }

    fn check_truncated(&mut self, now: u64) -> io::Result<()> {
        // Only dora writes these files, and it never shortens them; somebody else did.
        if let (None, 1, Some(held)) = (&self.pending, self.files.len(), self.files.front_mut())
            && held.file.metadata()?.len() < held.position
        {
            held.position = 0;
            held.lost_before = 1;
            self.start_over(now);
        }
        Ok(())
    }

    fn start_over(&mut self, now: u64) {
        self.cursor = LogCursor {
            epoch: now.max(self.cursor.epoch + 1),
            at_unix_ms: self.cursor.at_unix_ms,
            ..LogCursor::default()
        };
    }
}

/// Gathers the records of one batch.
struct Reader {
    records: Vec<LogRecord>,
    bytes: usize,
    offset: u64,
    at: u64,
    now: u64,
}

impl Reader {
    /// Reads lines of one file until the batch is full or the file is at its end; returns the position behind the last line.
    fn read_file(&mut self, held: &Held, complete: bool) -> io::Result<u64> {
        let mut position = held.position;
        let mut wanted = READ_BYTES;
        while !self.is_full() {
            let chunk = read_at(&held.file, position, wanted)?;
            let at_end = chunk.len() < wanted;
            let mut taken = 0;
            while let Some(end) = chunk[taken..].iter().position(|byte| *byte == b'\n') {
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
            if at_end || wanted >= MAX_WRITTEN_LINE {
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

    fn is_full(&self) -> bool {
        self.records.len() >= LOG_BATCH_LINES || self.bytes >= LOG_BATCH_BYTES
    }
}

/// All files of a series with their inodes, oldest first.
fn listing(path: &Path) -> io::Result<Vec<(File, u64)>> {
    let mut found = Vec::new();
    for number in 0..=MAX_ROTATED {
        let path = if number == 0 { path.to_owned() } else { rotated(path, number) };
        match File::open(&path) {
            Ok(file) => {
                let inode = file.metadata()?.ino();
                found.push((file, inode));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    found.reverse();
    // A rename between two of the openings shows one file twice.
    found.dedup_by_key(|(_, inode)| *inode);
    Ok(found)
}

/// `log_n.jsonl` becomes `log_n.1.jsonl`.
fn rotated(path: &Path, number: usize) -> PathBuf {
    path.with_extension(format!("{number}.jsonl"))
}

fn find(found: &[(File, u64)], place: &FilePlace) -> io::Result<Option<usize>> {
    for (at, (file, inode)) in found.iter().enumerate() {
        if *inode == place.inode && file.metadata()?.len() >= place.position && head(file, place.head_bytes)? == place.head {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn head(file: &File, bytes: u64) -> io::Result<u64> {
    let bytes = usize::try_from(bytes.min(HEAD_BYTES)).unwrap_or(0);
    let hash = blake3::hash(&read_at(file, 0, bytes)?);
    let mut short = [0; 8];
    short.copy_from_slice(&hash.as_bytes()[..8]);
    Ok(u64::from_be_bytes(short))
}

fn count_lines(file: &File) -> io::Result<u64> {
    let (mut position, mut lines) = (0, 0);
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
fn read_at(file: &File, position: u64, wanted: usize) -> io::Result<Vec<u8>> {
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

#[cfg(test)]
mod tests;
