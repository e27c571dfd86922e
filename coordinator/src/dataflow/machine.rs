//! The life of one dataflow: what happens comes in, what is to be done comes out.
//!
//! Pure: time is an argument. What a machine still owes follows from the state alone (`orders.rs`), so that nothing needs
//! to be remembered about orders that were lost: whoever comes back is asked again. A start that fails is undone in `undo.rs`.

mod answers;
mod language;
mod orders;
mod reports;
mod stopping;
#[cfg(test)]
mod tests;
mod undo;

pub(crate) use language::{Command, Input, Order, OrderKind, Outcome};
pub(crate) use stopping::StopVerdict;

use super::record::{Part, Record, StartOutcome};
use crate::moment::Moment;
use dora_remote_protocol::{
    dataflow::{DataflowEvent, DataflowSpec, DataflowState, NodeStatus, PlacedNode},
    limits::{PREPARE_DEADLINE, SPAWN_DEADLINE},
    machine::Lifecycle,
    name::MachineName,
    refusal::{Changed, Refusal, RefusalCode},
};
use orders::Wire;
use reports::told_cause;
use std::{collections::BTreeMap, sync::Arc, time::Instant};
use undo::Undo;

/// One dataflow, alive or ended.
#[derive(Debug)]
pub(crate) struct Life {
    record: Record,
    spec: Option<Arc<DataflowSpec>>,
    /// Whether orders may go out: not before the record is on disk.
    begun: bool,
    /// When the present state of a start has taken too long.
    deadline: Option<Instant>,
    undo: Option<Undo>,
    wires: BTreeMap<MachineName, Wire>,
}

impl Life {
    /// A new dataflow, which waits for [`Input::Begin`].
    pub(crate) fn new(record: Record, spec: Arc<DataflowSpec>, now: Moment) -> Self {
        Self {
            spec: Some(spec),
            deadline: Some(now.steady + PREPARE_DEADLINE),
            ..Self::restored(record)
        }
    }

    /// A dataflow from the store, or found on a machine. Its machines are asked for what they owe when they come back.
    pub(crate) fn restored(record: Record) -> Self {
        let wires = record.parts.keys().map(|name| (name.clone(), Wire::default())).collect();
        Self {
            begun: record.state > DataflowState::Preparing,
            spec: None,
            deadline: None,
            undo: None,
            record,
            wires,
        }
    }

    /// What is remembered of it.
    pub(crate) const fn record(&self) -> &Record {
        &self.record
    }

    /// Notes which of all that ended it is.
    pub(crate) const fn set_ended_as(&mut self, number: u64) {
        self.record.ended_as = Some(number);
    }

    /// What it was started from, until it has ended.
    pub(crate) const fn spec(&self) -> Option<&Arc<DataflowSpec>> {
        self.spec.as_ref()
    }

    /// Adds the part of a machine to a run that was found on machines.
    pub(crate) fn adopt(&mut self, machine: MachineName, part: Part, nodes: Vec<NodeStatus>) {
        self.wires.insert(machine.clone(), Wire::default());
        self.record.placed.extend(nodes.iter().map(|node| PlacedNode {
            id: node.id.clone(),
            machine: machine.clone(),
            dynamic: false,
        }));
        self.record.nodes.extend(nodes);
        self.record.parts.insert(machine, part);
    }

    /// Takes what happened and says what is to be done.
    pub(crate) fn step(&mut self, input: Input, now: Moment) -> Vec<Command> {
        let mut out = Vec::new();
        if self.record.state.has_ended() {
            self.after_the_end(input, &mut out);
            return out;
        }
        match input {
            Input::Begin => self.begun = true,
            Input::Answered { machine, order, outcome } => self.answered(&machine, order, outcome, now, &mut out),
            Input::Happened {
                machine,
                at_unix_ms,
                what,
            } => self.happened(&machine, at_unix_ms, what, now, &mut out),
            Input::Nodes { machine, nodes } => self.sync_nodes(&machine, nodes, &mut out),
            Input::MachineLost { machine, since_unix_ms } => self.machine_lost(machine, since_unix_ms, now, &mut out),
            Input::MachineBack { machine, fresh } => self.machine_back(machine, fresh, now, &mut out),
            Input::PartGone { machine, reason } => self.part_gone(&machine, &reason, now, &mut out),
            Input::Stop { by, grace_ms, force } => self.stop(by, grace_ms, force, now, &mut out),
            Input::Tick => {}
        }
        self.check_deadline(now, &mut out);
        self.advance(now, &mut out);
        self.send_what_is_owed(now, &mut out);
        self.finish_undo(now, &mut out);
        out
    }

