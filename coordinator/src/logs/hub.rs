//! Where log lines arrive and where followers find them: one writing thread with group commit, and a few readers.
//!
//! The queue in front of the writer is bounded: when it is full, a machine that ships lines waits for its answer and keeps them, which
//! is what its spool is for.

use super::{
    pace::{Behind, Pace},
    room::{Room, Space},
};
use dora_remote_logstore::{Filter, LogStore, Page};
use dora_remote_protocol::{
    daemon_to_coordinator::ShipLogs,
    ids::DataflowId,
    log_line::LogBatch,
    name::MachineName,
    refusal::{Refusal, RefusalCode},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task,
};

/// How far the lines of a dataflow are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Number of the last line.
    pub(crate) last_seq: u64,
    /// Whether no more lines are waited for.
    pub(crate) is_complete: bool,
}

/// A handle; the thread ends when the last one is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    readers: Semaphore,
}

/// What the thread and the handles share.
#[derive(Debug)]
struct Shared {
    store: LogStore,
    room: Room,
    /// Whether there was no room at the last look.
    is_full: AtomicBool,
    flows: Mutex<BTreeMap<DataflowId, Flow>>,
    bytes: AtomicU64,
}

#[derive(Debug)]
struct Flow {
    machines: BTreeSet<MachineName>,
    progress: watch::Sender<Progress>,
    pace: Pace,
}

#[derive(Debug)]
enum Job {
    Store {
        machine: MachineName,
        /// Packed, so that what waits takes little.
        batch: ShipLogs,
        reply: oneshot::Sender<Result<u64, Refusal>>,
    },
    Forget(DataflowId),
}

impl Hub {
    /// Starts the thread.
    pub(crate) fn start(store: LogStore, room: Room) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            bytes: AtomicU64::new(store.bytes().unwrap_or(0)),
            flows: Mutex::new(BTreeMap::new()),
            store,
            room,
            is_full: AtomicBool::new(false),
        });
        let (queue, jobs) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new().name("logs".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.write_all(jobs)
        })?;
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                queue: Some(queue),
                thread: Some(thread),
                readers: Semaphore::new(READERS),
            }),
        })
    }

    /// Lets machines ship lines of a dataflow, and followers wait for them.
    pub(crate) fn register(&self, dataflow: DataflowId, machines: impl IntoIterator<Item = MachineName>) {
        let mut flows = self.inner.shared.flows();
        let flow = flows.entry(dataflow).or_insert_with(|| Flow {
            machines: BTreeSet::new(),
            progress: watch::Sender::new(Progress::default()),
            pace: Pace::default(),
        });
        flow.machines.extend(machines);
    }

    /// Says that no more lines of a dataflow are waited for. Late ones are stored all the same.
    pub(crate) fn complete(&self, dataflow: DataflowId) {
        if let Some(flow) = self.inner.shared.flows().get(&dataflow) {
            flow.progress.send_modify(|progress| progress.is_complete = true);
        }
    }

    /// Removes the lines of a dataflow; nothing waits for it. When the queue is full they stay until eviction takes them.
    pub(crate) fn forget(&self, dataflow: DataflowId) {
        self.inner.shared.flows().remove(&dataflow);
        if let Some(queue) = &self.inner.queue
            && queue.try_send(Job::Forget(dataflow)).is_err()
        {
            tracing::warn!(%dataflow, "its log lines stay until they are evicted: the log writer is busy");
        }
    }

    /// Stores a batch, and returns once it is on the disk: up to which offset the machine may forget its lines.
    pub(crate) async fn ship(&self, machine: MachineName, batch: ShipLogs) -> Result<u64, Refusal> {
        let runs_it = |flow: &Flow| flow.machines.iter().any(|name| name.same_as(&machine));
        let may_ship = self.inner.shared.flows().get(&batch.dataflow).map(runs_it);
        match may_ship {
            Some(true) => {}
            Some(false) => {
                return Err(Refusal::new(
                    RefusalCode::Denied,
                    format!("machine `{machine}` runs nothing of dataflow {}", batch.dataflow),
                ));
            }
            None => {
                // Nobody will ever read these lines, and the machine need not keep them.
                tracing::debug!(%machine, dataflow = %batch.dataflow, "dropped log lines of an unknown dataflow");
                return Ok(batch.records.last);
            }
        }
        let ending = || Refusal::new(RefusalCode::ShuttingDown, "the log writer is ending");
        let (reply, answer) = oneshot::channel();
        let queue = self.inner.queue.as_ref().ok_or_else(ending)?;
        queue.send(Job::Store { machine, batch, reply }).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }

    /// Waits for news of a dataflow; none when it is unknown.
    pub(crate) fn progress(&self, dataflow: DataflowId) -> Option<watch::Receiver<Progress>> {
        self.inner.shared.flows().get(&dataflow).map(|flow| flow.progress.subscribe())
    }

    /// Reads lines; see [`LogStore::read`].
    pub(crate) async fn read(&self, dataflow: DataflowId, after: u64, filter: &Arc<Filter>) -> Result<Page, Refusal> {
        let filter = Arc::clone(filter);
        self.blocking(move |store| store.read(dataflow, after, &filter, PAGE_BYTES))
            .await
    }

    /// How far behind a follower is that has got everything up to `cursor`.
    pub(crate) fn behind(&self, dataflow: DataflowId, cursor: u64) -> Option<Behind> {
        let flows = self.inner.shared.flows();
        flows.get(&dataflow).map(|flow| flow.pace.behind(cursor, Instant::now()))
    }

    /// The cursor behind which the last `lines` wanted lines follow; see [`LogStore::tail`]. A long search lets other readers in
    /// between.
    pub(crate) async fn tail_cursor(&self, dataflow: DataflowId, lines: u64, filter: &Arc<Filter>) -> Result<u64, Refusal> {
        let mut search = self.blocking(move |store| store.tail(dataflow, lines)).await?;
        loop {
            let filter = Arc::clone(filter);
            let step = move |store: &LogStore| {
                let found = store.tail_step(&mut search, &filter, SEARCH_BYTES)?;
                Ok((search, found))
            };
            let (so_far, found) = self.blocking(step).await?;
            if let Some(cursor) = found {
                return Ok(cursor);
            }
            search = so_far;
        }
    }

    /// See [`LogStore::last_seq`].
    pub(crate) async fn last_seq(&self, dataflow: DataflowId) -> Result<u64, Refusal> {
        self.blocking(move |store| store.last_seq(dataflow)).await
    }

    /// Bytes of stored lines.
    pub(crate) fn bytes(&self) -> u64 {
        self.inner.shared.bytes.load(Ordering::Relaxed)
    }

    /// Space of the disk under the store.
    pub(crate) fn space(&self) -> Space {
        self.inner.shared.room.space()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&LogStore) -> Result<T, dora_remote_logstore::LogStoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, "cannot read log lines");
            Refusal::new(RefusalCode::Internal, "the log store cannot be read")
        };
        let _permit = self.inner.readers.acquire().await.map_err(|error| failed(&error))?;
        let shared = Arc::clone(&self.inner.shared);
        let read = task::spawn_blocking(move || read(&shared.store)).await;
        read.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log writer has panicked");
        }
    }
}

