//! A copy of everything that a coordinator must not forget, and the way back.
//!
//! A backup holds who may come in, what was revoked, the dataflows, the machines and the audit. It holds no private key, no log lines, no
//! archives of dataflow folders and no keys of fast return: keys belong to the authority's own backup, and the rest is not worth its size.
//!
//! - `records`: consistent copies while a coordinator runs; `archive`: the one file that they become;
//! - `restore`: putting one in place of the records of a coordinator that does not run.

mod archive;
pub(crate) mod records;
mod restore;

pub use archive::ArchiveError;
pub(crate) use restore::refuse_half_restored;
pub use restore::{RestoreError, RestoreReport, restore};

use crate::{handlers::Desk, moment::Moment, out::Out};
use archive::{BackupHeader, PIECE_BYTES};
use dora_remote_protocol::{
    chunk::Chunk,
    refusal::{Refusal, RefusalCode},
};
use records::{Copies, Records};
use std::{
    fmt,
    fs::File,
    io::{self, Read},
    sync::Arc,
};
use tokio::{
    sync::{Mutex, OwnedMutexGuard, mpsc},
    task,
};

/// Makes backups, one at a time. Clones are handles.
#[derive(Clone, Debug)]
pub(crate) struct Backups {
    records: Records,
    one: Arc<Mutex<()>>,
}

/// A backup that is ready to be sent. Its files are removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Backup {
    copies: Copies,
    _one: OwnedMutexGuard<()>,
}

impl Backups {
    pub(crate) fn new(records: Records) -> Self {
        Self {
            records,
            one: Arc::default(),
        }
    }

    /// Copies the records as they are now.
    pub(crate) async fn make(&self, desk: &Desk) -> Result<Backup, Refusal> {
        let one = Arc::clone(&self.one)
            .try_lock_owned()
            .map_err(|_| Refusal::new(RefusalCode::Busy, "another backup is being made").hint("try again when it is done"))?;
        let header = BackupHeader {
            coordinator: desk.about.identity.clone(),
            build: desk.about.build.to_owned(),
            store_epoch: desk.registry.epoch(),
            made_unix_ms: Moment::now().unix_ms,
            files: Vec::new(),
        };
        let records = self.records.clone();
        let copied = task::spawn_blocking(move || records.copy(header)).await;
        let copies = copied.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        Ok(Backup { copies, _one: one })
    }
}

impl Backup {
    /// Sends all of it. A reader that goes away is no error.
    pub(crate) async fn send(self, out: &Out<Chunk>) -> Result<(), Refusal> {
        let (chunks, mut incoming) = mpsc::channel(CHUNKS_AHEAD);
        // Ends by itself when the receiver is dropped.
        let reading = task::spawn_blocking(move || self.read(&chunks));
        while let Some(chunk) = incoming.recv().await {
            if out.send(Chunk(chunk)).await.is_err() {
                return Ok(());
            }
        }
        drop(incoming);
        reading.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }

    fn read(&self, chunks: &mpsc::Sender<Vec<u8>>) -> io::Result<()> {
        let mut hasher = blake3::Hasher::new();
        let mut send = |bytes: Vec<u8>| {
            hasher.update(&bytes);
            chunks.blocking_send(bytes).is_ok()
        };
        let header = self.copies.header.encode().map_err(io::Error::other)?;
        if !send(header) {
            return Ok(());
        }
        for (name, bytes) in &self.copies.header.files {
            let mut file = File::open(self.copies.path(name))?.take(*bytes);
            loop {
                let mut piece = Vec::with_capacity(PIECE_BYTES);
                if (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece)? == 0 {
                    break;
                }
                if !send(piece) {
                    return Ok(());
                }
            }
        }
        drop(chunks.blocking_send(hasher.finalize().as_bytes().to_vec()));
        Ok(())
    }
}

fn failed(error: &dyn fmt::Display) -> Refusal {
    tracing::error!(%error, "cannot make a backup");
    Refusal::new(RefusalCode::Internal, "the backup cannot be made").hint("look at the coordinator's log and at its disk")
}

/// Chunks of a backup that wait for the network; when it is full, the disk waits.
const CHUNKS_AHEAD: usize = 8;
