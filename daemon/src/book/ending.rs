//! How runs end: by themselves, with their engine, or as the coordinator was not heard for too long.

use super::{Book, add_message, note};
use crate::records::{Changes, Run};
use dora_remote_protocol::{
    dataflow::{FailureCause, NodeFailure, NodeState, NodeStatus},
    ids::DataflowId,
    log_line::{LogLevel, LogSource},
    machine::{Lifecycle, RunPhase},
};
use std::time::Duration;

impl Book {
    /// Ends a run; one that has ended changes nothing.
    pub(crate) fn end(
        &mut self,
        dataflow: DataflowId,
        at_unix_ms: u64,
        mut failures: Vec<NodeFailure>,
        note_text: String,
        changes: &mut Changes,
    ) {
        // Ended runs are removed oldest first, whatever becomes of the clock.
        let latest = self.runs.values().filter_map(|run| run.state.ended_unix_ms).max();
        let Some(run) = self.runs.get_mut(&dataflow).filter(|run| run.is_alive()) else {
            return;
        };
        run.state.phase = RunPhase::Ended;
        run.state.ended_unix_ms = Some(latest.map_or(at_unix_ms, |latest| at_unix_ms.max(latest.saturating_add(1))));
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
}

/// Cuts the texts of failures so that all of them fit into one frame; the ends of the texts are kept, they tell most.
pub(super) fn shorten(failures: &mut [NodeFailure]) {
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

/// Bytes of text that the failures of one run may have together, so that they fit into one frame.
const FAILURE_TEXT_BYTES: usize = 1 << 20;
/// What the log lines of a run say when the machine stops it by itself.
const LINK_LOST: &str = "stopped by its link-loss policy";
