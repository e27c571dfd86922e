//! The daemon's account of its runs: engine events and orders in, changes for the disk out.
//!
//! Pure: no I/O, no clock. The supervisor stores what comes out before anybody is told of it.

use crate::{
    records::{Changes, EngineCursors, Forget, MessageRow, Run, RunPlan, RunState},
    seat::Seat,
};
use dora_remote_protocol::{
    dataflow::{FailureCause, NodeFailure, NodeState, NodeStatus},
    engine_to_agent::{EngineEvent, EngineRun},
    ids::{DataflowId, EngineId, NodeId},
    log_line::{LogLevel, LogRecord, LogSource, LogStream},
    machine::{Lifecycle, LifecycleEvent, RunPhase, RunReport},
    name::MachineName,
    refusal::cut,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Bytes of text that the failures of one run may have together, so that they fit into one frame.
const FAILURE_TEXT_BYTES: usize = 1 << 20;
/// What the log lines of a run say when the machine stops it by itself.
const LINK_LOST: &str = "stopped by its link-loss policy";

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

    /// The shortest silence of the coordinator that ends a run which has not ended.
    pub(crate) fn shortest_silence(&self) -> Option<Duration> {
        let alive = self.runs.values().filter(|run| run.is_alive());
        alive.filter_map(|run| run.plan.link_loss.silence()).min()
    }

    /// Whether any run that has not ended is being stopped by this machine alone.
    pub(crate) fn stops_alone(&self) -> bool {
        self.runs.values().any(|run| run.is_alive() && run.state.link_lost)
    }

    /// Runs with processes that must not go on after so much silence, or whose end for that reason is under way.
    pub(crate) fn ended_by_silence(&self, silence: Duration) -> Vec<DataflowId> {
        let ends = |run: &Run| {
            let too_long = run.plan.link_loss.silence().is_some_and(|most| silence >= most);
            !matches!(run.state.phase, RunPhase::Prepared | RunPhase::Ended) && (too_long || run.state.link_lost)
        };
        self.runs.iter().filter(|(_, run)| ends(run)).map(|(id, _)| *id).collect()
    }

    /// Begins to end a run because the coordinator was not heard. Returns whether that is news, which is told then.
    pub(crate) fn lose_link(&mut self, dataflow: DataflowId, at_unix_ms: u64, silence: Duration, changes: &mut Changes) -> bool {
        let Some(run) = self
            .runs
            .get_mut(&dataflow)
            .filter(|run| run.is_alive() && !run.state.link_lost)
        else {
            return false;
        };
        run.state.link_lost = true;
        run.state.phase = RunPhase::Stopping;
        let text = format!("{LINK_LOST}: the coordinator was not heard for {} s", silence.as_secs());
        add_message(run, dataflow, LogSource::Machine, LogLevel::Warn, text, at_unix_ms, changes);
        let silent_ms = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
        self.tell(dataflow, at_unix_ms, Lifecycle::LinkLost { silent_ms }, changes);
        true
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

    /// Starts to follow the engine in a place from its first event, unless it is the one that is followed there already.
    pub(crate) fn follow_engine(&mut self, seat: Seat, engine: EngineId, changes: &mut Changes) {
        if self.engine_cursor(seat).is_none_or(|(known, _)| known != engine) {
            self.advance(seat, (engine, 0), changes);
        }
    }

    fn advance(&mut self, seat: Seat, cursor: (EngineId, u64), changes: &mut Changes) {
        self.engine_cursors.insert(seat, cursor);
        changes.engine_cursors = Some(self.engine_cursors.clone());
    }

    /// Applies one engine event; one that was applied before changes nothing.
    pub(crate) fn apply(
        &mut self,
        engine: EngineId,
        seq: u64,
        at_unix_ms: u64,
        dataflow: Option<DataflowId>,
        what: EngineEvent,
        changes: &mut Changes,
    ) {
        let known = self.engine_cursors.iter().find(|(_, (known, _))| *known == engine);
        let Some(seat) = known.filter(|(_, (_, done))| seq > *done).map(|(seat, _)| *seat) else {
            return;
        };
        self.advance(seat, (engine, seq), changes);
        let Some(dataflow) = dataflow else {
            return;
        };
        // An older engine may have prepared a run that was then given to a newer one.
        let Some(run) = self.runs.get_mut(&dataflow).filter(|run| run.plan.seat == seat) else {
            return;
        };
        match what {
            EngineEvent::NodeStarted { node, pid } => {
                set_node(&mut run.state, &node, NodeState::Running, Some(pid));
                note(changes, dataflow, &run.state);
                self.tell(dataflow, at_unix_ms, Lifecycle::NodeStarted { node, pid }, changes);
            }
            EngineEvent::NodeStopped { node, clean } => {
                let state = if clean { NodeState::Stopped } else { NodeState::Failed };
                set_node(&mut run.state, &node, state, None);
                note(changes, dataflow, &run.state);
                self.tell(dataflow, at_unix_ms, Lifecycle::NodeStopped { node, clean }, changes);
            }
            EngineEvent::BarrierReached { exited_before_subscribe } => {
                if run.state.phase == RunPhase::Spawning {
                    run.state.phase = RunPhase::AtBarrier;
                }
                note(changes, dataflow, &run.state);
                self.tell(
                    dataflow,
                    at_unix_ms,
                    Lifecycle::BarrierReached { exited_before_subscribe },
                    changes,
                );
            }
            EngineEvent::Finished { failures } => self.end(dataflow, at_unix_ms, failures, String::new(), changes),
            EngineEvent::Message { source, level, text } => {
                add_message(run, dataflow, source, level, text, at_unix_ms, changes);
            }
            // Once the lines are called complete, a late loss would belie it.
            EngineEvent::LinesLost { .. } if run.state.logs_shipped => {}
            EngineEvent::LinesLost { node, lines } => changes.lost.push((dataflow, node, lines)),
            EngineEvent::MessagesDropped { count } => {
                let text = format!("{count} messages of the engine were dropped while its agent was away");
                add_message(run, dataflow, LogSource::Machine, LogLevel::Warn, text, at_unix_ms, changes);
            }
        }
    }

    /// Ends a run; one that has ended changes nothing.
    pub(crate) fn end(
        &mut self,
        dataflow: DataflowId,
        at_unix_ms: u64,
        mut failures: Vec<NodeFailure>,
        note_text: String,
        changes: &mut Changes,
    ) {
        let Some(run) = self.runs.get_mut(&dataflow).filter(|run| run.is_alive()) else {
            return;
        };
        run.state.phase = RunPhase::Ended;
        run.state.ended_unix_ms = Some(at_unix_ms);
        for node in &mut run.state.nodes {
            node.pid = None;
            let failed = failures.iter().any(|failure| failure.node == node.id);
            if failed {
                node.state = NodeState::Failed;
            } else if matches!(node.state, NodeState::Running | NodeState::Waiting) {
                node.state = NodeState::Stopped;
            }
        }
        note(changes, dataflow, &run.state);
        shorten(&mut failures);
        let what = Lifecycle::Finished {
            failures,
            note: note_text,
        };
        self.tell(dataflow, at_unix_ms, what, changes);
    }

    /// Ends a run whose engine is gone or no longer knows it.
    pub(crate) fn lose(&mut self, dataflow: DataflowId, at_unix_ms: u64, message: &str, changes: &mut Changes) {
        let Some(run) = self.runs.get_mut(&dataflow).filter(|run| run.is_alive()) else {
            return;
        };
        let unfinished = |node: &&NodeStatus| matches!(node.state, NodeState::Running | NodeState::Waiting);
        let failures = run.state.nodes.iter().filter(unfinished).map(|node| NodeFailure {
            node: node.id.clone(),
            machine: self.machine.clone(),
            cause: FailureCause::EngineLost {
                message: message.to_owned(),
            },
            exit: "unknown".to_owned(),
        });
        let failures = failures.collect();
        add_message(
            run,
            dataflow,
            LogSource::Machine,
            LogLevel::Error,
            message.to_owned(),
            at_unix_ms,
            changes,
        );
        self.end(dataflow, at_unix_ms, failures, message.to_owned(), changes);
    }

    /// Takes over from a welcome how far the engine is, where it is further: the answer to an order may have been lost.
    pub(crate) fn catch_up(&mut self, engine_run: &EngineRun, changes: &mut Changes) {
        let dataflow = engine_run.order.dataflow;
        let Some(run) = self.runs.get_mut(&dataflow) else {
            return;
        };
        // The end itself comes as an event.
        if engine_run.phase != RunPhase::Ended && rank(engine_run.phase) > rank(run.state.phase) {
            run.state.phase = engine_run.phase;
            run.state.spawned |= matches!(engine_run.phase, RunPhase::AtBarrier | RunPhase::Running);
            note(changes, dataflow, &run.state);
        }
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

fn set_node(state: &mut RunState, id: &NodeId, to: NodeState, pid: Option<u32>) {
    if let Some(node) = state.nodes.iter_mut().find(|node| node.id == *id) {
        node.state = to;
        node.pid = pid;
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

fn rank(phase: RunPhase) -> u8 {
    match phase {
        RunPhase::Prepared => 0,
        RunPhase::Spawning => 1,
        RunPhase::AtBarrier => 2,
        RunPhase::Running => 3,
        RunPhase::Stopping => 4,
        RunPhase::Ended => 5,
    }
}

/// Cuts the texts of failures so that all of them fit into one frame; the ends of the texts are kept, they tell most.
fn shorten(failures: &mut [NodeFailure]) {
    let share = FAILURE_TEXT_BYTES / failures.len().max(1);
    for failure in failures {
        if let FailureCause::Own { stderr: text }
        | FailureCause::FailedToSpawn { message: text }
        | FailureCause::EngineLost { message: text } = &mut failure.cause
            && text.len() > share
        {
            let mut start = text.len() - share;
            while !text.is_char_boundary(start) {
                start += 1;
            }
            text.drain(..start);
        }
    }
}

#[cfg(test)]
mod tests;
