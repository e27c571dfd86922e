//! Unpacks an archive (zstd, then tar) that somebody else made into a fresh directory, and nowhere else.
//!
//! The archive is not trusted: nothing outside of the directory is ever written, linked or reached through a link. What is left
//! behind after an error is the caller's to remove.

use dora_remote_protocol::limits::{MAX_BUNDLE_ENTRIES, MAX_UNPACKED_BYTES};
use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink},
    path::{Component, Path, PathBuf},
    rc::Rc,
};
use tar::{Archive, Entry, EntryType};
use thiserror::Error;

/// Bytes that the headers of one entry may take, long names and extensions included: they are read into memory.
const ENTRY_HEADER_BYTES: u64 = 64 << 10;
/// Window of the decompressor as a power of two: bounds its memory to 128 MiB.
const MAX_WINDOW_LOG: u32 = 27;

/// How much an archive may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes of all files together.
    pub(crate) bytes: u64,
    /// Files, directories and links.
    pub(crate) entries: u64,
}

impl Bounds {
    /// What every bundle must stay within.
    pub(crate) const BUNDLE: Self = Self {
        bytes: MAX_UNPACKED_BYTES,
        entries: MAX_BUNDLE_ENTRIES,
    };
}

/// Unpacks a zstd-compressed tar into `root`, which must be empty.
pub(crate) fn unpack(archive: impl Read, root: &Path, bounds: Bounds) -> Result<(), UnpackError> {
    let mut decoder = zstd::Decoder::new(archive).map_err(UnpackError::Read)?;
    decoder.window_log_max(MAX_WINDOW_LOG).map_err(UnpackError::Read)?;
    unpack_tar(decoder, root, bounds)
}

/// Unpacks a tar into `root`, which must be empty.
fn unpack_tar(tar: impl Read, root: &Path, bounds: Bounds) -> Result<(), UnpackError> {
    let budget = Rc::new(Cell::new(0));
    let mut archive = Archive::new(Metered {
        inner: tar,
        left: Rc::clone(&budget),
    });
    let mut tree = Tree {
        root,
        made: BTreeMap::new(),
    };
    let (mut bytes, mut count) = (0_u64, 0_u64);
    budget.set(ENTRY_HEADER_BYTES);
    for entry in archive.entries().map_err(UnpackError::Read)? {
        let mut entry = entry.map_err(UnpackError::Read)?;
        count += 1;
        if count > bounds.entries {
            return Err(UnpackError::TooManyEntries { max: bounds.entries });
        }
        bytes = bytes.saturating_add(entry.size());
        if bytes > bounds.bytes {
            return Err(UnpackError::TooLarge { max: bounds.bytes });
        }
        // Whatever of the entry is not read here is skipped before the next header.
        budget.set(entry.size().saturating_add(ENTRY_HEADER_BYTES));
        tree.add(&mut entry)?;
        budget.set(budget.get().max(ENTRY_HEADER_BYTES));
    }
    Ok(())
}

/// What was made so far. Only this process writes into the directory until it is done.
struct Tree<'a> {
    root: &'a Path,
    made: BTreeMap<PathBuf, Made>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    File,
    Link,
    /// `named` once the archive itself had an entry for it.
    Directory {
        named: bool,
    },
}

impl Tree<'_> {
    fn add(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), UnpackError> {
        let raw = entry.path().map_err(UnpackError::Read)?.into_owned();
        let kind = entry.header().entry_type();
        let path = inside(&raw).ok_or_else(|| UnpackError::Outside { path: raw.clone() })?;
        if path.as_os_str().is_empty() {
            // `./`: the directory itself.
            return if kind.is_dir() {
                Ok(())
            } else {
                Err(UnpackError::Outside { path: raw })
            };
        }
        self.make_parents(&path)?;
        match self.made.get(&path) {
            None => {}
            Some(Made::Directory { named: false }) if kind.is_dir() => {}
            Some(_) => return Err(UnpackError::Twice { path }),
        }
        // Set-user-id, set-group-id and sticky bits are dropped; the owner can always read, and enter directories.
        let mode = entry.header().mode().map_err(UnpackError::Read)? & 0o777;
        let target = self.root.join(&path);
        let made = match kind {
            EntryType::Regular => {
                let mut file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(mode | 0o600)
                    .open(&target)
                    .map_err(write_fault(&path))?;
                io::copy(entry, &mut file).map_err(write_fault(&path))?;
                Made::File
            }
            EntryType::Directory => {
                self.make_directory(&path)?;
                Made::Directory { named: true }
            }
            EntryType::Symlink => {
                let to = link_target(entry, &path)?;
                if !stays_inside(&path, &to) {
                    return Err(UnpackError::LinkOutside { path, target: to });
                }
                symlink(&to, &target).map_err(write_fault(&path))?;
                Made::Link
            }
            EntryType::Link => {
                let to = link_target(entry, &path)?;
                let original = inside(&to).filter(|original| self.made.get(original) == Some(&Made::File));
                let Some(original) = original else {
                    return Err(UnpackError::LinkOutside { path, target: to });
                };
                fs::hard_link(self.root.join(original), &target).map_err(write_fault(&path))?;
                Made::File
            }
            _ => return Err(UnpackError::Special { path }),
        };
        self.made.insert(path, made);
        Ok(())
    }

    /// Makes the directories that lead to `path`. Nothing is ever written through a link.
    fn make_parents(&mut self, path: &Path) -> Result<(), UnpackError> {
        let mut parents: Vec<&Path> = path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
        parents.reverse();
        for parent in parents {
            match self.made.get(parent) {
                Some(Made::Directory { .. }) => {}
                Some(Made::File | Made::Link) => {
                    return Err(UnpackError::ThroughLink {
                        path: path.to_owned(),
                        parent: parent.to_owned(),
                    });
                }
                None => {
                    self.make_directory(parent)?;
                    self.made.insert(parent.to_owned(), Made::Directory { named: false });
                }
            }
        }
        Ok(())
    }

    fn make_directory(&self, path: &Path) -> Result<(), UnpackError> {
        if self.made.contains_key(path) {
            return Ok(());
        }
        DirBuilder::new()
            .mode(0o755)
            .create(self.root.join(path))
            .map_err(write_fault(path))
    }
}

