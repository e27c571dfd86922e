//! The life of one dataflow: what happens comes in, what is to be done comes out.
//!
//! Pure: time is an argument. What a machine still owes follows from the state alone (`orders.rs`), so that nothing needs
//! to be remembered about orders that were lost: whoever comes back is asked again. A start that fails is undone in `undo.rs`.

mod answers;
mod orders;
mod reports;
#[cfg(test)]
mod tests;
mod undo;

use super::record::{Part, Record, StartOutcome, StopForce, StopWish};
use crate::moment::Moment;
use dora_remote_protocol::{
    dataflow::{DataflowEvent, DataflowSpec, DataflowState, NodeStatus, PlacedNode},
    ids::NodeId,
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

/// What can happen to a dataflow.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// Its record is on disk.
    Begin,
    /// A machine answered an order, or did not.
    Answered {
        machine: MachineName,
        order: OrderKind,
        outcome: Outcome,
    },
    /// A machine reported something, and when that was by its clock.
    Happened {
        machine: MachineName,
        at_unix_ms: u64,
        what: Lifecycle,
    },
    /// A machine says how its nodes are, on joining.
    Nodes { machine: MachineName, nodes: Vec<NodeStatus> },
    /// A machine has been silent for too long.
    MachineLost { machine: MachineName, since_unix_ms: u64 },
    /// A machine can be reached again; on a fresh connection, orders that were under way are lost.
    MachineBack { machine: MachineName, fresh: bool },
    /// A machine came back and knows nothing of its part.
    PartGone { machine: MachineName, reason: String },
    /// Somebody wants it to end.
    Stop { by: String, grace_ms: Option<u64>, force: bool },
    /// Time has passed.
    Tick,
}

/// An order to one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Prepare,
    Spawn,
    Release { exited_before_subscribe: Vec<NodeId> },
    Stop { grace_ms: Option<u64> },
    Kill,
    Forget,
}

/// Which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OrderKind {
    Prepare,
    Spawn,
    Release,
    Stop,
    Kill,
    Forget,
}

impl Order {
    pub(crate) const fn kind(&self) -> OrderKind {
        match self {
            Self::Prepare => OrderKind::Prepare,
            Self::Spawn => OrderKind::Spawn,
            Self::Release { .. } => OrderKind::Release,
            Self::Stop { .. } => OrderKind::Stop,
            Self::Kill => OrderKind::Kill,
            Self::Forget => OrderKind::Forget,
        }
    }
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Refused(Refusal),
    /// The connection is gone; whether the machine did it is not known.
    Lost,
    /// The machine is connected and did not answer in time.
    TimedOut,
    /// The machine takes no more orders: it answers too slowly.
    Full,
}

/// What is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Order a machine to do something.
    Order { machine: MachineName, order: Order },
    /// Tell those who watch.
    Tell(DataflowEvent),
    /// Tell those who started it that it runs.
    Started,
    /// Tell those who started it that it does not.
    StartRefused(Refusal),
    /// Put the record on disk.
    Save,
    /// Nothing more will happen, except for log lines.
    Ended,
}

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

    fn stop(&mut self, by: String, grace_ms: Option<u64>, force: bool, now: Moment, out: &mut Vec<Command>) {
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
    fn stop_the_rest(&mut self, note: String, out: &mut Vec<Command>) {
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
