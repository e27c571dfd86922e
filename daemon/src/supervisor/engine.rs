//! What the engine tells, and what its silence about a run means.

use super::{
    Supervisor,
    effects::{Effect, Job},
};
use crate::{
    clock::now_unix_ms,
    engine_client::{Event, Welcome},
    records::{Changes, Run},
    seat::Seat,
    tail::TailCommand,
};
use dora_remote_protocol::{engine_to_agent::EngineEvent, ids::DataflowId};
use tracing::{debug, info, warn};

/// Runs that the engine did not name: once its events up to `last_seq` are applied, those that live by our account are lost.
#[derive(Debug)]
pub(super) struct Check {
    last_seq: u64,
    missing: Vec<DataflowId>,
}

impl Supervisor {
    pub(super) fn engine_up(&mut self, seat: Seat, welcome: Welcome, changes: &mut Changes, effects: &mut Vec<Effect>) {
        if self
            .book
            .engine_cursor(seat)
            .is_some_and(|(known, _)| known != welcome.engine)
        {
            let text = format!("the engine of machine `{}` was replaced", self.machine);
            for id in self.book.alive_in(seat) {
                self.lose(id, &text, changes, effects);
            }
        }
        self.book.follow_engine(seat, welcome.engine, changes);
        let mut missing = self.book.alive_in(seat);
        for run in &welcome.runs {
            let id = run.order.dataflow;
            missing.retain(|missing| *missing != id);
            if let Some(known) = self.book.get(id) {
                if known.plan.seat == seat {
                    self.book.catch_up(run, changes);
                }
            } else if !self.preparing.contains_key(&id) {
                warn!(dataflow = %id, "the engine has a run that this daemon does not know; it is ended");
                effects.push(Effect::Start(Job::EndStray { dataflow: id, seat }));
            }
        }
        let check = Check {
            last_seq: welcome.last_seq,
            missing,
        };
        self.checks.insert(seat, check);
    }

    pub(super) fn engine_event(&mut self, event: Event, changes: &mut Changes, effects: &mut Vec<Effect>) {
        let Event {
            engine,
            seq,
            at_unix_ms,
            dataflow,
            what,
        } = event;
        if dataflow.is_none()
            && let EngineEvent::Message { level, text, .. } = &what
        {
            debug!(level = level.as_str(), text, "the engine says");
        }
        let effect = match (&what, dataflow) {
            (EngineEvent::Finished { failures }, Some(id)) => {
                info!(dataflow = %id, failures = failures.len(), "the run has ended");
                Some(TailCommand::Ended(id))
            }
            (EngineEvent::LinesLost { .. }, Some(id)) => Some(TailCommand::Lost(id)),
            (EngineEvent::Message { .. } | EngineEvent::MessagesDropped { .. }, Some(id)) => Some(TailCommand::Messages(id)),
            _ => None,
        };
        self.book.apply(engine, seq, at_unix_ms, dataflow, what, changes);
        effects.extend(effect.map(Effect::Tail));
    }

    pub(super) fn lose(&mut self, dataflow: DataflowId, message: &str, changes: &mut Changes, effects: &mut Vec<Effect>) {
        warn!(%dataflow, message, "the run is lost");
        self.book.lose(dataflow, now_unix_ms(), message, changes);
        effects.push(Effect::Tail(TailCommand::Messages(dataflow)));
        effects.push(Effect::Tail(TailCommand::Ended(dataflow)));
    }

    pub(super) fn check_missing(&mut self, changes: &mut Changes, effects: &mut Vec<Effect>) {
        let book = &self.book;
        let is_due = |seat: &Seat, check: &mut Check| book.engine_cursor(*seat).is_some_and(|(_, done)| check.last_seq <= done);
        let due = self.checks.extract_if(.., is_due);
        let missing: Vec<_> = due.flat_map(|(_, check)| check.missing).collect();
        let text = format!("the engine of machine `{}` no longer knows the run", self.machine);
        for id in missing {
            if self.book.get(id).is_some_and(Run::is_alive) {
                self.lose(id, &text, changes, effects);
            }
        }
    }
}
