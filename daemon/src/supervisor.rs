//! The one loop that owns the account of runs: what the coordinator orders and what the engine tells goes in, and what follows
//! is stored before anybody is told of it.
//!
//! Nothing waits for the network or the engine in the loop; whatever takes time is a task that reports back.

mod effects;
mod engine;
mod engines;
mod input;
mod link_loss;
mod orders;
mod prepare;
mod room;

pub(crate) use engines::Engines;
pub(crate) use input::{EndedRun, Input, JoinReport, Reply, SupervisorHandle, View};

use crate::{
    book::Book,
    clock::now_unix_ms,
    policy::Policy,
    records::{Changes, Forget},
    seat::Seat,
    store::StoreError,
    store_thread::StoreHandle,
    tail::{TailCommand, TailHandle},
    workdir::{Left, Workdirs},
};
use dora_remote_link::Tasks;
use dora_remote_protocol::{
    ids::DataflowId,
    limits::MAX_LIVE_DATAFLOWS,
    machine::{Lifecycle, LogShipping, RunPhase},
    name::MachineName,
    refusal::{Refusal, RefusalCode},
};
use effects::{Effect, Job};
use engine::Check;
use input::Acked;
use orders::{ended, not_spawned, unknown};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Ended runs whose directories are kept for a look.
const KEPT_RUNS: usize = 20;
/// Inputs that may wait; when it is full, whoever asks or tells waits.
const INBOX: usize = 256;

/// The owner of all runs.
pub(crate) struct Supervisor {
    book: Book,
    machine: MachineName,
    store: StoreHandle,
    tail: TailHandle,
    engines: Engines,
    workdirs: Workdirs,
    policy: Option<Arc<Policy>>,
    logs: LogShipping,
    tasks: Tasks,
    inbox: mpsc::Sender<Input>,
    queue: mpsc::Receiver<Input>,
    view: watch::Sender<View>,
    acked: Acked,
    /// Runs being prepared, with those who wait for it and whether they are still wanted.
    preparing: BTreeMap<DataflowId, Preparing>,
    /// Those who wait for a spawn or a release that is under way.
    waiting: BTreeMap<(DataflowId, Step), Vec<Reply>>,
    /// Runs whose directories are being removed.
    removing: BTreeSet<DataflowId>,
    /// Runs whose stop was ordered because the coordinator is not heard.
    stopping_alone: BTreeSet<DataflowId>,
    /// What came while nothing could be stored.
    put_off: Vec<Input>,
    /// What the last welcome of each engine left to be checked.
    checks: BTreeMap<Seat, Check>,
}

#[derive(Debug, Default)]
struct Preparing {
    waiters: Vec<Reply>,
    unwanted: bool,
}

/// A step of a run that may be ordered again while it is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Spawn,
    Release,
}

/// What a supervisor works with.
pub(crate) struct Parts {
    /// The account as it was stored.
    pub(crate) book: Book,
    /// This machine.
    pub(crate) machine: MachineName,
    /// The store.
    pub(crate) store: StoreHandle,
    /// The tail.
    pub(crate) tail: TailHandle,
    /// The engines.
    pub(crate) engines: Engines,
    /// Run directories.
    pub(crate) workdirs: Workdirs,
    /// What may be started here; everything without one.
    pub(crate) policy: Option<Arc<Policy>>,
    /// When log lines are shipped.
    pub(crate) logs: LogShipping,
    /// Where tasks are started.
    pub(crate) tasks: Tasks,
}

