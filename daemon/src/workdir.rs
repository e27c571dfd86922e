//! Where the files of a run lie on this machine: fetched, checked and unpacked into a fresh directory, or already there.
//!
//! A failure leaves nothing behind. What the nodes do in the directory afterwards is theirs.

use crate::{
    disk::Disk,
    records::RunPlan,
    tail::series,
    unpack::{Bounds, unpack_file},
};
use dora_remote_link::{CallError, Peer};
use dora_remote_protocol::{
    chunk::Chunk,
    daemon_to_coordinator::FetchBundle,
    dataflow::{BundleRef, Files},
    ids::DataflowId,
    limits::{BUNDLE_CHUNK_BYTES, MAX_BUNDLE_BYTES, PREPARE_DEADLINE},
    name::MachineName,
    refusal::{Refusal, RefusalCode},
};
use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{sync::mpsc, task::spawn_blocking};

/// Chunks of a bundle that wait for the disk; when it is full, the coordinator waits.
const CHUNK_QUEUE: usize = 8;

/// Makes the directories of runs.
#[derive(Clone, Debug)]
pub(crate) struct Workdirs {
    runs: PathBuf,
    machine: MachineName,
    disk: Arc<Disk>,
}

/// A directory that holds the files of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workdir {
    /// Absolute path.
    pub(crate) path: PathBuf,
    /// Whether it was made for the run.
    pub(crate) owned: bool,
}

/// What is removed with a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// Whether its directory was made for it.
    pub(crate) owns_dir: bool,
    /// The current log file of each node; rotated ones lie beside it. They are dora's, in whatever directory.
    pub(crate) logs: Vec<PathBuf>,
}

impl Left {
    /// Of a run that was prepared.
    pub(crate) fn of(plan: &RunPlan) -> Self {
        Self {
            owns_dir: plan.owns_dir,
            logs: plan
                .outputs
                .iter()
                .filter_map(|output| output.path.as_ref().map(PathBuf::from))
                .collect(),
        }
    }

    /// Of a run that nobody knows.
    pub(crate) fn of_stray() -> Self {
        Self {
            owns_dir: true,
            logs: Vec::new(),
        }
    }
}

impl Workdirs {
    /// Run directories below `runs`.
    pub(crate) fn new(runs: PathBuf, machine: MachineName, disk: Arc<Disk>) -> Self {
        Self { runs, machine, disk }
    }

    /// Brings the files of a run to this machine. Not cancel safe: dropped halfway it leaves a directory that
    /// [`Workdirs::remove`] takes away.
    pub(crate) async fn prepare(&self, dataflow: DataflowId, files: &Files, peer: &Peer) -> Result<Workdir, Refusal> {
        let bytes = match files {
            Files::OnMachine(_) => 0,
            // The archive is removed only once it is unpacked.
            Files::Bundle(bundle) => bundle.bytes.saturating_add(bundle.unpacked_bytes),
        };
        if let Some(why) = self.disk.lacks_room_for(bytes) {
            return Err(
                Refusal::new(RefusalCode::NotPrepared, format!("machine `{}`: {why}", self.machine))
                    .hint("make room on its disk; `dora-remote machines --format json` shows what takes it"),
            );
        }
        match files {
            Files::OnMachine(dir) => self.find_on_machine(dir).await,
            Files::Bundle(bundle) => self.unpack_bundle(dataflow, *bundle, peer).await,
        }
    }

    /// Removes what is left of a run, as far as it is there.
    pub(crate) async fn remove(&self, dataflow: DataflowId, left: Left) -> io::Result<()> {
        let (path, archive) = (self.path(dataflow), self.archive(dataflow));
        blocking(move || {
            left.logs.iter().try_for_each(|log| remove_logs(log))?;
            if !left.owns_dir {
                return Ok(());
            }
            clear(&archive)?;
            clear(&path)
        })
        .await
    }

    /// Where a run that was made here has its files.
    pub(crate) fn path_of(&self, dataflow: DataflowId, left: &Left) -> Option<PathBuf> {
        left.owns_dir.then(|| self.path(dataflow))
    }

