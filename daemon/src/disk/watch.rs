//! Measures the disk now and then, has ended runs removed when they take too much, and keeps some space for the database.

use super::Disk;
use crate::{
    supervisor::{EndedRun, Input, SupervisorHandle},
    tail::series,
    workdir::Workdirs,
};
use dora_remote_protocol::{ids::DataflowId, machine::DiskUse};
use nix::fcntl::{FallocateFlags, fallocate};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tracing::{info, warn};

/// Pause between two looks.
const EVERY: Duration = Duration::from_secs(5);
/// The same while the disk is getting full.
const EVERY_WHEN_SHORT: Duration = Duration::from_secs(1);
/// Time for the supervisor to say what it has; one that cannot store anything does not answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Space behind the end of the database's file that is kept for it.
const RESERVE: u64 = 4 << 20;

/// Looks after the disk until it is dropped.
pub(crate) struct DiskWatch {
    pub(crate) disk: Arc<Disk>,
    /// The database's file.
    pub(crate) database: PathBuf,
    pub(crate) workdirs: Workdirs,
    pub(crate) supervisor: SupervisorHandle,
}

/// An ended run with what it takes.
#[derive(Clone, Copy, Debug)]
struct Leftover {
    dataflow: DataflowId,
    ended_unix_ms: u64,
    is_shipped: bool,
    bytes: u64,
}

impl DiskWatch {
    /// Looks again and again.
    pub(crate) async fn run(self) {
        // Held open for as long as the database is: closing another handle of its file could let go of its locks.
        let database = File::options().write(true).open(&self.database).ok();
        let database = database.map(Arc::new);
        let mut known = BTreeMap::new();
        let mut was_short = false;
        loop {
            if let Some(file) = database.clone() {
                // Where the file system cannot do it, or has no room, there is no reserve.
                let _ = spawn_blocking(move || reserve(&file)).await;
            }
            let kept = timeout(PATIENCE, self.supervisor.ask(Input::Kept)).await.ok().flatten();
            let (ended, bundle_bytes) = kept.map_or_else(|| (Vec::new(), 0), |kept| (kept.ended, kept.bundle_bytes));
            let workdirs = self.workdirs.clone();
            let measured = spawn_blocking(move || measure(&ended, known, &workdirs)).await;
            // A measurement that broke off is begun anew.
            let (leftovers, sizes) = measured.unwrap_or_default();
            known = sizes;
            let is_short = self.look(&leftovers, bundle_bytes).await.unwrap_or(false);
            if is_short != was_short {
                match is_short {
                    true => warn!("the disk is getting full: what is not needed is given up, and no dataflow is started"),
                    false => info!("the disk has room again"),
                }
            }
            was_short = is_short;
            sleep(if is_short { EVERY_WHEN_SHORT } else { EVERY }).await;
        }
    }

    /// Has surplus removed, and publishes what is used. Returns whether the disk is short.
    async fn look(&self, leftovers: &[Leftover], bundle_bytes: u64) -> io::Result<bool> {
        let space = self.disk.space()?;
        let floor = self.disk.floor(space);
        let wanted = floor.saturating_sub(space.free);
        let surplus = surplus(leftovers, self.disk.caps.ended_bytes, wanted);
        let nothing = wanted > 0 && surplus.is_empty();
        self.disk.has_nothing_else.store(nothing, Ordering::Relaxed);
        if !surplus.is_empty() {
            self.supervisor.tell(Input::Surplus(surplus)).await;
        }
        self.disk.usage.send_replace(Some(DiskUse {
            free_bytes: space.free,
            free_bytes_min: floor,
            log_bytes: self.disk.log_bytes.load(Ordering::Relaxed),
            log_bytes_max: self.disk.caps.log_bytes,
            ended_bytes: leftovers.iter().map(|run| run.bytes).sum(),
            ended_bytes_max: self.disk.caps.ended_bytes,
            bundle_bytes,
            store_bytes: fs::metadata(&self.database).map_or(0, |meta| meta.len()),
        }));
        Ok(wanted > 0)
    }
}