impl Supervisor {
    /// A supervisor and the handle through which everyone else talks to it.
    pub(crate) fn new(parts: Parts) -> (Self, SupervisorHandle) {
        let (inbox, queue) = mpsc::channel(INBOX);
        let view = watch::Sender::new(View::of(&parts.book));
        let acked = Acked::default();
        let handle = SupervisorHandle::new(inbox.clone(), view.subscribe(), &acked);
        let supervisor = Self {
            book: parts.book,
            machine: parts.machine,
            store: parts.store,
            tail: parts.tail,
            engines: parts.engines,
            workdirs: parts.workdirs,
            policy: parts.policy,
            logs: parts.logs,
            tasks: parts.tasks,
            inbox,
            queue,
            view,
            acked,
            preparing: BTreeMap::new(),
            waiting: BTreeMap::new(),
            removing: BTreeSet::new(),
            stopping_alone: BTreeSet::new(),
            put_off: Vec::new(),
            checks: BTreeMap::new(),
        };
        (supervisor, handle)
    }

    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// [`StoreError`] when something cannot be stored: going on would forget what was promised.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), StoreError> {
        self.resume().await;
        let mut inputs = Vec::new();
        loop {
            inputs.append(&mut self.put_off);
            if inputs.is_empty() {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return Ok(()),
                    _ = self.queue.recv_many(&mut inputs, INBOX) => {}
                }
            }
            let (mut changes, mut effects) = (Changes::default(), Vec::new());
            for input in inputs.drain(..) {
                self.take(input, &mut changes, &mut effects);
            }
            self.check_missing(&mut changes, &mut effects);
            self.sweep(&mut effects);
            if !changes.is_empty() && !self.commit(changes, &shutdown).await? {
                return Ok(());
            }
            self.view.send_replace(View::of(&self.book));
            for seat in Seat::all() {
                if let Some((_, seq)) = self.book.engine_cursor(seat) {
                    self.acked[seat.index()].send_if_modified(|acked| std::mem::replace(acked, seq) != seq);
                }
            }
            for effect in effects {
                self.carry_out(effect).await?;
            }
        }
    }

    /// Goes on with what was there when the daemon last ended.
    async fn resume(&mut self) {
        for run in self.book.runs().values().filter(|run| !run.state.logs_shipped) {
            let follow = TailCommand::Follow {
                plan: Box::new(run.plan.clone()),
                ended: !run.is_alive(),
            };
            self.tail.tell(follow).await;
        }
        for stranger in self.workdirs.strangers(|id| self.book.get(id).is_some()) {
            debug!(dataflow = %stranger, "a half-made run directory is removed");
            if let Err(error) = self.workdirs.remove(stranger, Left::of_stray()).await {
                warn!(dataflow = %stranger, %error, "a half-made run directory cannot be removed");
            }
        }
    }

    /// One input: changes for the disk, and effects for after they are stored.
    fn take(&mut self, input: Input, changes: &mut Changes, effects: &mut Vec<Effect>) {
        match input {
            Input::Prepare { request, peer, reply } => {
                let id = request.dataflow;
                if let Some(run) = self.book.get(id) {
                    let result = if run.is_alive() { Ok(()) } else { Err(ended(id)) };
                    effects.push(Effect::Answer(reply, result));
                } else if let Some(preparing) = self.preparing.get_mut(&id) {
                    preparing.waiters.push(reply);
                } else if self.book.alive().len() + self.preparing.len() >= MAX_LIVE_DATAFLOWS {
                    let text = format!("machine `{}` has {MAX_LIVE_DATAFLOWS} dataflows in hand", self.machine);
                    effects.push(Effect::Answer(reply, Err(Refusal::new(RefusalCode::Busy, text))));
                } else {
                    self.preparing.entry(id).or_default().waiters.push(reply);
                    effects.push(Effect::Start(Job::Prepare { request, peer }));
                }
            }
            Input::Prepared { dataflow, result } => self.prepared(dataflow, *result, changes, effects),
            Input::Spawn { dataflow, reply } => self.spawn(dataflow, reply, changes, effects),
            Input::Spawned { dataflow, result } => {
                if result.is_ok() {
                    let spans = self.book.get(dataflow).is_some_and(crate::records::Run::spans_machines);
                    self.book.update(dataflow, changes, |state| {
                        state.spawned = true;
                        if state.phase == RunPhase::Spawning {
                            state.phase = if spans { RunPhase::AtBarrier } else { RunPhase::Running };
                        }
                    });
                    info!(%dataflow, "the nodes of the run are spawned");
                }
                self.answer_all(dataflow, Step::Spawn, &result, effects);
            }
            Input::Release { request, reply } => {
                let id = request.dataflow;
                match self.book.get(id).map(|run| (run.state.phase, run.state.spawned)) {
                    None => effects.push(Effect::Answer(reply, Err(unknown(&self.machine, id)))),
                    Some((RunPhase::Prepared, _)) => effects.push(Effect::Answer(reply, Err(not_spawned(id)))),
                    Some((RunPhase::Running | RunPhase::Stopping | RunPhase::Ended, _)) => {
                        effects.push(Effect::Answer(reply, Ok(())));
                    }
                    Some((RunPhase::Spawning | RunPhase::AtBarrier, _)) => {
                        if self.wait(id, Step::Release, reply) {
                            effects.push(Effect::Start(Job::Release { request }));
                        }
                    }
                }
            }
            Input::Released { dataflow, result } => {
                if result.is_ok() {
                    self.book.update(dataflow, changes, |state| {
                        if matches!(state.phase, RunPhase::Spawning | RunPhase::AtBarrier) {
                            state.phase = RunPhase::Running;
                        }
                    });
                }
                self.answer_all(dataflow, Step::Release, &result, effects);
            }
            Input::Stop { request, reply } => {
                let id = request.dataflow;
                if let Some(preparing) = self.preparing.get_mut(&id) {
                    if !std::mem::replace(&mut preparing.unwanted, true) {
                        let note = "stopped before it was spawned".to_owned();
                        let failures = Vec::new();
                        self.book
                            .tell(id, now_unix_ms(), Lifecycle::Finished { failures, note }, changes);
                        self.book.tell(id, now_unix_ms(), Lifecycle::LogsShipped, changes);
                    }
                    effects.push(Effect::Answer(reply, Ok(())));
                    return;
                }
                match self.book.get(id).map(crate::records::Run::is_alive) {
                    None => effects.push(Effect::Answer(reply, Err(unknown(&self.machine, id)))),
                    Some(false) => effects.push(Effect::Answer(reply, Ok(()))),
                    Some(true) => {
                        self.book.update(id, changes, |state| state.phase = RunPhase::Stopping);
                        info!(dataflow = %id, force = request.force, "the run is stopped");
                        let reply = Some(reply);
                        effects.push(Effect::Start(Job::Stop { request, reply }));
                    }
                }
            }
            Input::Stopped {
                dataflow,
                mut result,
                reply,
            } => {
                if result.as_ref().is_err_and(|refusal| refusal.code == RefusalCode::NotFound) {
                    let text = format!("the engine of machine `{}` no longer knew the run", self.machine);
                    self.lose(dataflow, &text, changes, effects);
                    result = Ok(());
                }
                if result.is_err() {
                    // Ordered again as long as there is a reason.
                    self.stopping_alone.remove(&dataflow);
                }
                if let Some(reply) = reply {
                    effects.push(Effect::Answer(reply, result));
                }
            }
            Input::Silence(silence) => self.silence(silence, changes, effects),
            Input::Forget { dataflow, reply } => {
                let when = match self.logs {
                    LogShipping::Always => Forget::WhenShipped,
                    // Nobody can ask any more for what waits to be asked for.
                    LogShipping::OnDemand => Forget::WhenEnded,
                };
                let result = self.forget(dataflow, when, changes, effects);
                effects.push(Effect::Answer(reply, result));
            }
            Input::Unwanted(runs) => {
                for id in runs {
                    self.unwanted(id, changes, effects);
                }
            }
            Input::Removed(dataflow) => {
                self.removing.remove(&dataflow);
                self.stopping_alone.remove(&dataflow);
                self.book.remove(dataflow, changes);
                effects.push(Effect::Tail(TailCommand::Forget(dataflow)));
            }
            Input::Shipped(dataflow) => {
                if self.book.shipped(dataflow, now_unix_ms(), changes) {
                    info!(%dataflow, "all log lines of the run are shipped");
                }
            }
            Input::EngineUp { seat, welcome, done } => {
                self.engine_up(seat, *welcome, changes, effects);
                effects.push(Effect::Done(done));
            }
            Input::EngineEvent(event) => self.engine_event(event, changes, effects),
            Input::EngineLost { seat, message, done } => {
                for id in self.book.alive_in(seat) {
                    self.lose(id, &message, changes, effects);
                }
                self.checks.remove(&seat);
                effects.push(Effect::Done(done));
            }
            // Nobody waits for the answer of a daemon that ends.
            Input::Kept(reply) => drop(reply.send(self.kept())),
            Input::Surplus(runs) => self.surplus(&runs, changes),
            Input::EngineCursor { seat, reply } => effects.push(Effect::Cursor(seat, reply)),
            Input::Join(reply) => effects.push(Effect::Join(reply)),
        }
    }

    /// Starts to remove what need not be kept.
    fn sweep(&mut self, effects: &mut Vec<Effect>) {
        for dataflow in self.book.removable(KEPT_RUNS) {
            if self.removing.insert(dataflow) {
                let left = self.book.get(dataflow).map(|run| Left::of(&run.plan)).unwrap_or_default();
                effects.push(Effect::Start(Job::Remove { dataflow, left }));
            }
        }
    }

    /// Adds someone who waits for a step; true when nobody did, so that the step has to be started.
    fn wait(&mut self, dataflow: DataflowId, step: Step, reply: Reply) -> bool {
        let waiting = self.waiting.entry((dataflow, step)).or_default();
        waiting.push(reply);
        waiting.len() == 1
    }

    fn answer_all(&mut self, dataflow: DataflowId, step: Step, result: &Result<(), Refusal>, effects: &mut Vec<Effect>) {
        for reply in self.waiting.remove(&(dataflow, step)).unwrap_or_default() {
            effects.push(Effect::Answer(reply, result.clone()));
        }
    }
}
