//! Writes entries as a zstd-compressed tar whose bytes depend on nothing but the files: sorted, no times, no owners, two modes.

use super::{
    Bundle, BundleError,
    collect::{Entries, Entry},
};
use crate::output::progress::bytes;
use dora_remote_protocol::{
    dataflow::BundleRef,
    ids::BundleHash,
    limits::{MAX_BUNDLE_BYTES, MAX_BUNDLE_ENTRIES, MAX_UNPACKED_BYTES},
};
use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    path::Path,
};
use tar::{Builder, EntryType, Header};

/// How much a bundle may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes after compression.
    pub compressed: u64,
    /// Bytes of all files together.
    pub unpacked: u64,
    /// Files, directories and links.
    pub entries: u64,
}

impl Limits {
    /// What every coordinator and machine accepts.
    pub const BUNDLE: Self = Self {
        compressed: MAX_BUNDLE_BYTES,
        unpacked: MAX_UNPACKED_BYTES,
        entries: MAX_BUNDLE_ENTRIES,
    };
}

/// Level of zstd: its default, a good trade for sources and binaries alike.
const LEVEL: i32 = 3;
/// How many of the largest files an error names.
const NAMED_FILES: usize = 5;

/// Writes the archive into a temporary file.
pub(super) fn write(folder: &Path, entries: &Entries, limits: Limits) -> Result<Bundle, BundleError> {
    let count = entries.len() as u64;
    if count > limits.entries {
        return Err(BundleError::TooMany {
            count,
            max: limits.entries,
        });
    }
    let unpacked: u64 = entries.values().map(size_of).sum();
    if unpacked > limits.unpacked {
        return Err(too_large("unpacked", limits.unpacked, entries));
    }
    let sink = Sink {
        file: tempfile::tempfile().map_err(BundleError::Write)?,
        hasher: blake3::Hasher::new(),
        written: 0,
        max: limits.compressed,
    };
    let encoder = zstd::Encoder::new(sink, LEVEL).map_err(BundleError::Write)?;
    let mut tar = Builder::new(encoder);
    for (relative, entry) in entries {
        if let Err(error) = append(&mut tar, folder, relative, entry) {
            // The sink is the only one that refuses to take more.
            return Err(if tar.get_ref().get_ref().is_full() {
                too_large("after compression", limits.compressed, entries)
            } else {
                error
            });
        }
    }
    let finished = tar.into_inner().and_then(zstd::Encoder::finish);
    let sink = finished.map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => too_large("after compression", limits.compressed, entries),
        _ => BundleError::Write(error),
    })?;
    let Sink {
        mut file,
        hasher,
        written,
        ..
    } = sink;
    file.rewind().map_err(BundleError::Write)?;
    Ok(Bundle {
        reference: BundleRef {
            hash: BundleHash(*hasher.finalize().as_bytes()),
            bytes: written,
            unpacked_bytes: unpacked,
            entries: count,
        },
        file,
    })
}

fn append(tar: &mut Builder<impl Write>, folder: &Path, relative: &Path, entry: &Entry) -> Result<(), BundleError> {
    let path = folder.join(relative);
    let mut header = Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    match entry {
        Entry::Directory => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
            tar.append_data(&mut header, relative, io::empty())
                .map_err(BundleError::Write)
        }
        Entry::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            tar.append_link(&mut header, relative, target)
                .map_err(|_| BundleError::BadName {
                    path,
                    reason: "where the link leads cannot be written down",
                })
        }
        Entry::File { bytes, executable } => {
            header.set_entry_type(EntryType::Regular);
            header.set_mode(if *executable { 0o755 } else { 0o644 });
            header.set_size(*bytes);
            let file = File::open(&path).map_err(|source| BundleError::Read {
                path: path.clone(),
                source,
            })?;
            let mut exact = Exact {
                inner: file,
                left: *bytes,
                fault: None,
            };
            let appended = tar.append_data(&mut header, relative, &mut exact);
            match exact.fault {
                Some(Fault::Changed) => Err(BundleError::Changed { path }),
                Some(Fault::Read(source)) => Err(BundleError::Read { path, source }),
                None => appended.map_err(BundleError::Write),
            }
        }
    }
}

fn size_of(entry: &Entry) -> u64 {
    match entry {
        Entry::File { bytes, .. } => *bytes,
        Entry::Directory | Entry::Link(_) => 0,
    }
}

fn too_large(what: &'static str, max: u64, entries: &Entries) -> BundleError {
    let mut files: Vec<_> = entries.iter().map(|(path, entry)| (size_of(entry), path)).collect();
    files.sort_by(|a, b| b.cmp(a));
    let biggest: Vec<_> = files
        .into_iter()
        .take(NAMED_FILES)
        .map(|(size, path)| format!("{} ({})", path.display(), bytes(size)))
        .collect();
    BundleError::TooLarge {
        what,
        max,
        biggest: biggest.join(", "),
    }
}

/// Reads exactly as many bytes as the header says: a file that grows or shrinks meanwhile would shift all that follows.
struct Exact {
    inner: File,
    left: u64,
    fault: Option<Fault>,
}

enum Fault {
    Changed,
    Read(io::Error),
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        match self.inner.read(&mut buffer[..most]) {
            Ok(0) => {
                self.fault = Some(Fault::Changed);
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(read) => {
                self.left -= read as u64;
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.fault = Some(Fault::Read(error));
                Err(kind.into())
            }
        }
    }
}

/// Hashes and counts what goes into the file, and takes no more than allowed.
struct Sink {
    file: File,
    hasher: blake3::Hasher,
    written: u64,
    max: u64,
}

impl Sink {
    /// Whether it has refused bytes: it marks that by counting beyond its bound.
    const fn is_full(&self) -> bool {
        self.written > self.max
    }
}

impl Write for Sink {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.written.saturating_add(buffer.len() as u64) > self.max {
            self.written = self.max.saturating_add(1);
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let written = self.file.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
