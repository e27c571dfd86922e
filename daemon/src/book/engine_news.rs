//! What the engines of this machine tell, and what it means for its runs. Each event takes effect once.

use super::{Book, add_message, note};
use crate::{
    records::{Changes, RunState},
    seat::Seat,
};
use dora_remote_protocol::{
    dataflow::NodeState,
    engine_to_agent::{EngineEvent, EngineRun},
    ids::{DataflowId, EngineId, NodeId},
    log_line::{LogLevel, LogSource},
    machine::{Lifecycle, RunPhase},
};

impl Book {
    /// Starts to follow the engine in a place from its first event, unless it is the one that is followed there already.
    pub(crate) fn follow_engine(&mut self, seat: Seat, engine: EngineId, changes: &mut Changes) {
        if self.engine_cursor(seat).is_none_or(|(known, _)| known != engine) {
            self.advance(seat, (engine, 0), changes);
        }
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

    fn advance(&mut self, seat: Seat, cursor: (EngineId, u64), changes: &mut Changes) {
        self.engine_cursors.insert(seat, cursor);
        changes.engine_cursors = Some(self.engine_cursors.clone());
    }
}

fn set_node(state: &mut RunState, id: &NodeId, to: NodeState, pid: Option<u32>) {
    if let Some(node) = state.nodes.iter_mut().find(|node| node.id == *id) {
        node.state = to;
        node.pid = pid;
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
