//! Who did what and when: every refused and every state-changing command, in a chain of hashes on the disk.
//!
//! An entry is written after its command, before the asker hears of it. When that fails, the entry is kept and tried again, and commands
//! that change something are refused until it works; only `stop` and `revoke` are not, because what is dangerous must be stoppable.
//!
//! - `draft`: what is to be said; `throttle`: how much of what was refused;
//! - `ledger`: the file; `writer`: the thread in front of it;
//! - `follow`: who reads; `signer` and `witnesses`: the signed ends that daemons keep.

mod draft;
pub(crate) mod follow;
pub(crate) mod ledger;
pub(crate) mod signer;
mod throttle;
pub(crate) mod witnesses;
mod writer;

pub(crate) use draft::Draft;

use crate::{moment::Moment, store::StoreError};
use dora_remote_protocol::{
    audit::{AuditEntry, MAX_AUDIT_ENTRIES, chain::Chain},
    refusal::{Refusal, RefusalCode},
};
use ledger::{AuditFile, Filter, Page};
use redb::Database;
use std::{fmt, io, path::Path, sync::Arc};
use tokio::{
    sync::{Semaphore, watch},
    task,
};
use writer::Writer;

/// The way to the audit. Clones are handles; the thread ends when the last one is dropped.
#[derive(Clone, Debug)]
pub(crate) struct AuditHandle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    writer: Writer,
    file: AuditFile,
    readers: Semaphore,
}

impl AuditHandle {
    /// Starts the thread on a file that was opened.
    pub(crate) fn start(file: AuditFile, chain: Chain) -> io::Result<Self> {
        let writer = Writer::start(file.clone(), chain, writer::AGAIN_AFTER)?;
        let inner = Inner {
            writer,
            file,
            readers: Semaphore::new(READERS),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Opens the file of a state directory. What is wrong with its newest entries is told to the log and recorded; it is used all the same.
    pub(crate) fn open(path: &Path) -> Result<(AuditFile, Chain, Option<Draft>), StoreError> {
        let (file, opened) = AuditFile::open(path, MAX_AUDIT_ENTRIES)?;
        let found = opened.fault.map(|fault| {
            tracing::error!(
                path = %path.display(),
                fault,
                "THE AUDIT WAS TAMPERED WITH OR IS DAMAGED; look at it with `dora-remote audit --verify`"
            );
            let damaged: Result<(), _> = Err(Refusal::new(RefusalCode::Internal, fault));
            Draft::by_coordinator("open-audit", "the chain of the audit").result(&damaged)
        });
        Ok((file, opened.chain, found))
    }

    /// Records what was done or refused, and returns once it is on the disk, or after a few seconds.
    pub(crate) async fn record(&self, draft: Draft) {
        self.inner.writer.record(draft).await;
    }

    /// Records a refusal without waiting. When too many come at once, some are counted only.
    pub(crate) fn refused(&self, draft: Draft) {
        self.inner.writer.refused(draft);
    }

    /// Refuses what would change something while the audit cannot be written.
    ///
    /// # Errors
    /// A refusal with the code `Internal` that changed nothing.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        self.inner.writer.check()
    }

    /// The end of the chain as it is on the disk, now and whenever it moves.
    pub(crate) fn end(&self) -> watch::Receiver<Chain> {
        self.inner.writer.end()
    }

    /// Reads entries above a number.
    pub(crate) async fn read(&self, after: u64, filter: &Arc<Filter>) -> Result<Page, Refusal> {
        let filter = Arc::clone(filter);
        self.blocking(move |file| file.read(after, &filter)).await
    }

    /// The entry of this number, if it is kept.
    pub(crate) async fn entry(&self, seq: u64) -> Result<Option<AuditEntry>, Refusal> {
        self.blocking(move |file| file.entry(seq)).await
    }

    /// Remembers that entries which were witnessed up to now and are not here were lost in a restore, and that somebody was told.
    pub(crate) async fn settle(&self) -> Result<(), Refusal> {
        let now = Moment::now().unix_ms;
        self.blocking(move |file| file.settle(now)).await
    }

    /// See [`Self::settle`]; 0 when there was no restore.
    pub(crate) async fn settled_unix_ms(&self) -> Result<u64, Refusal> {
        self.blocking(AuditFile::settled_unix_ms).await
    }

    /// The file itself, for a backup.
    pub(crate) fn database(&self) -> Arc<Database> {
        self.inner.file.database()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&AuditFile) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let failed = |error: &dyn fmt::Display| {
            tracing::error!(%error, "cannot read the audit");
            Refusal::new(RefusalCode::Internal, "the audit cannot be read")
        };
        let _permit = self.inner.readers.acquire().await.map_err(|error| failed(&error))?;
        let file = self.inner.file.clone();
        let done = task::spawn_blocking(move || work(&file)).await;
        done.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }
}

/// Readers at once; followers wait for each other.
const READERS: usize = 2;
