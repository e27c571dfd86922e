//! Readers, and the machines that ship log lines only while there are some.
//!
//! While a dataflow has readers, a task renews a lease at each of its machines that ships on demand. A reader of what exists waits
//! until those machines have brought it, and is told where one cannot.

use super::hub::Hub;
use crate::event::{BrainHandle, Event, LogHolder};
use dora_remote_link::{FeedSink, Gone, Peer, Tasks};
use dora_remote_logstore::Filter;
use dora_remote_protocol::{
    coordinator_to_daemon::{DrainLogs, WantLogs},
    ids::DataflowId,
    limits::{LOGS_LEASE, MAX_DEADLINE, ORDER_DEADLINE},
    log_line::LogItem,
    name::MachineName,
};
use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// Who reads what. Clones are handles.
#[derive(Clone, Debug)]
pub(crate) struct Demand {
    brain: BrainHandle,
    hub: Hub,
    tasks: Tasks,
    /// Readers of each dataflow that has some. The task that renews its leases ends with the entry.
    readers: Arc<Mutex<BTreeMap<DataflowId, watch::Sender<usize>>>>,
}

/// One reader, as long as it lives.
#[derive(Debug)]
pub(crate) struct Reader {
    demand: Demand,
    dataflow: DataflowId,
}

impl Demand {
    pub(crate) fn new(brain: BrainHandle, hub: Hub, tasks: Tasks) -> Self {
        Self {
            brain,
            hub,
            tasks,
            readers: Arc::default(),
        }
    }

    /// Counts a reader in.
    pub(crate) fn reader(&self, dataflow: DataflowId) -> Reader {
        let mut readers = self.readers();
        if let Some(count) = readers.get(&dataflow) {
            count.send_modify(|count| *count += 1);
        } else {
            let count = watch::Sender::new(1);
            let keeping = self.clone().keep(dataflow, count.subscribe());
            readers.insert(dataflow, count);
            self.tasks.spawn("leases of log readers", keeping);
        }
        drop(readers);
        Reader {
            demand: self.clone(),
            dataflow,
        }
    }

    /// Waits until the machines that ship on demand have brought what exists, and tells the reader where they do not. `is_follower`:
    /// it does not wait for what goes on, as that comes to it in any case.
    pub(crate) async fn bring(&self, dataflow: DataflowId, is_follower: bool, sink: &FeedSink<LogItem>) -> Result<(), Gone> {
        let Ok(holders) = self.brain.ask(|reply| Event::LogHolders { dataflow, reply }).await else {
            return Ok(());
        };
        if holders.on_demand.is_empty() || (is_follower && !holders.has_ended) {
            return Ok(());
        }
        let (mut asked, mut missing) = (BTreeMap::new(), Vec::new());
        let mut drains = JoinSet::new();
        for holder in holders.on_demand {
            let Some(peer) = holder.peer.clone() else {
                missing.push(holder);
                continue;
            };
            let machine = holder.machine.clone();
            asked.insert(machine.clone(), holder);
            drains.spawn(async move { (machine, peer.call(&DrainLogs { dataflow }, MAX_DEADLINE).await.is_ok()) });
        }
        if !asked.is_empty() {
            let machines = asked.keys().cloned().collect();
            sink.send(LogItem::Fetching { machines }).await?;
            self.until_brought(dataflow, &mut drains, &mut asked, sink).await?;
        }
        missing.extend(asked.into_values());
        if missing.is_empty() {
            return Ok(());
        }
        let newest_unix_ms = self.newest_unix_ms(dataflow).await;
        for LogHolder {
            machine,
            unreachable_since_unix_ms,
            ..
        } in missing
        {
            let unfetched = LogItem::Unfetched {
                machine,
                unreachable_since_unix_ms,
                newest_unix_ms,
            };
            sink.send(unfetched).await?;
        }
        Ok(())
    }

    /// When the newest line that is here was written.
    async fn newest_unix_ms(&self, dataflow: DataflowId) -> Option<u64> {
        let last = self.hub.last_seq(dataflow).await.ok()?;
        let everything = Arc::new(Filter::nodes([]));
        let page = self.hub.read(dataflow, last.saturating_sub(1), &everything).await.ok()?;
        page.items.into_iter().rev().find_map(|item| match item {
            LogItem::Lines(packed) => packed.lines().ok()?.last().map(|line| line.at_unix_ms),
            _ => None,
        })
    }

    /// Takes those machines out of `asked` that have brought everything. Gives up when no line has come for [`QUIET`].
    async fn until_brought(
        &self,
        dataflow: DataflowId,
        drains: &mut JoinSet<(MachineName, bool)>,
        asked: &mut BTreeMap<MachineName, LogHolder>,
        sink: &FeedSink<LogItem>,
    ) -> Result<(), Gone> {
        let mut progress = self.hub.progress(dataflow);
        let mut deadline = Instant::now() + QUIET;
        loop {
            let news = async {
                let has_news = match &mut progress {
                    Some(progress) => progress.changed().await.is_ok(),
                    None => false,
                };
                if !has_news {
                    // A dataflow that is forgotten has no more of them.
                    pending().await
                }
            };
            tokio::select! {
                biased;
                () = sink.gone() => return Err(Gone),
                drained = drains.join_next() => match drained {
                    Some(Ok((machine, true))) => drop(asked.remove(&machine)),
                    Some(_) => {}
                    None => return Ok(()),
                },
                () = news => deadline = Instant::now() + QUIET,
                () = sleep_until(deadline) => return Ok(()),
            }
        }
    }

    /// Renews leases until the last reader has gone.
    async fn keep(self, dataflow: DataflowId, mut count: watch::Receiver<usize>) {
        loop {
            self.lease(dataflow, LOGS_LEASE).await;
            if timeout(RENEW, count.wait_for(|count| *count == 0)).await.is_ok() {
                break;
            }
        }
        // Whoever came meanwhile has a task of its own, and wants lines.
        if !self.readers().contains_key(&dataflow) {
            self.lease(dataflow, Duration::ZERO).await;
        }
    }

    /// Tells each machine that ships on demand; one that does not hear it is told again with the next lease.
    async fn lease(&self, dataflow: DataflowId, lease: Duration) {
        let Ok(holders) = self.brain.ask(|reply| Event::LogHolders { dataflow, reply }).await else {
            return;
        };
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let mut calls = JoinSet::new();
        for peer in holders.on_demand.into_iter().filter_map(|holder| holder.peer) {
            calls.spawn(async move { want(&peer, dataflow, lease_ms).await });
        }
        while calls.join_next().await.is_some() {}
    }

    fn readers(&self) -> MutexGuard<'_, BTreeMap<DataflowId, watch::Sender<usize>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn want(peer: &Peer, dataflow: DataflowId, lease_ms: u64) {
    if let Err(error) = peer.call(&WantLogs { dataflow, lease_ms }, ORDER_DEADLINE.min(RENEW)).await {
        tracing::debug!(machine = %peer.identity(), %dataflow, lease_ms, %error, "a machine was not told who reads");
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut readers = self.demand.readers();
        let Some(count) = readers.get(&self.dataflow) else { return };
        count.send_modify(|count| *count = count.saturating_sub(1));
        if *count.borrow() == 0 {
            readers.remove(&self.dataflow);
        }
    }
}

/// How often leases are renewed: twice more often than they end.
const RENEW: Duration = Duration::from_secs(LOGS_LEASE.as_secs() / 3);
/// How long a reader waits for a machine that brings no line: a link that is silent for longer is told as such.
const QUIET: Duration = Duration::from_secs(20);
