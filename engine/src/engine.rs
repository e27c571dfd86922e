//! What the parts of an engine share: its runs, the events that wait for the agent, and the way to dora's daemon.

use crate::{
    EngineConfig,
    events::EventStore,
    losses::Losses,
    runs::Runs,
    shim::{CommandError, Commands},
    translate::{Heard, translate},
};
use dora_message::{
    coordinator_to_daemon::DaemonCoordinatorEvent,
    daemon_to_coordinator::{DaemonCoordinatorReply, DaemonEvent},
};
use dora_remote_protocol::{
    engine_to_agent::{EngineEvent, EngineFrame, EngineRun},
    ids::{DataflowId, EngineId},
    name::MachineName,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

/// One life of an engine.
#[derive(Debug)]
pub(crate) struct Engine {
    /// Which life.
    pub(crate) id: EngineId,
    /// Whose nodes it runs.
    pub(crate) machine: MachineName,
    /// See [`EngineConfig::node_log_bytes`].
    pub(crate) node_log_bytes: u64,
    /// Set once the engine is to end and its runs have.
    pub(crate) end: CancellationToken,
    /// Turns true when dora's daemon has come up.
    pub(crate) up: watch::Sender<bool>,
    commands: Commands,
    /// Never held over an await; nothing that waits is done under it.
    state: Mutex<State>,
    /// Number of the latest event, for those who wait for one.
    news: watch::Sender<u64>,
}

/// What changes.
#[derive(Debug)]
pub(crate) struct State {
    /// The runs in hand.
    pub(crate) runs: Runs,
    /// An end was ordered; nothing new is taken in hand.
    pub(crate) closing: bool,
    store: EventStore,
    losses: Losses,
    /// Those who wait for a spawn to be over.
    pub(crate) spawns: BTreeMap<DataflowId, oneshot::Sender<Result<(), String>>>,
    /// One at a time per run; see [`Engine::turn`].
    turns: BTreeMap<DataflowId, Arc<tokio::sync::Mutex<()>>>,
}

impl Engine {
    /// An engine with nothing in hand.
    pub(crate) fn new(config: &EngineConfig, commands: Commands, store: EventStore) -> Self {
        Self {
            id: config.engine,
            machine: config.machine.clone(),
            node_log_bytes: config.node_log_bytes,
            end: CancellationToken::new(),
            up: watch::Sender::new(false),
            commands,
            state: Mutex::new(State {
                runs: Runs::default(),
                closing: false,
                store,
                losses: Losses::default(),
                spawns: BTreeMap::new(),
                turns: BTreeMap::new(),
            }),
            news: watch::Sender::new(0),
        }
    }

    /// The state, for a moment.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells when events have come.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Takes in what dora's daemon said.
    pub(crate) fn hear(&self, event: DaemonEvent) {
        let mut state = self.state();
        for heard in translate(event, &self.machine) {
            if heard == Heard::Up {
                self.up.send_replace(true);
            }
            let settled = match &heard {
                Heard::SpawnSettled { dataflow, result } => Some((*dataflow, result.clone())),
                _ => None,
            };
            let heard = match heard {
                Heard::LinesLost {
                    dataflow,
                    node,
                    lines,
                    why,
                } => {
                    let told = state.losses.add(dataflow, node, lines, why, Instant::now());
                    self.tell(&mut state, Some(dataflow), told.into_iter().collect());
                    continue;
                }
                Heard::Finished { dataflow, .. } => {
                    // The end is the last event of a run.
                    let losses = state.losses.end(dataflow);
                    self.tell(&mut state, Some(dataflow), losses);
                    heard
                }
                other => other,
            };
            let (dataflow, events) = state.runs.hear(heard);
            self.tell(&mut state, dataflow, events);
            if let Some((dataflow, result)) = settled
                && let Some(waiting) = state.spawns.remove(&dataflow)
            {
                // Nobody waits when the deadline of the spawn is over.
                let _ = waiting.send(result);
            }
        }
    }

    /// Adds events for the agent.
    pub(crate) fn tell(&self, state: &mut State, dataflow: Option<DataflowId>, events: Vec<EngineEvent>) {
        if events.is_empty() {
            return;
        }
        let now = now_unix_ms();
        for event in events {
            state.store.push(now, dataflow, event);
        }
        self.news.send_replace(state.store.last_seq());
    }

    /// Tells of lines that were lost since the last time. While the agent is away for long they are counted further.
    pub(crate) fn tell_losses(&self) {
        let mut state = self.state();
        if state.store.has_room_for_losses() {
            for (dataflow, event) in state.losses.take() {
                self.tell(&mut state, Some(dataflow), vec![event]);
            }
        }
    }

    /// Forgets events that the agent has stored.
    pub(crate) fn acked(&self, seq: u64) {
        let mut state = self.state();
        state.store.acked(seq, now_unix_ms());
        self.news.send_replace(state.store.last_seq());
    }

    /// At most `max` events above `seq`.
    pub(crate) fn events_above(&self, seq: u64, max: usize) -> Vec<EngineFrame> {
        self.state().store.above(seq, max)
    }

    /// What a welcome says: the runs and the number of the latest event, of the same moment.
    pub(crate) fn report(&self) -> (Vec<EngineRun>, u64) {
        let state = self.state();
        (state.runs.report(), state.store.last_seq())
    }

    /// Gives dora's daemon a command and waits for its answer.
    pub(crate) async fn ask(&self, event: DaemonCoordinatorEvent) -> Result<DaemonCoordinatorReply, CommandError> {
        self.commands.ask(event).await
    }

    /// Gives dora's daemon a command that it does not answer.
    pub(crate) async fn command(&self, event: DaemonCoordinatorEvent) -> Result<(), CommandError> {
        self.commands.tell(event).await
    }

    /// Orders for one run wait for each other; those for different runs do not.
    pub(crate) fn turn(&self, dataflow: DataflowId) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.state().turns.entry(dataflow).or_default())
    }

    /// Gives the turn back; that of a run which is not in hand goes when nobody else waits for it.
    pub(crate) fn end_turn(&self, dataflow: DataflowId, turn: Arc<tokio::sync::Mutex<()>>) {
        let mut state = self.state();
        drop(turn);
        let unused = state.turns.get(&dataflow).is_some_and(|turn| Arc::strong_count(turn) == 1);
        if unused && state.runs.get(dataflow).is_none() {
            state.turns.remove(&dataflow);
        }
    }

    /// Registers for the end of a spawn. Must be done before the spawn is ordered.
    pub(crate) fn await_spawn(&self, dataflow: DataflowId) -> oneshot::Receiver<Result<(), String>> {
        let (sender, receiver) = oneshot::channel();
        self.state().spawns.insert(dataflow, sender);
        receiver
    }
}

/// Milliseconds since the Unix epoch by this machine's clock.
pub(crate) fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
