//! Archives of dataflow folders: kept under their hash, checked on arrival, bounded in all, the least recently used removed first.
//!
//! Files are touched on threads that may block. What is in an archive is the business of the machines that unpack it.

use dora_remote_protocol::{
    dataflow::BundleRef,
    ids::{BundleHash, DataflowId},
    limits::{BUNDLE_CHUNK_BYTES, MAX_BUNDLE_BYTES, MAX_BUNDLE_ENTRIES, MAX_UNPACKED_BYTES},
    refusal::{Refusal, RefusalCode},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
    task,
};
use uuid::Uuid;

/// A handle to the archives.
#[derive(Clone, Debug)]
pub(crate) struct Bundles {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    cap: u64,
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    entries: BTreeMap<BundleHash, Entry>,
    /// Dataflows that have not ended, and what they need.
    pins: BTreeMap<DataflowId, BundleHash>,
    /// Bytes that are on their way in.
    reserved: u64,
    /// Counts uses, so that they have an order.
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    bytes: u64,
    last_use: u64,
}

impl Bundles {
    /// Opens the folder `dir`, or makes it, and removes what was not finished. Holds at most `cap` bytes.
    pub(crate) fn open(dir: &Path, cap: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut found = Vec::new();
        for file in fs::read_dir(dir)? {
            let file = file?;
            let metadata = file.metadata()?;
            match file.file_name().to_str().and_then(parse_hash) {
                Some(hash) if metadata.is_file() => {
                    found.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), hash, metadata.len()));
                }
                _ if metadata.is_file() => fs::remove_file(file.path())?,
                _ => {}
            }
        }
        found.sort_unstable();
        let mut index = Index::default();
        for (_, hash, bytes) in found {
            index.insert(hash, bytes);
        }
        Ok(Self {
            inner: Arc::new(Inner {
                dir: dir.to_owned(),
                cap,
                index: Mutex::new(index),
            }),
        })
    }

    /// Whether an archive is here. Asking counts as a use.
    pub(crate) fn has(&self, hash: BundleHash) -> bool {
        self.inner.index().touch(hash)
    }

    /// Keeps an archive as long as a dataflow needs it.
    pub(crate) fn pin(&self, dataflow: DataflowId, hash: BundleHash) {
        self.inner.index().pins.insert(dataflow, hash);
    }

    /// Ends what [`Bundles::pin`] began.
    pub(crate) fn unpin(&self, dataflow: DataflowId) {
        self.inner.index().pins.remove(&dataflow);
    }

    /// Stores an archive. Nothing is kept unless size and hash are as announced; a caller that is dropped leaves nothing either.
    pub(crate) async fn put(&self, bundle: BundleRef, mut body: impl AsyncRead + Unpin) -> Result<(), Refusal> {
        check_announcement(&bundle)?;
        if self.has(bundle.hash) {
            return Ok(());
        }
        let (chunks, incoming) = mpsc::channel(CHUNKS_AHEAD);
        let inner = Arc::clone(&self.inner);
        let writing = task::spawn_blocking(move || inner.write(bundle, incoming));
        let mut failure = None;
        loop {
            let mut chunk = Vec::with_capacity(BUNDLE_CHUNK_BYTES);
            let mut part = (&mut body).take(BUNDLE_CHUNK_BYTES as u64);
            match part.read_to_end(&mut chunk).await {
                Ok(0) => break,
                // The writer has gone: it says why.
                Ok(_) if chunks.send(chunk).await.is_err() => break,
                Ok(_) => {}
                Err(error) => {
                    failure = Some(Refusal::new(RefusalCode::BadBundle, format!("the upload broke off: {error}")));
                    break;
                }
            }
        }
        drop(chunks);
        let written = writing.await.map_err(|error| internal(&error))?;
        failure.map_or(written, Err)
    }

    /// Reads an archive in chunks; the sender waits while a few of them are not taken.
    pub(crate) fn fetch(&self, hash: BundleHash) -> Result<mpsc::Receiver<io::Result<Vec<u8>>>, Refusal> {
        if !self.has(hash) {
            return Err(Refusal::new(RefusalCode::NotFound, format!("the bundle {hash} is not here"))
                .hint("start the dataflow again, which uploads it"));
        }
        let (chunks, outgoing) = mpsc::channel(CHUNKS_AHEAD);
        let path = self.inner.path(hash);
        // Ends by itself when the receiver is dropped.
        drop(task::spawn_blocking(move || {
            if let Err(error) = read_chunks(&path, &chunks) {
                drop(chunks.blocking_send(Err(error)));
            }
        }));
        Ok(outgoing)
    }
}

