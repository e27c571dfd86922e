//! What the files of a series take of the disk, and what of it can be given back.
//!
//! A file is emptied, never removed: dora renames these files meanwhile, and one that is missing would make it lose another.

use super::{Loss, Series, paths, reader::count_lines};
use std::{fs, io, os::unix::fs::MetadataExt, path::PathBuf};

/// What may be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Give {
    /// Files whose lines are all acknowledged.
    Shipped,
    /// Files that are not written any more, whether they were read or not; the lines that are lost are counted.
    Any,
    /// All files, as the node has ended.
    All,
}

impl Series {
    /// Bytes that its files take, those included that are held here and gone from their directory.
    pub(crate) fn bytes(&self) -> u64 {
        let listed: u64 = self.listed().map(|(_, meta)| meta.len()).sum();
        let held = self.files.iter().filter_map(|held| held.file.metadata().ok());
        listed + held.filter(|meta| meta.nlink() == 0).map(|meta| meta.len()).sum::<u64>()
    }

    /// Gives back the oldest file that may go, and says how many bytes it had: 0 when there is none.
    pub(crate) fn give_back(&mut self, what: Give) -> io::Result<u64> {
        let current = fs::metadata(&self.path).ok().map(|meta| meta.ino());
        let mut shipped = None;
        for (path, meta) in self.listed() {
            let is_held = self.files.iter().any(|held| held.inode == meta.ino());
            if meta.len() > 0 && !is_held && Some(meta.ino()) != current {
                shipped = Some((path, meta));
            }
        }
        // Nothing is held before the first look, and then nobody knows what is shipped.
        if let Some((path, meta)) = shipped.filter(|_| !self.files.is_empty()) {
            empty(path, meta.ino())?;
            return Ok(meta.len());
        }
        let files = match what {
            Give::Shipped => 0,
            Give::Any => self.files.len().saturating_sub(1),
            Give::All => self.files.len(),
        };
        for at in 0..files {
            let bytes = self
                .files
                .get(at)
                .map_or(Ok(0), |held| held.file.metadata().map(|meta| meta.len()))?;
            if bytes > 0 && self.drop_file(at)? {
                return Ok(bytes);
            }
        }
        Ok(0)
    }

    /// Gives up one held file: what was not read of it is counted, and told before the next one. False when it has to stay for now.
    pub(super) fn drop_file(&mut self, at: usize) -> io::Result<bool> {
        let is_last = at + 1 == self.files.len();
        // A batch under way comes from the first file.
        let under_way = self.pending.as_mut().filter(|pending| at == 0 && !pending.is_gap);
        if is_last && under_way.is_some() {
            return Ok(false);
        }
        let Some(held) = self.files.get(at) else {
            return Ok(false);
        };
        let unread = match &under_way {
            Some(pending) if pending.files_done > 0 => 0,
            Some(pending) => count_lines(&held.file, pending.position)?,
            None => count_lines(&held.file, held.position)?,
        };
        let mut loss = Loss::dropped(unread);
        for other in &held.losses {
            loss.add(*other);
        }
        // The lines under way are lost too, if this process ends before they are acknowledged.
        self.cursor.dropped += count_lines(&held.file, held.position)?;
        if let Some(pending) = under_way {
            pending.is_dropped = true;
            pending.files_done = 0;
            pending.position = 0;
        }
        let inode = held.inode;
        if let Some((path, _)) = self.listed().find(|(_, meta)| meta.ino() == inode) {
            empty(path, inode)?;
        }
        if !is_last {
            self.files.remove(at);
        }
        if let Some(heir) = self.files.get_mut(at) {
            if is_last {
                heir.position = 0;
                heir.losses.clear();
            }
            match heir.losses.front_mut() {
                Some(first) if first.at == 0 => first.add(loss),
                _ if loss.lines > 0 => heir.losses.push_front(loss),
                _ => {}
            }
        }
        Ok(true)
    }

    /// The files that stand in the directory, the current one first.
    fn listed(&self) -> impl Iterator<Item = (PathBuf, fs::Metadata)> {
        paths(&self.path).map_while(|path| {
            let meta = fs::metadata(&path).ok()?;
            Some((path, meta))
        })
    }
}

/// Empties a file, if it is still the one with this inode.
fn empty(path: PathBuf, inode: u64) -> io::Result<()> {
    let file = fs::File::options().write(true).open(path)?;
    if file.metadata()?.ino() == inode {
        file.set_len(0)?;
    }
    Ok(())
}
