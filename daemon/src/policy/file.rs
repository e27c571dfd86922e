//! Reads a policy from its file. What is not understood, or could have been written by anybody, is refused.

use super::{Place, Policy};
use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Largest policy file in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Mode bits by which the group or others may write.
const OTHERS_WRITE: u32 = 0o022;

/// Why there is no policy. The daemon must not run then.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else than a file.
    #[error("{} is not a file", path.display())]
    NoFile {
        /// Which path.
        path: PathBuf,
    },
    /// It is larger than a policy can be.
    #[error("{} has more than {MAX_BYTES} bytes", path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
    },
    /// Somebody else than its owner may write it, so that it says nothing about the owner's will.
    #[error("{} can be written by its group or by everybody (mode {mode:03o})", path.display())]
    Writable {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to a user who is neither root nor ours.
    #[error("{} belongs to user {owner}, and not to root or to the user of the daemon", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// It is no policy: broken TOML, an unknown key, or a value that is none.
    #[error("{}:{line}: {what}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// Line of what is wrong, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
}

impl Policy {
    /// Reads the policy of this machine. Blocks for the time of reading one small file.
    ///
    /// # Errors
    /// [`PolicyError`]; a daemon that was told of a policy must not run without it.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let read = |source| PolicyError::Read {
            path: path.to_owned(),
            source,
        };
        // Looked at before it is opened, as opening a pipe would wait for its other end.
        if !fs::metadata(path).map_err(read)?.is_file() {
            return Err(PolicyError::NoFile { path: path.to_owned() });
        }
        let file = File::open(path).map_err(read)?;
        let metadata = file.metadata().map_err(read)?;
        let (mode, owner, us) = (metadata.mode() & 0o777, metadata.uid(), nix::unistd::geteuid().as_raw());
        if mode & OTHERS_WRITE != 0 {
            return Err(PolicyError::Writable {
                path: path.to_owned(),
                mode,
            });
        }
        if owner != 0 && owner != us {
            return Err(PolicyError::Foreign {
                path: path.to_owned(),
                owner,
            });
        }
        if owner == us && us != 0 {
            tracing::warn!(path = %path.display(), "the policy belongs to the user that nodes run as, so that a node can change it; give it to root");
        }
        let mut text = String::new();
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(read)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(PolicyError::TooLong { path: path.to_owned() });
        }
        let policy = Self::parse(&text).map_err(|(line, what)| PolicyError::Content {
            path: path.to_owned(),
            line,
            what,
        })?;
        for place in policy.places().filter(|place| !place.exists()) {
            tracing::warn!(policy = %path.display(), place = %place.display(), "a place in the policy does not exist: nothing lies under it");
        }
        Ok(policy)
    }

    /// The places that are written in the policy.
    fn places(&self) -> impl Iterator<Item = &Path> {
        let executables = self.run.executables.iter().filter_map(|place| match place {
            Place::Bundle => None,
            Place::At(path) => Some(path.as_path()),
        });
        let directories = self.run.directories.iter().map(|directory| directory.0.as_path());
        executables.chain(directories)
    }

    /// A policy from its text; otherwise the line and what is wrong there.
    pub(super) fn parse(text: &str) -> Result<Self, (usize, String)> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let before = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count() + 1;
            (line, error.message().replace('\n', " "))
        })
    }
}

#[cfg(test)]
mod tests;
