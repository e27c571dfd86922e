//! The bundle: the dataflow's folder as one compressed archive with a hash, in a temporary file.
//!
//! What goes in is decided in `collect`, how it is written in `archive`. Sending it is not done here.

mod archive;
mod collect;

use dora_remote_protocol::dataflow::BundleRef;
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};
use thiserror::Error;

pub use archive::Limits;

/// An archive that is ready to be sent.
#[derive(Debug)]
pub struct Bundle {
    /// Its name on the wire.
    pub reference: BundleRef,
    /// The compressed bytes; the file has no name any more and goes when it is closed.
    pub file: File,
}

/// Packs a folder: everything that git does not ignore there, and the files in `named` (relative to it) in any case.
///
/// The same files give the same bytes, whoever packs them and when.
///
/// # Errors
/// [`BundleError`] when something cannot be read, must not travel, or is too much.
pub fn pack(folder: &Path, named: &[PathBuf], limits: Limits) -> Result<Bundle, BundleError> {
    let entries = collect::entries(folder, named)?;
    archive::write(folder, &entries, limits)
}

/// Why a folder cannot be packed.
#[derive(Debug, Error)]
pub enum BundleError {
    /// Something in the folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder cannot be walked.
    #[error("cannot walk the folder")]
    Walk(#[from] ignore::Error),
    /// A file became shorter or longer while it was read.
    #[error("{} changed while it was packed", path.display())]
    Changed {
        /// Which file.
        path: PathBuf,
    },
    /// A link leads out of the folder.
    #[error("the link {} leads to {}, which is outside of the dataflow's folder", path.display(), target.display())]
    LinkOutside {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A name that cannot travel.
    #[error("the name {path:?} cannot be packed: {reason}")]
    BadName {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// More files than a bundle may hold.
    #[error("the folder has {count} files, directories and links, and at most {max} can be sent")]
    TooMany {
        /// How many there are.
        count: u64,
        /// The bound.
        max: u64,
    },
    /// More bytes than a bundle may hold.
    #[error("the folder has more than {} {what}; its largest files are {biggest}", crate::output::progress::bytes(*max))]
    TooLarge {
        /// `unpacked` or `after compression`.
        what: &'static str,
        /// The bound.
        max: u64,
        /// The largest files with their sizes.
        biggest: String,
    },
    /// The temporary file cannot be written.
    #[error("cannot write the archive into the directory for temporary files")]
    Write(#[source] io::Error),
}

impl BundleError {
    /// What to do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::TooMany { .. } | Self::TooLarge { .. } => {
                "name what is not needed in a .gitignore, or put the files on the machine and use `--working-dir DIR`"
            }
            Self::LinkOutside { .. } => "replace the link by what it leads to, or name it in a .gitignore",
            Self::BadName { .. } => "rename it, or name it in a .gitignore",
            Self::Changed { .. } => "try again once nothing writes into the folder",
            Self::Read { .. } | Self::Walk(_) => "name what is not needed in a .gitignore",
            Self::Write(_) => "is the disk full? TMPDIR names another directory",
        }
    }
}

#[cfg(test)]
mod tests;
