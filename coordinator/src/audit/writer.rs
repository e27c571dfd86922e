//! The thread that writes the audit: everything that came while the last transaction was written goes into the next one.
//!
//! Its queue is bounded. Who records what was done waits for the disk; who tells of a refusal does not, and what does not fit is counted.
//! While the disk fails, the thread tries again and [`Writer::check`] refuses what would change something.

use super::{Draft, ledger::Ledger, throttle::Throttle};
use crate::moment::Moment;
use dora_remote_protocol::{
    audit::{AuditEntry, chain::Chain},
    refusal::{Refusal, RefusalCode},
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

/// The way to the thread, which ends when this is dropped and everything is written.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Job>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    end: watch::Sender<Chain>,
    is_failing: AtomicBool,
    /// Drafts that found the queue full.
    lost: AtomicU64,
}

#[derive(Debug)]
struct Job {
    draft: Draft,
    /// Told once the entry is on the disk.
    done: Option<oneshot::Sender<()>>,
}

impl Writer {
    /// Starts the thread, which goes on from this end of the chain.
    pub(crate) fn start(ledger: impl Ledger, chain: Chain, again_after: Duration) -> io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            end: watch::Sender::new(chain),
            is_failing: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        });
        let thread = thread::Builder::new().name("audit".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.write_all(ledger, chain, jobs, again_after)
        })?;
        Ok(Self {
            queue: Some(queue),
            shared,
            thread: Some(thread),
        })
    }

    /// Writes an entry, and returns once it is on the disk, or after [`RECORD_WAIT`]. It is written later then.
    pub(crate) async fn record(&self, draft: Draft) {
        let Some(queue) = &self.queue else { return };
        if self.shared.is_failing.load(Ordering::Relaxed) {
            self.refused(draft);
            return;
        }
        let (done, written) = oneshot::channel();
        let began = Instant::now();
        let Ok(Ok(place)) = timeout(RECORD_WAIT, queue.reserve()).await else {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!(?draft, "no place for an entry of the audit; it is counted only");
            return;
        };
        place.send(Job { draft, done: Some(done) });
        if timeout(RECORD_WAIT.saturating_sub(began.elapsed()), written).await.is_err() {
            tracing::error!("an entry of the audit is not on the disk yet; it is tried again");
        }
    }

    /// Writes an entry without waiting for it. When the queue is nearly full it is counted only: the rest is for what was done.
    pub(crate) fn refused(&self, draft: Draft) {
        let Some(queue) = &self.queue else { return };
        let fits = queue.capacity() > RESERVED && queue.try_send(Job { draft, done: None }).is_ok();
        if !fits {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Refuses what would change something while nothing can be written.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if self.shared.is_failing.load(Ordering::Relaxed) {
            let message = "the coordinator cannot write its audit, and changes nothing without a record";
            return Err(Refusal::new(RefusalCode::Internal, message)
                .hint("look at the coordinator's log and its disk; `stop` and `revoke` work all the same"));
        }
        Ok(())
    }

    /// The end of the chain as it is on the disk, now and whenever it moves.
    pub(crate) fn end(&self) -> watch::Receiver<Chain> {
        self.shared.end.subscribe()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the audit's thread has panicked");
        }
    }
}

impl Shared {
    fn write_all(&self, mut ledger: impl Ledger, mut chain: Chain, mut jobs: mpsc::Receiver<Job>, again_after: Duration) {
        let mut throttle = Throttle::default();
        while let Some(first) = jobs.blocking_recv() {
            let mut drafts = Vec::new();
            let mut waiting = Vec::new();
            let mut next = Some(first);
            let now = Instant::now();
            while let Some(job) = next.take() {
                waiting.extend(job.done);
                if job.draft.is_done() || throttle.admits(&job.draft.who, now) {
                    drafts.push(job.draft);
                }
                if drafts.len() < GROUP {
                    next = jobs.try_recv().ok();
                }
            }
            let lost = self.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                drafts.push(Draft::not_told("coordinator", lost));
            }
            drafts.extend(withheld(&mut throttle, now, false));
            if !self.write(&mut ledger, &mut chain, drafts, &jobs, again_after) {
                return;
            }
            for done in waiting {
                // Who waits no longer is no error.
                done.send(()).ok();
            }
        }
        let rest = withheld(&mut throttle, Instant::now(), true).collect();
        self.write(&mut ledger, &mut chain, rest, &jobs, again_after);
    }

    /// Writes until it works; false when it is time to end before it did.
    fn write(
        &self,
        ledger: &mut impl Ledger,
        chain: &mut Chain,
        drafts: Vec<Draft>,
        jobs: &mpsc::Receiver<Job>,
        again_after: Duration,
    ) -> bool {
        let (entries, end) = tie(*chain, drafts);
        if entries.is_empty() {
            return true;
        }
        loop {
            match ledger.append(&entries) {
                Ok(()) => {
                    if self.is_failing.swap(false, Ordering::Relaxed) {
                        tracing::info!("the audit can be written again");
                    }
                    *chain = end;
                    self.end.send_replace(end);
                    return true;
                }
                Err(error) => {
                    if !self.is_failing.swap(true, Ordering::Relaxed) {
                        tracing::error!(%error, "cannot write the audit; commands that change something are refused until it works");
                    }
                    if jobs.is_closed() {
                        tracing::error!(%error, entries = entries.len(), "ending with entries of the audit that could not be written");
                        return false;
                    }
                    thread::sleep(again_after);
                }
            }
        }
    }
}

/// Ties drafts to the end of a chain. One that cannot be encoded, which texts and numbers always can, is left out and told to the log.
fn tie(mut chain: Chain, drafts: Vec<Draft>) -> (Vec<AuditEntry>, Chain) {
    let at_unix_ms = Moment::now().unix_ms;
    let mut entries = Vec::with_capacity(drafts.len());
    for draft in drafts {
        match chain.append(draft.entry(at_unix_ms)) {
            Ok(entry) => entries.push(entry),
            Err(error) => tracing::error!(%error, "an entry of the audit cannot be encoded"),
        }
    }
    (entries, chain)
}

fn withheld(throttle: &mut Throttle, now: Instant, is_end: bool) -> impl Iterator<Item = Draft> {
    let over = throttle.take_over(now, is_end);
    over.into_iter().map(|(who, count)| Draft::not_told(&who, count))
}

/// Entries that wait for the disk; when it is full, who records waits, and who tells of a refusal is counted.
const QUEUE: usize = 1_024;
/// Places of the queue that are kept for what was done.
const RESERVED: usize = QUEUE / 4;
/// Most entries of one transaction: bounds how long the first of them waits.
const GROUP: usize = 256;
/// Longest wait of a command for its entry.
const RECORD_WAIT: Duration = Duration::from_secs(5);
/// Wait before a disk that failed is tried again.
pub(crate) const AGAIN_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
