//! The wish that a dataflow ends, of somebody or as one part has failed, and whether it has come true.

use super::{Command, Life};
use crate::{
    dataflow::record::{StopForce, StopWish},
    moment::Moment,
};
use dora_remote_protocol::{
    dataflow::DataflowState,
    name::MachineName,
    refusal::{Refusal, RefusalCode},
};
use std::collections::BTreeMap;

/// Whether a stop has come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StopVerdict {
    /// Machines that can be reached are still at it.
    UnderWay,
    /// All that is left is on machines that cannot be reached, since when.
    OnlyUnreachable(BTreeMap<MachineName, u64>),
    /// It has ended.
    Ended,
}

impl Life {
    /// Whether a stop that was asked for has come to its end.
    pub(crate) fn stop_verdict(&self) -> StopVerdict {
        if self.record.state.has_ended() {
            return StopVerdict::Ended;
        }
        let missing = self.record.unreachable();
        let left = self.record.parts.values().filter(|part| !part.ended).count();
        if self.undo.is_none() && left > 0 && left == missing.len() {
            return StopVerdict::OnlyUnreachable(missing);
        }
        StopVerdict::UnderWay
    }

    /// Takes the wish of somebody that it ends; a forced one overtakes one that is not.
    pub(super) fn stop(&mut self, by: String, grace_ms: Option<u64>, force: bool, now: Moment, out: &mut Vec<Command>) {
        let force = if force { StopForce::Kill } else { StopForce::Grace };
        let asked = self.record.stop.take();
        let before = asked.as_ref().map(|stop| stop.force);
        let by_before = asked.as_ref().and_then(|stop| stop.by.clone());
        self.record.stop = Some(StopWish {
            by: by_before.or_else(|| Some(by.clone())),
            grace_ms: asked.map_or(grace_ms, |stop| stop.grace_ms),
            force: before.map_or(force, |before| before.max(force)),
        });
        out.push(Command::Save);
        if self.record.state < DataflowState::Running {
            if self.undo.is_none() {
                let refusal = Refusal::new(RefusalCode::WrongState, format!("stopped by {by} during the start"));
                self.start_undo(refusal, now, out);
                if let Some(undo) = &mut self.undo {
                    undo.is_wanted = true;
                }
            }
        } else if self.record.state == DataflowState::Running {
            self.enter(DataflowState::Stopping, out);
        }
    }

    /// Ends what is left after one part has failed.
    pub(super) fn stop_the_rest(&mut self, note: String, out: &mut Vec<Command>) {
        self.record.notes.push(note);
        self.record.broken = true;
        out.push(Command::Save);
        if self.record.stop.is_none() {
            self.record.stop = Some(StopWish {
                by: None,
                grace_ms: None,
                force: StopForce::Grace,
            });
        }
        if self.record.state == DataflowState::Running {
            self.enter(DataflowState::Stopping, out);
        }
    }
}