impl Shared {
    /// Writes what comes; whatever came while the last transaction was written goes into the next one.
    fn write_all(&self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut batches = Vec::new();
            let mut replies = Vec::new();
            let mut forget = Vec::new();
            let mut next = Some(first);
            let mut bytes = 0;
            while let Some(job) = next.take() {
                match job {
                    Job::Store { machine, batch, reply } => {
                        bytes += batch.records.raw_bytes();
                        match batch.unpack() {
                            Ok(batch) => {
                                batches.push((machine, batch));
                                replies.push(reply);
                            }
                            Err(error) => {
                                let refusal = format!("{error}; nothing of the batch was stored");
                                drop(reply.send(Err(Refusal::new(RefusalCode::BadRequest, refusal))));
                            }
                        }
                    }
                    Job::Forget(dataflow) => forget.push(dataflow),
                }
                if batches.len() < GROUP && bytes < GROUP_BYTES {
                    next = jobs.try_recv().ok();
                }
            }
            self.write(&batches, replies);
            for dataflow in forget {
                if let Err(error) = self.store.forget(dataflow) {
                    tracing::error!(%error, %dataflow, "cannot remove log lines");
                }
            }
            self.bytes.store(self.store.bytes().unwrap_or(0), Ordering::Relaxed);
        }
    }

    fn write(&self, batches: &[(MachineName, LogBatch)], replies: Vec<oneshot::Sender<Result<u64, Refusal>>>) {
        if batches.is_empty() {
            return;
        }
        let has_room = self.room.has_some();
        if self.is_full.swap(!has_room, Ordering::Relaxed) == has_room {
            match has_room {
                true => tracing::info!("there is room for log lines again"),
                false => tracing::warn!("the disk is nearly full: machines keep their log lines and try again"),
            }
        }
        if !has_room {
            for reply in replies {
                let full = Refusal::new(RefusalCode::Busy, "the coordinator's disk has no room for log lines");
                drop(reply.send(Err(full)));
            }
            return;
        }
        match self.store.append(batches) {
            Ok(appended) => {
                for (done, reply) in appended.into_iter().zip(replies) {
                    // An asker that went away sends its lines again, and they are dropped then.
                    drop(reply.send(Ok(done.acked_offset)));
                    // A gap is news as well, though it stores no line.
                    if let Some(flow) = self.flows().get_mut(&done.dataflow)
                        && done.last_seq > flow.progress.borrow().last_seq
                    {
                        flow.pace.stored(done.last_seq, Instant::now());
                        flow.progress.send_modify(|progress| progress.last_seq = done.last_seq);
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "cannot store log lines; machines keep them and try again");
                for reply in replies {
                    drop(reply.send(Err(Refusal::new(RefusalCode::Internal, "the log store cannot be written"))));
                }
            }
        }
    }

    fn flows(&self) -> MutexGuard<'_, BTreeMap<DataflowId, Flow>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Batches that wait for the writer; when it is full, machines wait.
const QUEUE: usize = 256;
/// Most batches of one transaction: bounds how long the first of them waits.
const GROUP: usize = 64;
/// Bytes of unpacked batches after which a transaction takes no further one.
const GROUP_BYTES: usize = 4 << 20;
/// Readers at once: the disk gains nothing from more, and each holds a decompressed block.
const READERS: usize = 4;
/// Bytes of one page, far below a frame.
const PAGE_BYTES: usize = 256 << 10;
/// Bytes of lines that a search for the last so many looks at before others may read.
const SEARCH_BYTES: usize = 4 << 20;
