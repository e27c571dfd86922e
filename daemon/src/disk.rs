//! How much of the machine's disk this daemon may use, how much is free, and what it takes.
//!
//! Other programs may fill the disk at any time. Some space is kept free as long as there is something of ours to give up: then
//! dora goes on writing and rotating its files, and our own store has room.

mod watch;

pub(crate) use watch::DiskWatch;

use dora_remote_protocol::machine::DiskUse;
use nix::sys::statvfs::statvfs;
use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};
use tokio::sync::watch as channel;

/// How much of the disk a daemon may use, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskCaps {
    /// Log files of one node, unless its descriptor sets `max_log_size`.
    pub node_log_bytes: u64,
    /// Log files of all runs whose lines are not all shipped.
    pub log_bytes: u64,
    /// What ended runs leave behind.
    pub ended_bytes: u64,
    /// Free space to keep on the file system of the state directory; when absent, 1 GiB or a twentieth of it, whichever is less.
    pub free_bytes: Option<u64>,
}

impl Default for DiskCaps {
    fn default() -> Self {
        Self {
            node_log_bytes: 256 << 20,
            log_bytes: 4 << 30,
            ended_bytes: 2 << 30,
            free_bytes: None,
        }
    }
}

/// The disk as all parts of the daemon see it. Cheap to ask.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    caps: DiskCaps,
    log_bytes: AtomicU64,
    has_nothing_else: AtomicBool,
    usage: channel::Sender<Option<DiskUse>>,
}

/// Space of a file system.
#[derive(Clone, Copy, Debug)]
struct Space {
    free: u64,
    total: u64,
}

impl Disk {
    /// The disk that holds `path`.
    pub(crate) fn new(path: &Path, caps: DiskCaps) -> Self {
        Self {
            path: path.to_owned(),
            caps,
            log_bytes: AtomicU64::new(0),
            has_nothing_else: AtomicBool::new(false),
            usage: channel::Sender::new(None),
        }
    }

    /// What may be used.
    pub(crate) fn caps(&self) -> &DiskCaps {
        &self.caps
    }

    /// What was used when it was last measured.
    pub(crate) fn usage(&self) -> Option<DiskUse> {
        self.usage.borrow().clone()
    }

    /// Whether less is free than is to be kept. A disk that cannot be asked is not short.
    pub(crate) fn is_short(&self) -> bool {
        self.space().is_ok_and(|space| space.free < self.floor(space))
    }

    /// Why `bytes` more are too many, in words that fit behind the name of a machine.
    pub(crate) fn lacks_room_for(&self, bytes: u64) -> Option<String> {
        let space = self.space().ok()?;
        let floor = self.floor(space);
        (space.free < floor.saturating_add(bytes)).then(|| {
            format!(
                "its disk has {} MiB free; the dataflow needs {} MiB, and {} MiB are kept free",
                space.free >> 20,
                bytes.div_ceil(1 << 20),
                floor >> 20
            )
        })
    }

    /// Notes what the log files take.
    pub(crate) fn set_log_bytes(&self, bytes: u64) {
        self.log_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether nothing but lines that were not shipped is left to be given up.
    pub(crate) fn has_nothing_else(&self) -> bool {
        self.has_nothing_else.load(Ordering::Relaxed)
    }

    fn space(&self) -> io::Result<Space> {
        let found = statvfs(&self.path)?;
        let unit = found.fragment_size();
        Ok(Space {
            free: found.blocks_available().saturating_mul(unit),
            total: found.blocks().saturating_mul(unit),
        })
    }

    fn floor(&self, space: Space) -> u64 {
        const MOST: u64 = 1 << 30;
        self.caps.free_bytes.unwrap_or_else(|| (space.total / 20).min(MOST))
    }
}
