//! The one event loop and owner of truth: an event comes in, the pure parts say what follows, and it is carried out here.
//!
//! Nothing in the loop waits for the network or the disk. What may be said only once something is stored waits in `after` for
//! the keeper's word. What each event means to machines and dataflows stands in `brain/`.

mod dataflows;
mod joins;
mod machines;
mod orders;
mod starts;
#[cfg(test)]
mod tests;

use crate::{
    asker::Asker,
    bundles::Bundles,
    dataflow::{
        machine::{Command, Input, Life},
        record::Record,
        sight::Sight,
        table::Table,
    },
    event::{Admitted, BrainHandle, Event, News, Reply},
    logs::hub::Hub,
    machines::Machines,
    moment::Moment,
    outbox::Outbox,
    recover,
    store::{
        Changes, Stored,
        keeper::{Keeper, Ticket},
    },
    view::ViewHandle,
};
use dora_remote_link::{Peer, Tasks};
use dora_remote_protocol::{
    cli_to_coordinator::DataflowStopped,
    daemon_to_coordinator::EventsAcked,
    dataflow::{DataflowEvent, NodeStatus},
    ids::DataflowId,
    name::MachineName,
};
use joins::Newcomer;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{broadcast, mpsc},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// The owner of truth.
pub(crate) struct Brain {
    table: Table,
    machines: Machines,
    connections: BTreeMap<MachineName, Connection>,
    /// Daemons that wait until the machine in use was asked whether it is still there.
    probes: BTreeMap<MachineName, Vec<Newcomer>>,
    feeds: BTreeMap<DataflowId, broadcast::Sender<Arc<News>>>,
    stops: Vec<StopWaiter>,
    /// Ended dataflows whose last log lines are waited for, and since when.
    log_ends: BTreeMap<DataflowId, Instant>,
    /// Verdicts that wait for the events that a machine has announced.
    verdicts: BTreeMap<MachineName, Verdict>,
    changes: Changes,
    /// What is to be done once the present changes are stored.
    then: Vec<After>,
    after: BTreeMap<Ticket, Vec<After>>,
    keeper: Keeper,
    hub: Hub,
    bundles: Bundles,
    /// What the records say of machines and of who asks.
    view: ViewHandle,
    tasks: Tasks,
    /// For the tasks that speak for machines.
    handle: BrainHandle,
    last_sweep: Instant,
}

/// The connection over which a machine is used.
struct Connection {
    peer: Peer,
    /// None until the joining is stored.
    outbox: Option<Outbox>,
}

/// Somebody who waits for the end of a dataflow.
struct StopWaiter {
    dataflow: DataflowId,
    reply: Reply<DataflowStopped>,
    deadline: Instant,
}

