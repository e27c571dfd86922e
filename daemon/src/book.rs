//! The daemon's account of its runs: engine events and orders in, changes for the disk out.
//!
//! Pure: no I/O, no clock. The supervisor stores what comes out before anybody is told of it. What engines tell is applied in
//! `engine_news.rs`; how runs end stands in `ending.rs`.

mod ending;
mod engine_news;
#[cfg(test)]
mod tests;

use crate::{
    records::{Changes, EngineCursors, Forget, MessageRow, Run, RunPlan, RunState},
    seat::Seat,
};
use dora_remote_protocol::{
    dataflow::{NodeState, NodeStatus},
    ids::{DataflowId, EngineId},
    log_line::{LogLevel, LogRecord, LogSource, LogStream},
    machine::{Lifecycle, LifecycleEvent, RunPhase, RunReport},
    name::MachineName,
    refusal::cut,
};
use std::collections::{BTreeMap, BTreeSet};

/// All runs of this machine.
#[derive(Debug)]
pub(crate) struct Book {
    machine: MachineName,
    runs: BTreeMap<DataflowId, Run>,
    last_seq: u64,
    engine_cursors: EngineCursors,
}

impl Book {
    /// An account that goes on where the stored one ended.
    pub(crate) fn new(
        machine: MachineName,
        runs: BTreeMap<DataflowId, Run>,
        last_seq: u64,
        engine_cursors: EngineCursors,
    ) -> Self {
        Self {
            machine,
            runs,
            last_seq,
            engine_cursors,
        }
    }

    /// One run.
    pub(crate) fn get(&self, dataflow: DataflowId) -> Option<&Run> {
        self.runs.get(&dataflow)
    }

    /// All runs, oldest first.
    pub(crate) fn runs(&self) -> &BTreeMap<DataflowId, Run> {
        &self.runs
    }

    /// Number of the latest lifecycle event.
    pub(crate) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// The engine in a place, and the last event of it that took effect.
    pub(crate) fn engine_cursor(&self, seat: Seat) -> Option<(EngineId, u64)> {
        self.engine_cursors.get(&seat).copied()
    }

    /// Whether any run has not ended.
    pub(crate) fn any_alive(&self) -> bool {
        self.runs.values().any(Run::is_alive)
    }

    /// What the machine has in hand: runs that have not ended, or whose end is not fully told (`untold`: in the outbox).
    pub(crate) fn reports(&self, untold: &BTreeSet<DataflowId>) -> Vec<RunReport> {
        let in_hand = |(id, run): &(&DataflowId, &Run)| run.is_alive() || !run.state.logs_shipped || untold.contains(id);
        self.runs
            .iter()
            .filter(in_hand)
            .map(|(id, run)| RunReport {
                dataflow: *id,
                name: run.plan.order.name.clone(),
                phase: run.state.phase,
                nodes: run.state.nodes.clone(),
                link_loss: run.plan.link_loss,
            })
            .collect()
    }

    /// Takes a prepared run in.
    pub(crate) fn add(&mut self, plan: RunPlan, changes: &mut Changes) {
        let id = plan.order.dataflow;
        let nodes = plan.order.nodes.iter().filter(|node| node.machine.same_as(&self.machine));
        let state = RunState {
            phase: RunPhase::Prepared,
            nodes: nodes
                .map(|node| NodeStatus {
                    id: node.id.clone(),
                    machine: self.machine.clone(),
                    state: NodeState::Waiting,
                    pid: None,
                })
                .collect(),
            spawned: false,
            ended_unix_ms: None,
            logs_shipped: false,
            forget: Forget::No,
            last_message: 0,
            last_build_line: 0,
            link_lost: false,
        };
        changes.plans.push(plan.clone());
        changes.states.push((id, state.clone()));
        self.runs.insert(id, Run { plan, state });
    }

    /// Changes one run's state and notes it for the disk. Nothing happens when the run is unknown.
    pub(crate) fn update(&mut self, dataflow: DataflowId, changes: &mut Changes, change: impl FnOnce(&mut RunState)) {
        if let Some(run) = self.runs.get_mut(&dataflow) {
            change(&mut run.state);
            note(changes, dataflow, &run.state);
        }
    }

