//! Puts the files of a service where they belong: each one whole or not at all.

use super::unit::UnitFile;
use std::{
    fs, io,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;
use thiserror::Error;

/// Why a file was not put there.
#[derive(Debug, Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct PlaceError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Writes the files below `root`, over those that are there, and tells where they are.
///
/// # Errors
/// [`PlaceError`] with the first file that could not be written; those before it stand.
pub fn place(root: &Path, files: &[UnitFile]) -> Result<Vec<PathBuf>, PlaceError> {
    files
        .iter()
        .map(|file| {
            let path = root.join(&file.path);
            write(&path, &file.text).map_err(|source| PlaceError {
                path: path.clone(),
                source,
            })?;
            Ok(path)
        })
        .collect()
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    fs::create_dir_all(dir)?;
    let mut file = NamedTempFile::new_in(dir)?;
    file.write_all(text.as_bytes())?;
    // There is nothing secret in a unit, and everybody may know how a service runs.
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    fs::File::open(dir)?.sync_all()
}
