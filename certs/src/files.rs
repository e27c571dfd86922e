//! Files of keys and certificates: bounded reads, owner-only modes, and writes that a crash cannot tear.
//!
//! Knows nothing of what is in them.

use crate::error::CertError;
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Largest file that is read, in bytes: a dozen certificates.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// Permission bits of a private key.
const KEY_MODE: u32 = 0o600;
/// Permission bits of a certificate. The directory keeps others out all the same.
const CERTIFICATE_MODE: u32 = 0o644;
/// Permission bits of a directory with a private key.
const DIR_MODE: u32 = 0o700;
/// The bits of group and others.
const NOT_OWNER: u32 = 0o077;

/// Whether a file is for the eyes of its owner alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrecy {
    Public,
    Private,
}

/// Reads a file of at most [`MAX_FILE_BYTES`]; `next` is the step that helps when there is none.
pub(crate) fn read(path: &Path, next: &'static str) -> Result<Vec<u8>, CertError> {
    let file = open(path, next)?;
    let mut bytes = Vec::new();
    fill(&file, path, next, &mut bytes)?;
    Ok(bytes)
}

/// Reads a private key after a look at the modes of the file and its directory.
pub(crate) fn read_private(path: &Path, next: &'static str) -> Result<Zeroizing<Vec<u8>>, CertError> {
    let file = open(path, next)?;
    // The open file is asked, not the path: nobody can swap it between the check and the reading.
    let mode = file
        .metadata()
        .map_err(|source| cannot_read(path, source))?
        .permissions()
        .mode();
    check_mode(path, mode, KEY_MODE)?;
    check_private_dir(parent(path))?;
    // Reserved in full, so that no copy of the key is left behind by a growing buffer.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES as usize + 1));
    fill(&file, path, next, &mut bytes)?;
    Ok(bytes)
}

/// Makes the directory with owner-only access, or checks that an existing one has it.
pub(crate) fn private_dir(dir: &Path) -> Result<(), CertError> {
    if !dir.is_dir() {
        DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(dir)
            .map_err(|source| cannot_write(dir, source))?;
    }
    check_private_dir(dir)
}

/// Errs with the first of `paths` that exists, broken links included.
pub(crate) fn none_exists<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<(), CertError> {
    match paths.into_iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(CertError::Exists { path: path.clone() }),
        None => Ok(()),
    }
}

/// Writes a file in full beside its final name and renames it: a crash leaves the old one or the new one.
pub(crate) fn write(path: &Path, bytes: &[u8], secrecy: Secrecy) -> Result<(), CertError> {
    let staged = beside(path, "tmp");
    stage(&staged, bytes, secrecy)?;
    rename(&staged, path)
}

/// Writes a new file and waits until it is on the disk. What an earlier crash left under that name is replaced.
pub(crate) fn stage(path: &Path, bytes: &[u8], secrecy: Secrecy) -> Result<(), CertError> {
    let result = || -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mode = match secrecy {
            Secrecy::Public => CERTIFICATE_MODE,
            Secrecy::Private => KEY_MODE,
        };
        // `create_new` follows no link that somebody may have put there.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    result().map_err(|source| cannot_write(path, source))
}

/// Renames within one directory and waits until the new name is on the disk.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), CertError> {
    let result = || -> io::Result<()> {
        fs::rename(from, to)?;
        File::open(parent(to))?.sync_all()
    };
    result().map_err(|source| cannot_write(to, source))
}

/// The name of a hidden companion of `path`: `.identity.key.tmp`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{suffix}"))
}

fn open(path: &Path, next: &'static str) -> Result<File, CertError> {
    File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => CertError::Absent {
            path: path.to_owned(),
            next,
        },
        _ => cannot_read(path, source),
    })
}

fn fill(file: &File, path: &Path, next: &'static str, bytes: &mut Vec<u8>) -> Result<(), CertError> {
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(bytes)
        .map_err(|source| cannot_read(path, source))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(CertError::Damaged {
            path: path.to_owned(),
            reason: format!("it has more than {MAX_FILE_BYTES} bytes"),
            next,
        });
    }
    Ok(())
}

fn check_private_dir(dir: &Path) -> Result<(), CertError> {
    let mode = fs::metadata(dir)
        .map_err(|source| cannot_read(dir, source))?
        .permissions()
        .mode();
    check_mode(dir, mode, DIR_MODE)
}

fn check_mode(path: &Path, mode: u32, wanted: u32) -> Result<(), CertError> {
    if mode & NOT_OWNER == 0 {
        return Ok(());
    }
    Err(CertError::TooOpen {
        path: path.to_owned(),
        mode: mode & 0o7777,
        wanted,
    })
}

/// The directory of a file; that of a bare name is the current one.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn cannot_read(path: &Path, source: io::Error) -> CertError {
    CertError::Read {
        path: path.to_owned(),
        source,
    }
}

fn cannot_write(path: &Path, source: io::Error) -> CertError {
    CertError::Write {
        path: path.to_owned(),
        source,
    }
}
