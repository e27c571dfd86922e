//! A start that failed: whatever any machine has done for it is killed and forgotten, then the starter is told.
//!
//! Machines that are lost meanwhile are left behind; they are told on their return that the run is not wanted.

use super::{BEFORE_UNDO, Command, Life, Outcome};
use crate::{dataflow::record::StartOutcome, moment::Moment};
use dora_remote_protocol::{
    dataflow::{DataflowEvent, DataflowState},
    limits::ORDER_DEADLINE,
    name::MachineName,
    refusal::{Changed, Refusal, RefusalCode, cut},
};
use std::time::Instant;

/// An undoing under way.
#[derive(Debug)]
pub(super) struct Undo {
    /// What the starter will be told.
    refusal: Refusal,
    /// When machines that are not done are left behind.
    deadline: Instant,
    /// Somebody asked for it; nothing has failed.
    pub(super) is_wanted: bool,
}

impl Life {
    /// Begins to undo the start.
    pub(super) fn start_undo(&mut self, refusal: Refusal, now: Moment, out: &mut Vec<Command>) {
        if self.undo.is_some() || self.record.state.has_ended() {
            return;
        }
        self.undo = Some(Undo {
            refusal: refusal.changed(BEFORE_UNDO),
            deadline: now.steady + ORDER_DEADLINE,
            is_wanted: false,
        });
        self.deadline = None;
        for wire in self.wires.values_mut() {
            wire.not_before = None;
        }
        self.enter(DataflowState::Stopping, out);
    }

    /// Turns what a machine answered to `prepare` or `spawn` into the end of the start.
    pub(super) fn start_failed(
        &mut self,
        machine: &MachineName,
        code: RefusalCode,
        outcome: Outcome,
        now: Moment,
        out: &mut Vec<Command>,
    ) {
        let refusal = match outcome {
            Outcome::Done | Outcome::Lost => return,
            Outcome::Refused(refusal) => {
                let code = match refusal.code {
                    RefusalCode::BadDescriptor
                    | RefusalCode::BadBundle
                    | RefusalCode::EngineDown
                    | RefusalCode::ForbiddenByMachine => refusal.code,
                    _ => code,
                };
                Refusal::new(code, format!("machine `{machine}`: {}", refusal.message)).hint(refusal.hint)
            }
            Outcome::TimedOut => Refusal::new(
                RefusalCode::DeadlineExceeded,
                format!("machine `{machine}` did not answer in time"),
            ),
            Outcome::Full => Refusal::new(
                RefusalCode::Busy,
                format!("machine `{machine}` has too many orders that it has not answered"),
            ),
        };
        self.start_undo(refusal, now, out);
    }

    /// Ends the undoing once no machine is left that could still do something.
    pub(super) fn finish_undo(&mut self, now: Moment, out: &mut Vec<Command>) {
        let Some(undo) = &self.undo else { return };
        let late = now.steady >= undo.deadline;
        let mut left = Vec::new();
        for (name, part) in &self.record.parts {
            let Some(wire) = self.wires.get(name) else { continue };
            if !wire.is_asked || wire.is_forgotten {
                continue;
            }
            if part.unreachable_since_unix_ms.is_none() && !late {
                return;
            }
            left.push(format!("`{name}`"));
        }
        let mut refusal = undo.refusal.clone();
        if left.is_empty() {
            refusal.changed = Changed::Nothing;
        } else {
            refusal.changed = Changed::Partly;
            let message = format!(
                "{}; it could not be undone on {}, which will be told to drop it when reached again",
                refusal.message,
                left.join(", ")
            );
            refusal.message = cut(message);
        }
        let is_wanted = undo.is_wanted;
        self.record.broken |= !is_wanted;
        if is_wanted {
            self.record.failures.clear();
        }
        self.record.notes.insert(0, refusal.message.clone());
        self.record.start = StartOutcome::Refused(refusal.clone());
        for part in self.record.parts.values_mut() {
            part.ended = true;
            part.logs_shipped = true;
        }
        self.end(now, out);
        // The end is told before the refusal, which ends the starter's feed.
        let last = out.pop();
        out.push(Command::StartRefused(refusal));
        out.extend(last);
        debug_assert!(matches!(
            out.iter().rev().nth(2),
            Some(Command::Tell(DataflowEvent::Ended(_)))
        ));
    }
}