/// What follows from a machine's joining once its events up to `seq` were applied: they say more, and when it was.
struct Verdict {
    seq: u64,
    /// How its nodes are.
    known: Vec<(DataflowId, Vec<NodeStatus>)>,
    /// Runs that it has not in hand.
    gone: Vec<(DataflowId, &'static str)>,
}

/// What may be done only once something is stored.
enum After {
    Begin(DataflowId),
    Acked(Reply<EventsAcked>, EventsAcked),
    Joined {
        machine: MachineName,
        peer: Peer,
        joined: Admitted,
        reply: Reply<Admitted>,
    },
}

/// What a brain works with.
pub(crate) struct Parts {
    pub(crate) stored: Stored,
    pub(crate) keeper: Keeper,
    pub(crate) hub: Hub,
    pub(crate) bundles: Bundles,
    pub(crate) view: ViewHandle,
    pub(crate) tasks: Tasks,
    pub(crate) handle: BrainHandle,
}

impl Brain {
    /// A brain that knows what was stored. Starts that were under way are failed.
    pub(crate) fn new(parts: Parts, now: Moment) -> Self {
        let mut table = Table::default();
        let mut changes = Changes::default();
        let mut just_ended = Vec::new();
        let mut log_ends = BTreeMap::new();
        let mut feeds = BTreeMap::new();
        for mut record in parts.stored.dataflows {
            if recover::after_restart(&mut record, now.unix_ms) {
                tracing::warn!(dataflow = %record.id, name = %record.name, "failed a start that the last life did not finish");
                just_ended.push(record.id);
            }
            parts.hub.register(record.id, record.parts.keys().cloned());
            if record.state.has_ended() {
                log_ends.insert(record.id, now.steady);
            } else {
                feeds.insert(record.id, broadcast::Sender::new(FEED));
                if let Some(hash) = record.bundle {
                    parts.bundles.pin(record.id, hash);
                }
            }
            table.insert(Life::restored(record));
        }
        for id in just_ended {
            if let Some(life) = table.note_end(id) {
                changes.dataflow(life.record().clone());
            }
        }
        Self {
            table,
            machines: Machines::restored(parts.stored.machines, now),
            connections: BTreeMap::new(),
            probes: BTreeMap::new(),
            feeds,
            stops: Vec::new(),
            log_ends,
            verdicts: BTreeMap::new(),
            changes,
            then: Vec::new(),
            after: BTreeMap::new(),
            keeper: parts.keeper,
            hub: parts.hub,
            bundles: parts.bundles,
            view: parts.view,
            tasks: parts.tasks,
            handle: parts.handle,
            last_sweep: now.steady,
        }
    }