impl Inner {
    fn write(&self, bundle: BundleRef, mut incoming: mpsc::Receiver<Vec<u8>>) -> Result<(), Refusal> {
        let _room = self.reserve(bundle.bytes)?;
        let temporary = Temporary(self.dir.join(format!("{TEMPORARY}{}", Uuid::new_v4())));
        let mut file = File::create_new(&temporary.0).map_err(|error| internal(&error))?;
        let mut hasher = blake3::Hasher::new();
        let mut bytes = 0_u64;
        while let Some(chunk) = incoming.blocking_recv() {
            bytes += chunk.len() as u64;
            if bytes > bundle.bytes {
                return Err(bad(format!("the bundle has more than the announced {} bytes", bundle.bytes)));
            }
            hasher.update(&chunk);
            file.write_all(&chunk).map_err(|error| internal(&error))?;
        }
        if bytes != bundle.bytes {
            return Err(bad(format!(
                "the bundle has {bytes} bytes, and {} were announced",
                bundle.bytes
            )));
        }
        let hash = BundleHash(*hasher.finalize().as_bytes());
        if hash != bundle.hash {
            return Err(bad(format!("the bundle hashes to {hash}, and {} was announced", bundle.hash)));
        }
        let keep = || {
            file.sync_all()?;
            fs::rename(&temporary.0, self.path(hash))?;
            File::open(&self.dir)?.sync_all()
        };
        keep().map_err(|error| internal(&error))?;
        self.index().insert(hash, bytes);
        Ok(())
    }

    /// Makes room by removing what was not used for longest and is not needed.
    fn reserve(&self, bytes: u64) -> Result<Room<'_>, Refusal> {
        let mut index = self.index();
        while index.held() + bytes > self.cap {
            let pinned: Vec<_> = index.pins.values().copied().collect();
            let unneeded = index.entries.iter().filter(|(hash, _)| !pinned.contains(hash));
            let Some(hash) = unneeded.min_by_key(|(_, entry)| entry.last_use).map(|(hash, _)| *hash) else {
                return Err(Refusal::new(
                    RefusalCode::Busy,
                    format!(
                        "the store of bundles is full ({} bytes) with those of running dataflows",
                        self.cap
                    ),
                )
                .hint("stop dataflows that are not needed, or use `--working-dir`"));
            };
            index.entries.remove(&hash);
            if let Err(error) = fs::remove_file(self.path(hash)) {
                tracing::warn!(%error, %hash, "cannot remove a bundle");
            }
        }
        index.reserved += bytes;
        Ok(Room { inner: self, bytes })
    }

    fn path(&self, hash: BundleHash) -> PathBuf {
        self.dir.join(hash.to_string())
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn insert(&mut self, hash: BundleHash, bytes: u64) {
        self.uses += 1;
        let last_use = self.uses;
        self.entries.insert(hash, Entry { bytes, last_use });
    }

    fn touch(&mut self, hash: BundleHash) -> bool {
        self.uses += 1;
        let now = self.uses;
        let entry = self.entries.get_mut(&hash);
        entry.map(|entry| entry.last_use = now).is_some()
    }

    fn held(&self) -> u64 {
        self.entries.values().map(|entry| entry.bytes).sum::<u64>() + self.reserved
    }
}

/// Room that is promised to one upload.
struct Room<'a> {
    inner: &'a Inner,
    bytes: u64,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.inner.index().reserved -= self.bytes;
    }
}

/// A file that goes unless it was renamed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing to remove.
        drop(fs::remove_file(&self.0));
    }
}