    /// Moves on as far as what is known allows.
    fn advance(&mut self, now: Moment, out: &mut Vec<Command>) {
        if self.undo.is_some() || !self.begun {
            return;
        }
        if self.record.state == DataflowState::Preparing && self.all(|part| part.prepared) {
            self.enter(DataflowState::Starting, out);
            self.deadline = Some(now.steady + SPAWN_DEADLINE);
        }
        if self.record.state == DataflowState::Starting {
            self.advance_start(now, out);
            if self.undo.is_some() {
                return;
            }
        }
        let runs = matches!(self.record.state, DataflowState::Running | DataflowState::Stopping);
        if runs && self.all(|part| part.ended) {
            self.end(now, out);
        }
    }

    fn advance_start(&mut self, now: Moment, out: &mut Vec<Command>) {
        if self.is_over_several_machines() {
            let early = |part: &Part| part.spawned && part.ended && part.barrier.is_none();
            if let Some(machine) = self
                .record
                .parts
                .iter()
                .find(|(_, part)| early(part))
                .map(|(name, _)| name.clone())
            {
                let why = self.record.failures.iter().find(|failure| failure.machine == machine);
                let why = why.map_or_else(
                    || "its nodes ended".to_owned(),
                    |failure| {
                        format!(
                            "node `{}` ended ({}){}",
                            failure.node,
                            failure.exit,
                            told_cause(&failure.cause)
                        )
                    },
                );
                let refusal = Refusal::new(
                    RefusalCode::SpawnFailed,
                    format!("machine `{machine}`: {why} before all machines were ready"),
                );
                self.start_undo(refusal, now, out);
                return;
            }
            if !self.all(|part| part.spawned && part.barrier.is_some()) {
                return;
            }
        } else if !self.all(|part| part.spawned) {
            return;
        }
        self.deadline = None;
        self.record.running_since_unix_ms = Some(now.unix_ms);
        self.record.start = StartOutcome::Started;
        self.enter(DataflowState::Running, out);
        out.push(Command::Started);
    }

    fn end(&mut self, now: Moment, out: &mut Vec<Command>) {
        let result = self.record.conclude(now.unix_ms);
        self.spec = None;
        self.undo = None;
        self.deadline = None;
        out.push(Command::Save);
        out.push(Command::Tell(DataflowEvent::State(self.record.state)));
        out.push(Command::Tell(DataflowEvent::Ended(result)));
        out.push(Command::Ended);
    }

    /// Of an ended dataflow only the logs still matter.
    fn after_the_end(&mut self, input: Input, out: &mut Vec<Command>) {
        match input {
            Input::Happened {
                machine,
                what: Lifecycle::LogsShipped,
                ..
            } => {
                if let Some(part) = self.record.parts.get_mut(&machine) {
                    part.logs_shipped = true;
                    out.push(Command::Save);
                }
            }
            // A machine that was left behind while a start was undone has done its order after all.
            Input::Answered {
                machine,
                order: OrderKind::Prepare,
                outcome: Outcome::Done,
            } => out.push(Command::Order {
                machine,
                order: Order::Forget,
            }),
            Input::Answered {
                machine,
                order: OrderKind::Spawn,
                outcome: Outcome::Done,
            } => out.push(Command::Order {
                machine,
                order: Order::Kill,
            }),
            _ => {}
        }
    }

    fn enter(&mut self, state: DataflowState, out: &mut Vec<Command>) {
        self.record.state = state;
        out.push(Command::Save);
        out.push(Command::Tell(DataflowEvent::State(state)));
    }

    fn done(&self, machine: &MachineName, out: &mut Vec<Command>) {
        out.push(Command::Save);
        out.push(Command::Tell(DataflowEvent::MachineDone {
            machine: machine.clone(),
            state: self.record.state,
        }));
    }

    fn check_deadline(&mut self, now: Moment, out: &mut Vec<Command>) {
        if self.undo.is_some() || self.deadline.is_none_or(|deadline| now.steady < deadline) {
            return;
        }
        let (late, what): (fn(&Part) -> bool, _) = if self.record.state == DataflowState::Preparing {
            (|part| !part.prepared, "get ready")
        } else if self.all(|part| part.spawned) {
            (|part| part.barrier.is_none(), "have all their nodes reach the barrier")
        } else {
            (|part| !part.spawned, "spawn their nodes")
        };
        let names = self
            .record
            .parts
            .iter()
            .filter(|(_, part)| late(part))
            .map(|(name, _)| format!("`{name}`"));
        let names = names.collect::<Vec<_>>().join(", ");
        let refusal = Refusal::new(
            RefusalCode::DeadlineExceeded,
            format!("these machines did not {what} in time: {names}"),
        );
        self.start_undo(refusal, now, out);
    }

    fn all(&self, is: impl Fn(&Part) -> bool) -> bool {
        self.record.parts.values().all(is)
    }

    fn is_over_several_machines(&self) -> bool {
        self.record.parts.len() > 1
    }
}

/// What a failed start has changed, as it is known before it was undone.
const BEFORE_UNDO: Changed = Changed::Partly;