    /// Drops a run.
    pub(crate) fn remove(&mut self, dataflow: DataflowId, changes: &mut Changes) {
        if self.runs.remove(&dataflow).is_some() {
            changes.states.retain(|(id, _)| *id != dataflow);
            changes.removed.push(dataflow);
        }
    }

    /// Makes a lifecycle event.
    pub(crate) fn tell(&mut self, dataflow: DataflowId, at_unix_ms: u64, what: Lifecycle, changes: &mut Changes) {
        self.last_seq += 1;
        changes.events.push(LifecycleEvent {
            seq: self.last_seq,
            at_unix_ms,
            dataflow,
            what,
        });
    }

    /// Notes that all log lines of a run were shipped. Returns whether that is news.
    pub(crate) fn shipped(&mut self, dataflow: DataflowId, at_unix_ms: u64, changes: &mut Changes) -> bool {
        // Nobody waits for the lines of a run that nobody wants.
        let ended = |run: &&mut Run| !run.is_alive() && !run.state.logs_shipped && run.state.forget != Forget::WhenEnded;
        let Some(run) = self.runs.get_mut(&dataflow).filter(ended) else {
            return false;
        };
        run.state.logs_shipped = true;
        note(changes, dataflow, &run.state);
        self.tell(dataflow, at_unix_ms, Lifecycle::LogsShipped, changes);
        true
    }

    /// Runs that have not ended.
    pub(crate) fn alive(&self) -> Vec<DataflowId> {
        let alive = self.runs.iter().filter(|(_, run)| run.is_alive());
        alive.map(|(id, _)| *id).collect()
    }

    /// Runs of the engine in a place that have not ended.
    pub(crate) fn alive_in(&self, seat: Seat) -> Vec<DataflowId> {
        let alive = self.runs.iter().filter(|(_, run)| run.is_alive() && run.plan.seat == seat);
        alive.map(|(id, _)| *id).collect()
    }

    /// Runs that may be removed: to be forgotten and ready for it, or ended, shipped, and older than the last `keep` of those.
    pub(crate) fn removable(&self, keep: usize) -> Vec<DataflowId> {
        let mut gone = Vec::new();
        let mut kept = Vec::new();
        for (id, run) in &self.runs {
            if run.is_alive() {
                continue;
            }
            match (run.state.forget, run.state.logs_shipped) {
                (Forget::WhenEnded, _) | (Forget::WhenShipped, true) => gone.push(*id),
                (Forget::No, true) => kept.push((run.state.ended_unix_ms, *id)),
                (Forget::No | Forget::WhenShipped, false) => {}
            }
        }
        kept.sort_unstable();
        let surplus = kept.len().saturating_sub(keep);
        gone.extend(kept.into_iter().take(surplus).map(|(_, id)| id));
        gone
    }
}

impl Run {
    /// Whether it has not ended.
    pub(crate) fn is_alive(&self) -> bool {
        self.state.phase != RunPhase::Ended
    }

    /// Whether nodes of it run on other machines too, so that it starts behind a barrier.
    pub(crate) fn spans_machines(&self) -> bool {
        let order = &self.plan.order;
        order.nodes.iter().any(|node| !node.machine.same_as(&order.machine))
    }
}

fn add_message(
    run: &mut Run,
    dataflow: DataflowId,
    source: LogSource,
    level: LogLevel,
    text: String,
    at_unix_ms: u64,
    changes: &mut Changes,
) {
    // Once the lines are called complete, a late message would belie it.
    if run.state.logs_shipped {
        return;
    }
    // Node output comes from files; a message that claims to be some is one of the machine.
    let (source, number) = match source {
        LogSource::Build => (LogSource::Build, &mut run.state.last_build_line),
        LogSource::Machine | LogSource::Node(_) => (LogSource::Machine, &mut run.state.last_message),
    };
    *number += 1;
    let record = LogRecord {
        offset: *number,
        at_unix_ms,
        stream: LogStream::Message,
        level: Some(level),
        text: cut(text),
    };
    changes.messages.push(MessageRow {
        dataflow,
        source,
        record,
    });
    note(changes, dataflow, &run.state);
}

fn note(changes: &mut Changes, dataflow: DataflowId, state: &RunState) {
    match changes.states.iter_mut().find(|(id, _)| *id == dataflow) {
        Some((_, noted)) => noted.clone_from(state),
        None => changes.states.push((dataflow, state.clone())),
    }
}