fn check_announcement(bundle: &BundleRef) -> Result<(), Refusal> {
    for (what, is, most) in [
        ("bytes", bundle.bytes, MAX_BUNDLE_BYTES),
        ("unpacked bytes", bundle.unpacked_bytes, MAX_UNPACKED_BYTES),
        ("entries", bundle.entries, MAX_BUNDLE_ENTRIES),
    ] {
        if is > most {
            return Err(bad(format!("the bundle has {is} {what}, and at most {most} are allowed"))
                .hint("name what is not needed in .gitignore, or use `--working-dir`"));
        }
    }
    Ok(())
}

fn read_chunks(path: &Path, chunks: &mpsc::Sender<io::Result<Vec<u8>>>) -> io::Result<()> {
    let mut file = File::open(path)?;
    // The order of use survives a restart as the order of these times.
    if let Err(error) = file.set_modified(SystemTime::now()) {
        tracing::debug!(%error, "cannot note the use of a bundle");
    }
    loop {
        let mut chunk = Vec::with_capacity(BUNDLE_CHUNK_BYTES);
        (&mut file).take(BUNDLE_CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() || chunks.blocking_send(Ok(chunk)).is_err() {
            return Ok(());
        }
    }
}

fn parse_hash(text: &str) -> Option<BundleHash> {
    if text.len() != 64 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut hash = [0; 32];
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(BundleHash(hash))
}

fn bad(message: String) -> Refusal {
    Refusal::new(RefusalCode::BadBundle, message)
}

fn internal(error: &dyn std::fmt::Display) -> Refusal {
    tracing::error!(%error, "cannot store a bundle");
    Refusal::new(RefusalCode::Internal, "the bundle cannot be stored")
}

/// Chunks that one side may be ahead of the other.
const CHUNKS_AHEAD: usize = 8;
/// How names of unfinished files begin.
const TEMPORARY: &str = "incoming-";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_archive_is_kept_only_if_it_is_what_was_announced() {
        let dir = tempfile::tempdir().unwrap();
        let bundles = Bundles::open(dir.path(), 1_000_000).unwrap();
        let content = vec![7_u8; 200_000];
        let good = announce(&content);
        let short = BundleRef { bytes: 200_001, ..good };
        let long = BundleRef { bytes: 199_999, ..good };
        let other = BundleRef {
            hash: BundleHash([1; 32]),
            ..good
        };
        for wrong in [short, long, other] {
            assert_eq!(
                bundles.put(wrong, content.as_slice()).await.unwrap_err().code,
                RefusalCode::BadBundle
            );
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
        bundles.put(good, content.as_slice()).await.unwrap();
        bundles.put(good, [].as_slice()).await.unwrap();

        let reopened = Bundles::open(dir.path(), 1_000_000).unwrap();
        assert!(reopened.has(good.hash));
        let mut chunks = reopened.fetch(good.hash).unwrap();
        let mut fetched = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            fetched.extend(chunk.unwrap());
        }
        assert_eq!(fetched, content);
    }

    #[tokio::test]
    async fn the_least_recently_used_goes_unless_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let bundles = Bundles::open(dir.path(), 250).unwrap();
        let content = |fill: u8| vec![fill; 100];
        let dataflow = DataflowId(Uuid::from_u128(1));
        bundles.put(announce(&content(1)), content(1).as_slice()).await.unwrap();
        bundles.put(announce(&content(2)), content(2).as_slice()).await.unwrap();
        bundles.pin(dataflow, announce(&content(1)).hash);
        bundles.put(announce(&content(3)), content(3).as_slice()).await.unwrap();
        assert!(bundles.has(announce(&content(1)).hash) && !bundles.has(announce(&content(2)).hash));
        bundles.pin(DataflowId(Uuid::from_u128(2)), announce(&content(3)).hash);
        let full = bundles.put(announce(&content(4)), content(4).as_slice()).await.unwrap_err();
        assert_eq!(full.code, RefusalCode::Busy);
        bundles.unpin(dataflow);
        bundles.put(announce(&content(4)), content(4).as_slice()).await.unwrap();
        assert!(!bundles.has(announce(&content(1)).hash));
    }

    fn announce(content: &[u8]) -> BundleRef {
        BundleRef {
            hash: BundleHash(*blake3::hash(content).as_bytes()),
            bytes: content.len() as u64,
            unpacked_bytes: 1,
            entries: 1,
        }
    }
}