    /// Directories of runs that nobody knows: left by a daemon that was killed while it fetched.
    pub(crate) fn strangers(&self, known: impl Fn(DataflowId) -> bool) -> Vec<DataflowId> {
        let entries = fs::read_dir(&self.runs).into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.split('.').next()?.parse::<DataflowId>().ok());
        ids.filter(|id| !known(*id)).collect()
    }

    fn path(&self, dataflow: DataflowId) -> PathBuf {
        self.runs.join(dataflow.to_string())
    }

    fn archive(&self, dataflow: DataflowId) -> PathBuf {
        self.runs.join(format!("{dataflow}.bundle"))
    }

    async fn find_on_machine(&self, dir: &str) -> Result<Workdir, Refusal> {
        let path = PathBuf::from(dir);
        let refuse = |what: &str| {
            let message = format!("machine `{}`: the working directory {dir} {what}", self.machine);
            Refusal::new(RefusalCode::NotPrepared, message)
                .hint("--working-dir names a directory that is already on the machine, by its absolute path there")
        };
        if !path.is_absolute() {
            return Err(refuse("is not an absolute path"));
        }
        let looked = path.clone();
        match blocking(move || fs::metadata(&looked)).await {
            Ok(meta) if meta.is_dir() => Ok(Workdir { path, owned: false }),
            Ok(_) => Err(refuse("is not a directory")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(refuse("does not exist")),
            Err(error) => Err(refuse(&format!("cannot be used: {error}"))),
        }
    }

    async fn unpack_bundle(&self, dataflow: DataflowId, bundle: BundleRef, peer: &Peer) -> Result<Workdir, Refusal> {
        let path = self.path(dataflow);
        let archive = self.archive(dataflow);
        let made = self.fetch_and_unpack(bundle, peer, &archive, &path).await;
        let (archive_gone, path_gone) = (archive, path.clone());
        let keep = made.is_ok();
        let cleared = blocking(move || {
            clear(&archive_gone)?;
            if keep { Ok(()) } else { clear(&path_gone) }
        })
        .await;
        if let Err(error) = cleared {
            tracing::warn!(%dataflow, %error, "files of a fetched bundle cannot be removed");
        }
        made.map(|()| Workdir { path, owned: true })
    }

    async fn fetch_and_unpack(&self, bundle: BundleRef, peer: &Peer, archive: &Path, into: &Path) -> Result<(), Refusal> {
        let refuse = |what: String| Refusal::new(RefusalCode::BadBundle, format!("machine `{}`: {what}", self.machine));
        if bundle.bytes > MAX_BUNDLE_BYTES {
            return Err(refuse(format!(
                "the bundle has {} bytes, and at most {MAX_BUNDLE_BYTES} are allowed",
                bundle.bytes
            )));
        }
        let (chunks, queue) = mpsc::channel(CHUNK_QUEUE);
        let (archive, into) = (archive.to_owned(), into.to_owned());
        let disk = spawn_blocking(move || {
            receive(queue, bundle, &archive)?;
            make_fresh(&into).map_err(|error| format!("the run directory cannot be made: {error}"))?;
            let bounds = Bounds {
                bytes: bundle.unpacked_bytes.min(Bounds::BUNDLE.bytes),
                entries: bundle.entries.min(Bounds::BUNDLE.entries),
            };
            unpack_file(&archive, &into, bounds).map_err(|error| error.to_string())
        });
        let fetched = fetch(bundle, peer, chunks).await;
        let unpacked = disk
            .await
            .unwrap_or_else(|error| Err(format!("unpacking broke off: {error}")));
        // Where the connection broke, what the disk says is only a consequence.
        match (fetched, unpacked) {
            (Ok(()), unpacked) => unpacked.map_err(refuse),
            (Err(refusal), _) => Err(refusal),
        }
    }
}

/// Hands the chunks of a bundle on. The end of the queue means the end of the bundle only when this returns `Ok`.
async fn fetch(bundle: BundleRef, peer: &Peer, chunks: mpsc::Sender<Vec<u8>>) -> Result<(), Refusal> {
    let failed = |error: CallError| match error {
        CallError::Refused(refusal) => refusal,
        other => Refusal::new(RefusalCode::BadBundle, format!("the bundle could not be fetched: {other}")),
    };
    let request = FetchBundle { hash: bundle.hash };
    let mut feed = peer.feed(&request, Some(PREPARE_DEADLINE)).await.map_err(failed)?;
    while let Some(Chunk(chunk)) = feed.next().await.map_err(failed)? {
        if chunks.send(chunk).await.is_err() {
            // The disk side has given up and says why.
            return Ok(());
        }
    }
    Ok(())
}

/// Writes the chunks of a bundle to a file and checks size and hash. Blocks.
fn receive(mut chunks: mpsc::Receiver<Vec<u8>>, bundle: BundleRef, to: &Path) -> Result<(), String> {
    let written = |error: io::Error| format!("the bundle cannot be written: {error}");
    let mut file = File::create(to).map_err(written)?;
    let mut hash = blake3::Hasher::new();
    let mut bytes = 0_u64;
    while let Some(chunk) = chunks.blocking_recv() {
        bytes += chunk.len() as u64;
        if bytes > bundle.bytes || chunk.len() > BUNDLE_CHUNK_BYTES {
            return Err(format!("the bundle is longer than the {} bytes announced", bundle.bytes));
        }
        hash.update(&chunk);
        file.write_all(&chunk).map_err(written)?;
    }
    if bytes != bundle.bytes || hash.finalize().as_bytes() != &bundle.hash.0 {
        return Err(format!(
            "the bundle does not match its hash ({bytes} of {} bytes)",
            bundle.bytes
        ));
    }
    Ok(())
}

/// Removes the log files of one node, and their directory with the last of them.
fn remove_logs(current: &Path) -> io::Result<()> {
    for path in series::paths(current) {
        match fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    // It stays while there is something else in it.
    let _ = current.parent().map(fs::remove_dir);
    Ok(())
}

fn make_fresh(path: &Path) -> io::Result<()> {
    clear(path)?;
    DirBuilder::new().mode(0o700).create(path)
}

fn clear(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dora_remote_protocol::ids::BundleHash;

    fn receive_all(bundle: BundleRef, parts: &[&[u8]]) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let (chunks, queue) = mpsc::channel(parts.len().max(1));
        for part in parts {
            chunks.try_send(part.to_vec()).unwrap();
        }
        drop(chunks);
        receive(queue, bundle, &dir.path().join("b"))
    }

    #[test]
    fn only_the_announced_bytes_are_accepted() {
        let bundle = BundleRef {
            hash: BundleHash(*blake3::hash(b"hello").as_bytes()),
            bytes: 5,
            unpacked_bytes: 0,
            entries: 0,
        };
        receive_all(bundle, &[b"hel", b"lo"]).unwrap();
        for bad in [&[b"hel".as_slice()] as &[&[u8]], &[b"hellx"], &[b"hello", b"!"], &[]] {
            assert!(receive_all(bundle, bad).is_err(), "{bad:?}");
        }
    }
}
