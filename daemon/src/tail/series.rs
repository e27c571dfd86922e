//! The output of one node: a JSONL file that grows, is renamed and is begun anew, read line by line without a gap or a double.
//!
//! Files are held open from the moment they are seen, so that a rotation cannot take away what was not read yet. Offsets count
//! bytes over all files of the series.
//!
//! Lines that are lost are told as a gap in a batch of its own, which begins an epoch and is stored in the cursor before it is
//! handed out: it comes again as the same one, and the coordinator knows it.

mod loss;
mod reader;
mod space;

pub(crate) use space::Give;

use crate::records::{FilePlace, LogCursor};
use dora_remote_protocol::log_line::LogRecord;
use loss::Loss;
use reader::{Reader, read_at};
use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Instant,
};

/// Files of one series that are held open beyond their removal, as long as they are not read: their space is not free before.
/// Older ones are dropped, and their lines counted as lost.
const MAX_HELD: usize = 16;
/// Rotated files that are looked for beside the current one: as many as dora keeps at most.
const MAX_ROTATED: usize = 100;
/// Looks at the series that is being rotated meanwhile, before the next poll tries again.
const LOOKS: usize = 5;
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
    /// Files that were taken in, so that each has a number of its own.
    taken: u64,
    /// Lines that could not be written, from the beginning of the run on.
    failed: u64,
    /// When that number last grew.
    failed_at: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    file: File,
    /// Which file of this series it is, counted from the start of this process.
    number: u64,
    inode: u64,
    /// Bytes that are acknowledged.
    position: u64,
    /// Lines that are lost, in the order of their places in this file.
    losses: VecDeque<Loss>,
}

/// A place in a series, as this process counts: it goes on over gaps, which begin another epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Number of the file.
    pub(crate) file: u64,
    /// Bytes of it.
    pub(crate) position: u64,
}

/// What an acknowledgement of the batch under way will mean.
#[derive(Debug)]
struct Pending {
    files_done: usize,
    position: u64,
    offset: u64,
    at_unix_ms: u64,
    lines: u64,
    /// Whether its lines are counted in [`LogCursor::dropped`].
    is_dropped: bool,
    /// Whether it is a gap.
    is_gap: bool,
}

