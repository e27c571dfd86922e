//! Follows the output of every run's nodes on disk, and the messages about the run, and hands batches of lines to `shipper`.
//!
//! Runs on a thread of its own, as it reads files all the time. A batch counts as shipped once it is acknowledged; until then
//! its lines are read again after a restart, under the same offsets.

mod drain;
pub(crate) mod flow;
mod line;
mod relief;
pub(crate) mod series;

use crate::{
    clock::now_unix_ms,
    demand::Demand,
    disk::Disk,
    records::{LogCursor, RunPlan},
    store::StoreError,
    store_thread::StoreHandle,
};
use dora_remote_protocol::{daemon_to_coordinator::ShipLogs, ids::DataflowId, log_line::LogSource};
use flow::Flow;
use std::{collections::BTreeMap, io, sync::Arc, thread, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

/// Batches under way at once, over all sources; never two of one source, so that its lines arrive in order.
pub(crate) const WINDOW: usize = 4;
/// Commands that may wait; when it is full, the supervisor waits, which never waits for the network.
const QUEUE: usize = 256;
/// Pause between two looks at the files, and between two batches of one node that are not full: few batches, and prompt ones.
const POLL: Duration = Duration::from_millis(50);
/// Quiet time after the end of a run before its files count as complete: the engine's last write may come after its last word.
const SETTLE: Duration = Duration::from_millis(300);
/// How long an acknowledgement may stay in memory; after a crash those lines are sent again, and dropped as doubles.
const SAVE_EVERY: Duration = Duration::from_secs(2);

/// What the tail can be told.
#[derive(Debug)]
pub(crate) enum TailCommand {
    /// Follow a run.
    Follow {
        /// Its outputs.
        plan: Box<RunPlan>,
        /// Whether it has ended already.
        ended: bool,
    },
    /// There are new messages about a run.
    Messages(DataflowId),
    /// More lines of a run could not be written.
    Lost(DataflowId),
    /// A run has ended: when all of it is read, its lines are complete.
    Ended(DataflowId),
    /// A run is forgotten.
    Forget(DataflowId),
    /// A batch was stored by the coordinator, or refused for good.
    Acked {
        /// Which run.
        dataflow: DataflowId,
        /// Which source.
        source: LogSource,
    },
    /// Tell when every line of a run that exists now is acknowledged, or when the run is not followed any more.
    Drain {
        /// Which run.
        dataflow: DataflowId,
        /// Whom to tell.
        done: oneshot::Sender<()>,
    },
    /// Store all cursors and end.
    Stop(oneshot::Sender<()>),
}

/// A handle of the tail's thread.
#[derive(Clone, Debug)]
pub(crate) struct TailHandle {
    commands: mpsc::Sender<TailCommand>,
}

/// Where the tail's results go.
#[derive(Debug)]
pub(crate) struct TailOutputs {
    /// Batches for the shipper; at most [`WINDOW`] are under way.
    pub(crate) batches: mpsc::Receiver<ShipLogs>,
    /// Runs all of whose lines were acknowledged.
    pub(crate) shipped: mpsc::Receiver<DataflowId>,
    /// Fires when the tail's thread ends, with the error that ended it.
    pub(crate) ended: oneshot::Receiver<Result<(), StoreError>>,
}

impl TailHandle {
    /// Starts the tail's thread. Lines that are not in demand wait in their files.
    pub(crate) fn start(store: StoreHandle, demand: Demand, disk: Arc<Disk>) -> io::Result<(Self, TailOutputs)> {
        let (commands, queue) = mpsc::channel(QUEUE);
        let (batches, batches_out) = mpsc::channel(WINDOW);
        let (shipped, shipped_out) = mpsc::channel(QUEUE);
        let (ended, ended_out) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let tail = Tail {
            store,
            demand,
            flows: BTreeMap::new(),
            batches,
            shipped,
            next: None,
            dirty: BTreeMap::new(),
            saved: Instant::now(),
            disk,
            relieved: Instant::now(),
        };
        thread::Builder::new().name("tail".to_owned()).spawn(move || {
            let result = runtime.block_on(tail.run(queue));
            // Whoever listened may be gone.
            let _ = ended.send(result);
        })?;
        let outputs = TailOutputs {
            batches: batches_out,
            shipped: shipped_out,
            ended: ended_out,
        };
        Ok((Self { commands }, outputs))
    }

    /// Tells the tail something; waits while its queue is full. A tail that has ended hears nothing.
    pub(crate) async fn tell(&self, command: TailCommand) {
        let _ = self.commands.send(command).await;
    }

    /// Waits until every line of a run that exists now is acknowledged. That may be long: without demand none is shipped.
    pub(crate) async fn drained(&self, dataflow: DataflowId) {
        let (done, wait) = oneshot::channel();
        self.tell(TailCommand::Drain { dataflow, done }).await;
        let _ = wait.await;
    }

    /// Stores all cursors and ends the tail.
    pub(crate) async fn stop(&self) {
        let (done, wait) = oneshot::channel();
        self.tell(TailCommand::Stop(done)).await;
        let _ = wait.await;
    }
}

struct Tail {
    store: StoreHandle,
    demand: Demand,
    flows: BTreeMap<DataflowId, Flow>,
    batches: mpsc::Sender<ShipLogs>,
    shipped: mpsc::Sender<DataflowId>,
    /// The source after which the next round begins, so that none starves.
    next: Option<(DataflowId, LogSource)>,
    dirty: BTreeMap<(DataflowId, LogSource), LogCursor>,
    saved: Instant,
    disk: Arc<Disk>,
    relieved: Instant,
}

impl Tail {
    async fn run(mut self, mut queue: mpsc::Receiver<TailCommand>) -> Result<(), StoreError> {
        loop {
            // With nothing to follow and nothing to store, only a command can change that.
            let command = if self.flows.is_empty() && self.dirty.is_empty() {
                match queue.recv().await {
                    Some(command) => Some(command),
                    None => return Ok(()),
                }
            } else {
                match timeout(POLL, queue.recv()).await {
                    Ok(Some(command)) => Some(command),
                    Ok(None) => return self.save(true).await,
                    Err(_) => None,
                }
            };
            for command in command
                .into_iter()
                .chain(std::iter::from_fn(|| queue.try_recv().ok()).take(QUEUE))
            {
                if let TailCommand::Stop(done) = command {
                    self.save(true).await?;
                    let _ = done.send(());
                    return Ok(());
                }
                self.obey(command).await?;
            }
            self.look();
            self.relieve();
            self.fill().await?;
            self.save(false).await?;
            self.complete().await?;
        }
    }

    async fn obey(&mut self, command: TailCommand) -> Result<(), StoreError> {
        match command {
            TailCommand::Follow { plan, ended } => {
                let dataflow = plan.order.dataflow;
                let cursors = self.store.run(move |store| store.cursors(dataflow)).await?;
                let mut flow = Flow::new(&plan.outputs, cursors);
                if ended {
                    flow.end(Instant::now());
                }
                self.flows.insert(dataflow, flow);
                self.note_lost(dataflow).await?;
            }
            TailCommand::Lost(dataflow) => self.note_lost(dataflow).await?,
            TailCommand::Messages(dataflow) => {
                if let Some(flow) = self.flows.get_mut(&dataflow) {
                    flow.more_messages();
                }
            }
            TailCommand::Ended(dataflow) => {
                if let Some(flow) = self.flows.get_mut(&dataflow) {
                    flow.end(Instant::now());
                }
            }
            TailCommand::Forget(dataflow) => self.drop_flow(dataflow),
            TailCommand::Acked { dataflow, source } => {
                if let Some(cursor) = self.flows.get_mut(&dataflow).and_then(|flow| flow.acked(&source)) {
                    self.dirty.insert((dataflow, source), cursor);
                }
            }
            TailCommand::Drain { dataflow, done } => match self.flows.get_mut(&dataflow) {
                Some(flow) => {
                    flow.look(dataflow, now_unix_ms());
                    flow.drain(done);
                }
                None => drop(done.send(())),
            },
            TailCommand::Stop(_) => {}
        }
        Ok(())
    }

    fn look(&mut self) {
        let now = now_unix_ms();
        for (dataflow, flow) in &mut self.flows {
            flow.look(*dataflow, now);
        }
    }

    /// Hands out batches while the window has room, one source after the other.
    async fn fill(&mut self) -> Result<(), StoreError> {
        let (now, instant) = (now_unix_ms(), Instant::now());
        let mut sources: Vec<(DataflowId, LogSource)> = self
            .flows
            .iter()
            .filter(|(id, _)| self.demand.wants(**id, std::time::Instant::now()))
            .flat_map(|(id, flow)| flow.ready(instant).map(|source| (*id, source)))
            .collect();
        if let Some(after) = &self.next {
            let start = sources.partition_point(|source| source <= after);
            sources.rotate_left(start);
        }
        let mut under_way: usize = self.flows.values().map(Flow::in_flight).sum();
        for (dataflow, source) in sources {
            if under_way >= WINDOW {
                break;
            }
            let Ok(room) = self.batches.clone().try_reserve_owned() else {
                break;
            };
            let Some(flow) = self.flows.get_mut(&dataflow) else {
                continue;
            };
            let complete = flow.settled(Instant::now(), SETTLE);
            if let Some(batch) = flow.next_batch(dataflow, &source, complete, now, &self.store).await? {
                if batch.records.is_empty() {
                    // A gap must be the same one when it comes again.
                    let cursor = flow.cursor(&source);
                    if !self.keep(dataflow, &source, cursor).await? {
                        continue;
                    }
                }
                under_way += 1;
                self.next = Some((dataflow, source));
                room.send(ShipLogs::pack(batch));
            }
        }
        Ok(())
    }

    /// Stores the cursors that moved, every [`SAVE_EVERY`] or `now`.
    async fn save(&mut self, now: bool) -> Result<(), StoreError> {
        if self.dirty.is_empty() || !(now || self.saved.elapsed() >= SAVE_EVERY) {
            return Ok(());
        }
        let moved: Vec<_> = std::mem::take(&mut self.dirty)
            .into_iter()
            .map(|((dataflow, source), cursor)| (dataflow, source, cursor))
            .collect();
        self.saved = Instant::now();
        let unsaved = moved.clone();
        if self
            .store
            .unless_full(move |store| store.save_cursors(&moved))
            .await?
            .is_none()
        {
            // Those that moved on meanwhile would be newer; nothing moves here.
            self.dirty.extend(
                unsaved
                    .into_iter()
                    .map(|(dataflow, source, cursor)| ((dataflow, source), cursor)),
            );
        }
        Ok(())
    }

    /// Stores the cursor of one source at once. False when there is no room: the gap that it holds is put back then.
    async fn keep(&mut self, dataflow: DataflowId, source: &LogSource, cursor: Option<LogCursor>) -> Result<bool, StoreError> {
        let moved: Vec<_> = cursor.map(|cursor| (dataflow, source.clone(), cursor)).into_iter().collect();
        let is_kept = self
            .store
            .unless_full(move |store| store.save_cursors(&moved))
            .await?
            .is_some();
        if is_kept {
            self.dirty.remove(&(dataflow, source.clone()));
        } else if let Some(flow) = self.flows.get_mut(&dataflow) {
            flow.put_back(source);
        }
        Ok(is_kept)
    }

    /// Takes over how many lines of a run could not be written.
    async fn note_lost(&mut self, dataflow: DataflowId) -> Result<(), StoreError> {
        let lost = self.store.run(move |store| store.lost(dataflow)).await?;
        if let Some(flow) = self.flows.get_mut(&dataflow) {
            for (source, lines) in lost {
                flow.failed(dataflow, &source, lines);
            }
        }
        Ok(())
    }

    /// Reports runs all of whose lines are acknowledged, and lets go of them.
    async fn complete(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        let complete = |(_, flow): &(&DataflowId, &Flow)| flow.settled(now, SETTLE) && flow.is_drained();
        let ids: Vec<_> = self.flows.iter().filter(complete).map(|(id, _)| *id).collect();
        for id in ids {
            // The supervisor may wait for us: a full queue is tried again at the next look.
            let Ok(room) = self.shipped.clone().try_reserve_owned() else {
                break;
            };
            self.save(true).await?;
            room.send(id);
            self.drop_flow(id);
        }
        Ok(())
    }

    fn drop_flow(&mut self, dataflow: DataflowId) {
        self.flows.remove(&dataflow);
        self.dirty.retain(|(id, _), _| *id != dataflow);
    }
}

#[cfg(test)]
mod tests;