/// The path relative to the directory, or none for one that is absolute or goes up.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// Whether the link at `path` (relative to the directory) with this target stays inside.
///
/// `..` is allowed only before any name: the directories above a link are real ones, while a name may be another link, behind
/// which `..` would lead somewhere else than the text says.
fn stays_inside(path: &Path, target: &Path) -> bool {
    let mut above = path.components().count() - 1;
    let mut named = false;
    for part in target.components() {
        match part {
            Component::Normal(_) => named = true,
            Component::CurDir => {}
            Component::ParentDir => {
                if named || above == 0 {
                    return false;
                }
                above -= 1;
            }
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

fn link_target(entry: &Entry<'_, impl Read>, path: &Path) -> Result<PathBuf, UnpackError> {
    match entry.link_name().map_err(UnpackError::Read)? {
        Some(target) if !target.as_os_str().is_empty() => Ok(target.into_owned()),
        _ => Err(UnpackError::LinkOutside {
            path: path.to_owned(),
            target: PathBuf::new(),
        }),
    }
}

fn write_fault(path: &Path) -> impl FnOnce(io::Error) -> UnpackError {
    let path = path.to_owned();
    move |source| UnpackError::Write { path, source }
}

/// Ends the reading of an archive once it has taken more than it announced.
struct Metered<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("the headers of one entry are too long"));
        }
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.set(left - read as u64);
        Ok(read)
    }
}

/// Why an archive was not unpacked.
#[derive(Debug, Error)]
pub(crate) enum UnpackError {
    /// It is damaged.
    #[error("the archive cannot be read: {0}")]
    Read(#[source] io::Error),
    /// A path leads out of the directory.
    #[error("the archive has the path `{}`, which leads out of the dataflow's folder", path.display())]
    Outside {
        /// As it stands in the archive.
        path: PathBuf,
    },
    /// A link leads out of the directory, or could.
    #[error("the archive has the link `{}` to `{}`, which leads out of the dataflow's folder", path.display(), target.display())]
    LinkOutside {
        /// The link.
        path: PathBuf,
        /// Its target.
        target: PathBuf,
    },
    /// A path goes through a link or a file.
    #[error("the archive has the path `{}` behind `{}`, which is not a directory", path.display(), parent.display())]
    ThroughLink {
        /// The path.
        path: PathBuf,
        /// What is in its way.
        parent: PathBuf,
    },
    /// The same path stands in it twice.
    #[error("the archive has the path `{}` twice", path.display())]
    Twice {
        /// Which.
        path: PathBuf,
    },
    /// A device, a pipe or something else that is no file, directory or link.
    #[error("the archive has `{}`, which is no file, directory or link", path.display())]
    Special {
        /// Which.
        path: PathBuf,
    },
    /// More entries than allowed.
    #[error("the archive has more than {max} entries")]
    TooManyEntries {
        /// The bound.
        max: u64,
    },
    /// More bytes than allowed.
    #[error("the archive unpacks to more than {max} bytes")]
    TooLarge {
        /// The bound.
        max: u64,
    },
    /// The directory cannot be written.
    #[error("`{}` cannot be written: {source}", path.display())]
    Write {
        /// Relative to the directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Reads a file as an archive.
pub(crate) fn unpack_file(archive: &Path, root: &Path, bounds: Bounds) -> Result<(), UnpackError> {
    unpack(File::open(archive).map_err(UnpackError::Read)?, root, bounds)
}

#[cfg(test)]
mod tests;
