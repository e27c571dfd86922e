//! What the answer of a machine to an order means for the dataflow.

use super::{Command, Life, OrderKind, Outcome};
use crate::{dataflow::record::StopForce, moment::Moment};
use dora_remote_protocol::{limits::BARRIER_DEADLINE, name::MachineName, refusal::RefusalCode};

impl Life {
    pub(super) fn answered(
        &mut self,
        machine: &MachineName,
        order: OrderKind,
        outcome: Outcome,
        now: Moment,
        out: &mut Vec<Command>,
    ) {
        let several = self.is_over_several_machines();
        let Some((part, wire)) = self.record.parts.get_mut(machine).zip(self.wires.get_mut(machine)) else {
            return;
        };
        wire.in_flight.remove(&order);
        match (order, outcome) {
            (_, Outcome::Lost) => wire.is_cut = true,
            (OrderKind::Prepare | OrderKind::Spawn, Outcome::Done) if self.undo.is_some() => {
                // It came about after all: once more from the start.
                wire.is_killed = false;
                wire.is_forgotten = false;
            }
            (OrderKind::Prepare, Outcome::Done) => {
                if !std::mem::replace(&mut part.prepared, true) {
                    self.done(machine, out);
                }
            }
            (OrderKind::Spawn, Outcome::Done) => {
                let was_spawned = std::mem::replace(&mut part.spawned, true);
                if !was_spawned {
                    if several && self.all(|part| part.spawned) {
                        self.deadline = Some(now.steady + BARRIER_DEADLINE);
                    }
                    self.done(machine, out);
                }
            }
            (OrderKind::Release, Outcome::Done) => {
                part.released = true;
                out.push(Command::Save);
            }
            (OrderKind::Stop, Outcome::Done) => {
                part.stop_confirmed = part.stop_confirmed.max(Some(StopForce::Grace));
                out.push(Command::Save);
            }
            (OrderKind::Kill, Outcome::Done) => {
                part.stop_confirmed = Some(StopForce::Kill);
                wire.is_killed = true;
                out.push(Command::Save);
            }
            (OrderKind::Forget, Outcome::Done) => wire.is_forgotten = true,
            // An order that was asked twice, as its first answer was lost, may fail the second time.
            (OrderKind::Prepare, _) if part.prepared => {}
            (OrderKind::Spawn, _) if part.spawned => {}
            (OrderKind::Prepare, outcome) => self.start_failed(machine, RefusalCode::NotPrepared, outcome, now, out),
            (OrderKind::Spawn, outcome) => self.start_failed(machine, RefusalCode::SpawnFailed, outcome, now, out),
            (_, Outcome::TimedOut | Outcome::Full) => wire.wait_until(now),
            (OrderKind::Release, Outcome::Refused(refusal)) => {
                part.released = true;
                let note = format!("machine `{machine}` could not let its nodes go: {}", refusal.message);
                self.stop_the_rest(note, out);
            }
            // There may be nothing to kill, and still something to forget: a preparing that is under way.
            (OrderKind::Kill, Outcome::Refused(_)) if self.undo.is_some() => wire.is_killed = true,
            (OrderKind::Stop | OrderKind::Kill, Outcome::Refused(refusal)) => {
                wire.wait_until(now);
                if refusal.code == RefusalCode::NotFound {
                    part.ended = true;
                    self.record.notes.push(format!("machine `{machine}` no longer knew its part"));
                    out.push(Command::Save);
                }
            }
            (OrderKind::Forget, Outcome::Refused(refusal)) => {
                // A run that is not there is as good as forgotten; one that lives is forgotten when it has ended.
                wire.is_forgotten = refusal.code == RefusalCode::NotFound;
                wire.wait_until(now);
            }
        }
    }
}
