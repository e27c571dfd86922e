//! Whether there is room for more log lines. Some space of the disk is left to the other stores: without lines a coordinator does its
//! work, and machines keep theirs until there is room.

use nix::sys::statvfs::statvfs;
use std::path::PathBuf;

/// The disk under the log store.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    path: PathBuf,
    keep_free: Option<u64>,
}

/// Bytes of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Space {
    /// Free now.
    pub(crate) free: u64,
    /// To be kept free of log lines.
    pub(crate) keep_free: u64,
}

impl Room {
    /// The disk that holds `path`. `keep_free`: see [`crate::CoordinatorConfig::free_bytes`].
    pub(crate) fn new(path: PathBuf, keep_free: Option<u64>) -> Self {
        Self { path, keep_free }
    }

    /// Looks at the disk; one that cannot be asked has room.
    pub(crate) fn space(&self) -> Space {
        const MOST: u64 = 1 << 30;
        let Ok(found) = statvfs(&self.path) else {
            return Space::default();
        };
        let total = found.blocks().saturating_mul(found.fragment_size());
        Space {
            free: found.blocks_available().saturating_mul(found.fragment_size()),
            keep_free: self.keep_free.unwrap_or_else(|| (total / 20).min(MOST)),
        }
    }

    /// Whether more lines may be stored.
    pub(crate) fn has_some(&self) -> bool {
        let space = self.space();
        space.free >= space.keep_free
    }
}