/// The ended runs that have to go, oldest first, so that at most `cap` bytes are left and `wanted` bytes become free. Runs whose
/// lines are not shipped stay; their log files are given up apart.
fn surplus(leftovers: &[Leftover], cap: u64, wanted: u64) -> Vec<DataflowId> {
    let mut runs = leftovers.to_vec();
    runs.sort_by_key(|run| (run.ended_unix_ms, run.dataflow));
    let mut left: u64 = runs.iter().map(|run| run.bytes).sum();
    let mut freed = 0;
    let mut gone = Vec::new();
    for run in runs.iter().filter(|run| run.is_shipped) {
        if left <= cap && freed >= wanted {
            break;
        }
        left -= run.bytes;
        freed += run.bytes;
        gone.push(run.dataflow);
    }
    gone
}

/// Bytes of each ended run and whether it was shipped then, so that no directory is walked at every look.
type Sizes = BTreeMap<DataflowId, (bool, u64)>;

/// Measures runs that were not measured since they ended and since they were shipped.
fn measure(ended: &[EndedRun], mut known: Sizes, workdirs: &Workdirs) -> (Vec<Leftover>, Sizes) {
    let mut sizes = Sizes::new();
    for run in ended {
        let before = known
            .remove(&run.dataflow)
            .filter(|(was_shipped, _)| *was_shipped == run.is_shipped);
        let size = before.unwrap_or_else(|| {
            let dir = workdirs.path_of(run.dataflow, &run.left);
            let apart = run
                .left
                .logs
                .iter()
                .filter(|log| dir.as_ref().is_none_or(|dir| !log.starts_with(dir)));
            let logs: u64 = apart
                .flat_map(|log| series::paths(log).map_while(|path| fs::metadata(path).ok()))
                .map(|meta| meta.blocks() * 512)
                .sum();
            (run.is_shipped, logs + dir.map_or(0, |dir| bytes_below(&dir)))
        });
        sizes.insert(run.dataflow, size);
    }
    let leftovers = ended.iter().filter_map(|run| {
        let (_, bytes) = sizes.get(&run.dataflow)?;
        Some(Leftover {
            dataflow: run.dataflow,
            ended_unix_ms: run.ended_unix_ms,
            is_shipped: run.is_shipped,
            bytes: *bytes,
        })
    });
    (leftovers.collect(), sizes)
}

/// Bytes that a directory takes, links not followed. What cannot be read counts nothing.
fn bytes_below(dir: &Path) -> u64 {
    let mut bytes = 0;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else {
                continue;
            };
            bytes += meta.blocks() * 512;
            if meta.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    bytes
}

/// Gives the file of the database space behind its end: there it can grow while the disk is full.
fn reserve(file: &File) -> io::Result<()> {
    let end = file.metadata()?.len().saturating_add(RESERVE);
    let end = i64::try_from(end).map_err(io::Error::other)?;
    Ok(fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, end)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn run(n: u128, is_shipped: bool, bytes: u64) -> Leftover {
        Leftover {
            dataflow: DataflowId(Uuid::from_u128(n)),
            // The later ids have ended first.
            ended_unix_ms: 100 - n as u64,
            is_shipped,
            bytes,
        }
    }

    fn gone(runs: &[Leftover], cap: u64, wanted: u64) -> Vec<u128> {
        surplus(runs, cap, wanted).iter().map(|id| id.0.as_u128()).collect()
    }

    #[test]
    fn the_oldest_shipped_runs_go_until_the_rest_fits() {
        let runs = [run(1, true, 10), run(2, true, 10), run(3, false, 50), run(4, true, 10)];
        assert_eq!(gone(&runs, 80, 0), []);
        assert_eq!(gone(&runs, 79, 0), [4]);
        assert_eq!(gone(&runs, 80, 1), [4]);
        assert_eq!(gone(&runs, 80, 11), [4, 2]);
        assert_eq!(gone(&runs, 0, 0), [4, 2, 1], "what is not shipped stays");
    }

    #[test]
    fn a_directory_is_measured_with_all_that_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), vec![7; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("everything")).unwrap();
        let bytes = bytes_below(dir.path());
        assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
    }
}