/// The next lines of a series, or a gap.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lines {
    /// Lines that are lost here; then there are no records.
    pub(crate) lost_before: u64,
    /// At least one, unless lines are lost.
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
            taken: 0,
            failed: 0,
            failed_at: None,
        }
    }

    /// How far lines were acknowledged.
    pub(crate) fn cursor(&self) -> &LogCursor {
        &self.cursor
    }

    /// The place behind the last byte that was written.
    pub(crate) fn end(&self) -> io::Result<Place> {
        let Some(held) = self.files.back() else {
            return Ok(Place::default());
        };
        Ok(Place {
            file: held.number,
            position: held.file.metadata()?.len(),
        })
    }

    /// The place behind the last byte that is acknowledged; none while lines are lost there that were not told of.
    pub(crate) fn place(&self) -> Option<Place> {
        let held = self.files.front()?;
        let has_gap = self.cursor.gap > 0 || held.losses.front().is_some_and(|loss| loss.at <= held.position);
        (!has_gap).then_some(Place {
            file: held.number,
            position: held.position,
        })
    }

    /// Whether there are lost lines that were not told of, so that what is behind them waits.
    pub(crate) fn has_gap(&self) -> bool {
        self.cursor.gap > 0 || self.files.iter().any(|held| !held.losses.is_empty())
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
            self.check_truncated(now)?;
            return self.place_failed();
        }
        for _ in 0..LOOKS {
            let found = listing(&self.path)?;
            let steady = std::fs::metadata(&self.path).is_ok_and(|meta| found.last().is_some_and(|last| last.1 == meta.ino()));
            if steady {
                self.take(found, now)?;
                return self.place_failed();
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
        if self.cursor.gap > 0 {
            return Ok(Some(self.gap()));
        }
        let mut reader = Reader::new(&self.cursor, now, self.failed > 0);
        loop {
            let last = self.files.len() <= 1;
            let Some(held) = self.files.front() else {
                return Ok(None);
            };
            let until = held.losses.front().map_or(u64::MAX, |loss| loss.at);
            let position = reader.read_file(&held.file, held.position, until, !last || complete)?;
            if reader.records.is_empty() && position > held.position {
                // A torn line of which the count of lost lines knows.
                if let Some(held) = self.files.front_mut() {
                    held.position = position;
                }
                continue;
            }
            if !reader.records.is_empty() {
                let done = !last && held.losses.is_empty() && position >= held.file.metadata()?.len();
                self.pending = Some(Pending {
                    files_done: usize::from(done),
                    position: if done { 0 } else { position },
                    offset: reader.offset,
                    at_unix_ms: reader.at,
                    lines: reader.records.len() as u64,
                    is_dropped: false,
                    is_gap: false,
                });
                return Ok(Some(Lines {
                    lost_before: 0,
                    is_full: reader.is_full(),
                    records: reader.records,
                }));
            }
            if !held.losses.is_empty() {
                return self.next_gap(complete, now);
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
        if pending.is_gap {
            self.cursor.gap = 0;
            return Ok(());
        }
        self.files.drain(..pending.files_done.min(self.files.len()));
        self.cursor.offset = pending.offset;
        self.cursor.at_unix_ms = pending.at_unix_ms;
        if pending.is_dropped {
            self.cursor.dropped = self.cursor.dropped.saturating_sub(pending.lines);
        }
        if let Some(held) = self.files.front_mut() {
            held.position = pending.position;
        }
        self.note_place()
    }

    /// Takes down in the cursor where the first held file is.
    fn note_place(&mut self) -> io::Result<()> {
        if let Some(held) = self.files.front() {
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
            (None, 0, _) => self.cursor.gap == 0,
            (None, 1, Some(held)) => {
                self.cursor.gap == 0 && held.losses.is_empty() && held.position >= held.file.metadata()?.len()
            }
            _ => false,
        })
    }

    /// Takes in a listing, oldest first, of which the last is the current file.
    fn take(&mut self, found: Vec<(File, u64)>, now: u64) -> io::Result<()> {
        let mut lost = Loss::default();
        let (newer, mut first_position) = if let Some(back) = self.files.back() {
            // Files behind the one that was current are new; if it is gone, all are, and others may have come and gone.
            match found.iter().position(|(_, inode)| *inode == back.inode) {
                Some(at) => (at + 1, 0),
                None => {
                    lost.lines = u64::from(found.len() > MAX_ROTATED);
                    (0, 0)
                }
            }
        } else if let Some(place) = self.cursor.place.clone() {
            lost = Loss::dropped(self.cursor.dropped);
            if let Some(at) = find(&found, &place)? {
                (at, place.position)
            } else if let Some(at) = find_emptied(&found, &place)?.filter(|_| lost.lines > 0) {
                (at, 0)
            } else {
                // What was read last is gone, and nobody can tell what came after it: offsets start over.
                lost.lines = lost.lines.max(1);
                self.start_over(now);
                (0, 0)
            }
        } else {
            (0, 0)
        };
        for (file, inode) in found.into_iter().skip(newer) {
            // Lines that were given up stood behind those that are still there.
            let at = first_position;
            let number = self.taken;
            self.taken += 1;
            self.files.push_back(Held {
                file,
                number,
                inode,
                position: std::mem::take(&mut first_position),
                losses: VecDeque::new(),
            });
            if lost.lines > 0
                && let Some(held) = self.files.back_mut()
            {
                let loss = std::mem::take(&mut lost);
                held.losses.push_back(if at == 0 {
                    loss
                } else {
                    Loss {
                        at: held.file.metadata()?.len(),
                        ..loss
                    }
                });
            }
        }
        self.drop_surplus()
    }

    /// Keeps the space of files bounded that are gone from their directory: those right behind the one being read go first.
    fn drop_surplus(&mut self) -> io::Result<()> {
        let kept = self.pending.as_ref().map_or(0, |pending| pending.files_done) + 1;
        while self.files.len() > MAX_HELD.max(kept + 1) {
            let Some(oldest) = self.files.get(kept) else {
                break;
            };
            if oldest.file.metadata()?.nlink() > 0 && self.files.len() <= MAX_ROTATED + 1 {
                break;
            }
            self.drop_file(kept)?;
        }
        Ok(())
    }

    fn check_truncated(&mut self, now: u64) -> io::Result<()> {
        // Only dora writes these files, and it never shortens them; somebody else did.
        if let (None, 1, Some(held)) = (&self.pending, self.files.len(), self.files.front_mut())
            && held.file.metadata()?.len() < held.position
        {
            held.position = 0;
            held.losses.push_front(Loss {
                lines: 1,
                ..Loss::default()
            });
            self.start_over(now);
        }
        Ok(())
    }

    fn start_over(&mut self, now: u64) {
        self.cursor = LogCursor {
            epoch: now.max(self.cursor.epoch + 1),
            offset: 0,
            place: None,
            ..self.cursor.clone()
        };
    }
}

/// All files of a series with their inodes, oldest first.
fn listing(path: &Path) -> io::Result<Vec<(File, u64)>> {
    let mut found = Vec::new();
    for path in paths(path) {
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

/// Where the files of a series may be, the current one first; behind the first that is missing there are no more.
pub(crate) fn paths(current: &Path) -> impl Iterator<Item = PathBuf> {
    let current = current.to_owned();
    (0..=MAX_ROTATED).map(move |number| {
        if number == 0 {
            current.clone()
        } else {
            rotated(&current, number)
        }
    })
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

/// The file of a place that was given up: it stands there empty. The current one may be empty because it is new.
fn find_emptied(found: &[(File, u64)], place: &FilePlace) -> io::Result<Option<usize>> {
    for (at, (file, inode)) in found.iter().enumerate().rev().skip(1) {
        if *inode == place.inode && file.metadata()?.len() == 0 {
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

#[cfg(test)]
mod tests;