    /// Thinks until `shutdown`, then puts on disk what is not there yet.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<Event>, shutdown: CancellationToken) {
        let mut stored = self.keeper.stored();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.settle();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                // The keeper lives as long as the brain.
                Ok(()) = stored.changed() => { stored.borrow_and_update(); }
                Some(event) = events.recv() => {
                    self.handle_event(event);
                    // What has come meanwhile shares one transaction.
                    for _ in 0..BURST {
                        match events.try_recv() {
                            Ok(event) => self.handle_event(event),
                            Err(_) => break,
                        }
                    }
                }
                _ = tick.tick() => self.tick(),
            }
            self.settle();
        }
        for record in self.machines.take_stale() {
            self.changes.machine(record);
        }
        self.keeper.put(std::mem::take(&mut self.changes));
    }

    fn handle_event(&mut self, event: Event) {
        let now = Moment::now();
        match event {
            Event::Join { peer, request, reply } => self.join(Newcomer { peer, request, reply }, now),
            Event::Probed {
                machine,
                connection,
                is_there,
            } => self.probed(&machine, connection, is_there, now),
            Event::Heard {
                machine,
                connection,
                engine,
                disk,
                reply,
            } => {
                if let Some(disk) = disk {
                    self.machines.set_disk(&machine, connection, disk);
                }
                let heard = self.heard(&machine, connection, Some(engine), now).map(|_| ());
                drop(reply.send(heard));
            }
            Event::Reported {
                machine,
                connection,
                events,
                reply,
            } => self.reported(&machine, connection, events, reply, now),
            Event::Left { machine, connection } => self.left(&machine, connection, now),
            Event::Answered {
                machine,
                connection,
                dataflow,
                order,
                outcome,
            } => self.answered(machine, connection, dataflow, order, outcome, now),
            Event::Start { asker, request, reply } => {
                drop(reply.send(self.start(asker, *request, now)));
            }
            Event::Stop {
                asker,
                dataflow,
                grace_ms,
                force,
                reply,
            } => self.stop(&asker, &dataflow, grace_ms, force, reply, now),
            Event::Watch { asker, dataflow, reply } => {
                let found = self.table.find(&dataflow, &self.sight(&asker));
                drop(reply.send(found.and_then(|id| self.subscribe(id))));
            }
            Event::Find { asker, dataflow, reply } => {
                drop(reply.send(self.table.find(&dataflow, &self.sight(&asker))));
            }
            Event::List { asker, reply } => {
                let sight = self.sight(&asker);
                let seen = self.table.iter().map(Life::record).filter(|record| sight.has(record));
                drop(reply.send(Ok(seen.map(Record::summary).collect())));
            }
            Event::Machines { asker, reply } => {
                drop(reply.send(Ok(self.machine_summaries(&self.sight(&asker), now))));
            }
            Event::Count { reply } => drop(reply.send(Ok(self.counts()))),
            Event::LogHolders { dataflow, reply } => drop(reply.send(self.log_holders(dataflow))),
            Event::MayFetch { machine, hash, reply } => drop(reply.send(self.may_fetch(&machine, hash))),
        }
    }

    /// What an asker may see and use now.
    fn sight(&self, asker: &Asker) -> Sight {
        Sight::of(self.view.get(), asker)
    }

    /// Lets something happen to a dataflow, and carries out what follows.
    fn step(&mut self, id: DataflowId, input: Input, now: Moment) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(life) = self.table.get_mut(id) else { return };
            let mut is_changed = false;
            for command in life.step(input, now) {
                match command {
                    Command::Save => is_changed = true,
                    Command::Tell(event) => self.tell(id, News::Event(event)),
                    Command::Started => self.tell(id, News::Started),
                    Command::StartRefused(refusal) => self.tell(id, News::StartRefused(refusal)),
                    Command::Order { machine, order } => {
                        let kind = order.kind();
                        if let Err(outcome) = self.order(id, &machine, order) {
                            inputs.push_back(Input::Answered {
                                machine,
                                order: kind,
                                outcome,
                            });
                        }
                    }
                    Command::Ended => self.ended(id, now),
                }
            }
            if is_changed && let Some(life) = self.table.get(id) {
                self.changes.dataflow(life.record().clone());
            }
        }
    }

    fn tell(&self, id: DataflowId, news: News) {
        if let News::Event(DataflowEvent::State(state)) = &news {
            tracing::info!(dataflow = %id, state = state.as_str(), "a dataflow moved on");
        }
        if let Some(feed) = self.feeds.get(&id) {
            // Nobody listening is no error.
            drop(feed.send(Arc::new(news)));
        }
    }

    fn tick(&mut self) {
        let now = Moment::now();
        self.tick_machines(now);
        let live: Vec<_> = self.table.live().map(|life| life.record().id).collect();
        for id in live {
            self.step(id, Input::Tick, now);
        }
        if now.steady.saturating_duration_since(self.last_sweep) >= SWEEP {
            self.last_sweep = now.steady;
            for record in self.machines.take_stale() {
                self.changes.machine(record);
            }
        }
    }

    /// Hands over what is to be stored, and does what may be done now that something is.
    fn settle(&mut self) {
        let now = Moment::now();
        loop {
            self.answer_stops(now);
            self.close_logs(now);
            let then = std::mem::take(&mut self.then);
            let ticket = self.keeper.put(std::mem::take(&mut self.changes));
            if !then.is_empty() {
                self.after.entry(ticket).or_default().extend(then);
            }
            let stored = *self.keeper.stored().borrow();
            let mut due = Vec::new();
            while let Some(first) = self.after.first_entry()
                && *first.key() <= stored
            {
                due.extend(first.remove());
            }
            if due.is_empty() {
                return;
            }
            for after in due {
                match after {
                    After::Begin(id) => self.step(id, Input::Begin, now),
                    After::Acked(reply, acked) => drop(reply.send(Ok(acked))),
                    After::Joined {
                        machine,
                        peer,
                        joined,
                        reply,
                    } => self.joined(machine, peer, joined, reply, now),
                }
            }
        }
    }
}

/// How often time passes.
const TICK: Duration = Duration::from_millis(500);
/// How often the disk learns when machines were last heard.
const SWEEP: Duration = Duration::from_secs(30);
/// Events that may share one transaction.
const BURST: usize = 64;
/// News of one dataflow that wait for a slow listener; one that is slower still starts afresh from the present state.
const FEED: usize = 256;
