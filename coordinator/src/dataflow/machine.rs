//! The life of one dataflow: what happens comes in, what is to be done comes out.
//!
//! Pure: time is an argument. What a machine still owes follows from the state alone (`orders.rs`), so that nothing needs
//! to be remembered about orders that were lost: whoever comes back is asked again. A start that fails is undone in `undo.rs`.

mod orders;
#[cfg(test)]
mod tests;
mod undo;

use super::record::{Part, Record, StartOutcome, StopForce, StopWish};
use crate::moment::Moment;
use dora_remote_protocol::{
    dataflow::{DataflowEvent, DataflowSpec, DataflowState, FailureCause, NodeFailure, NodeState, NodeStatus},
    ids::NodeId,
    limits::{BARRIER_DEADLINE, PREPARE_DEADLINE, SPAWN_DEADLINE},
    machine::Lifecycle,
    name::MachineName,
    refusal::{Changed, Refusal, RefusalCode},
};
use orders::Wire;
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
    /// A machine reported something.
    Happened { machine: MachineName, what: Lifecycle },
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
        self.record
            .placed
            .extend(nodes.iter().map(|node| dora_remote_protocol::dataflow::PlacedNode {
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
            Input::Happened { machine, what } => self.happened(&machine, what, &mut out),
            Input::Nodes { machine, nodes } => self.sync_nodes(&machine, nodes, &mut out),
            Input::MachineLost { machine, since_unix_ms } => self.machine_lost(machine, since_unix_ms, now, &mut out),
            Input::MachineBack { machine, fresh } => self.machine_back(machine, fresh, &mut out),
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

    fn answered(&mut self, machine: &MachineName, order: OrderKind, outcome: Outcome, now: Moment, out: &mut Vec<Command>) {
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
            (OrderKind::Kill, Outcome::Refused(refusal)) if self.undo.is_some() => {
                wire.is_killed = true;
                wire.is_forgotten = refusal.code == RefusalCode::NotFound;
            }
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

    fn happened(&mut self, machine: &MachineName, what: Lifecycle, out: &mut Vec<Command>) {
        let several = self.is_over_several_machines();
        let Some(part) = self.record.parts.get_mut(machine) else {
            return;
        };
        out.push(Command::Save);
        match what {
            Lifecycle::NodeStarted { node, pid } => self.node(machine, &node, NodeState::Running, Some(pid), out),
            Lifecycle::NodeStopped { node, clean } => {
                let state = if clean { NodeState::Stopped } else { NodeState::Failed };
                self.node(machine, &node, state, None, out);
            }
            Lifecycle::BarrierReached { exited_before_subscribe } => part.barrier = Some(exited_before_subscribe),
            Lifecycle::Finished { failures, note } => {
                if part.ended {
                    return;
                }
                part.ended = true;
                if let Some(wire) = self.wires.get_mut(machine) {
                    wire.not_before = None;
                }
                if self.undo.is_some() {
                    return;
                }
                let failed = !failures.is_empty();
                self.fail_nodes(failures, out);
                if !note.is_empty() {
                    self.record.notes.push(format!("machine `{machine}`: {note}"));
                }
                if self.record.state >= DataflowState::Running {
                    self.done(machine, out);
                }
                if failed && several && self.record.state == DataflowState::Running && !self.all(|part| part.ended) {
                    self.stop_the_rest(
                        format!("as the part on `{machine}` failed, the other machines were stopped"),
                        out,
                    );
                }
            }
            Lifecycle::LogsShipped => part.logs_shipped = true,
        }
    }

    fn sync_nodes(&mut self, machine: &MachineName, nodes: Vec<NodeStatus>, out: &mut Vec<Command>) {
        for node in nodes {
            self.node(machine, &node.id, node.state, node.pid, out);
        }
    }

    fn machine_lost(&mut self, machine: MachineName, since_unix_ms: u64, now: Moment, out: &mut Vec<Command>) {
        let Some(part) = self.record.parts.get_mut(&machine) else {
            return;
        };
        part.unreachable_since_unix_ms = Some(since_unix_ms);
        out.push(Command::Save);
        if part.ended {
            return;
        }
        out.push(Command::Tell(DataflowEvent::Reach {
            machine: machine.clone(),
            unreachable_since_unix_ms: Some(since_unix_ms),
        }));
        if self.record.state < DataflowState::Running && self.undo.is_none() {
            let refusal = Refusal::new(
                RefusalCode::MachineUnreachable,
                format!("machine `{machine}` was lost during the start"),
            );
            self.start_undo(refusal, now, out);
        }
    }

    fn machine_back(&mut self, machine: MachineName, fresh: bool, out: &mut Vec<Command>) {
        let Some((part, wire)) = self.record.parts.get_mut(&machine).zip(self.wires.get_mut(&machine)) else {
            return;
        };
        if fresh {
            wire.in_flight.clear();
        }
        wire.is_cut = false;
        wire.not_before = None;
        if part.unreachable_since_unix_ms.take().is_some() {
            out.push(Command::Save);
            out.push(Command::Tell(DataflowEvent::Reach {
                machine,
                unreachable_since_unix_ms: None,
            }));
        }
    }

    fn part_gone(&mut self, machine: &MachineName, reason: &str, now: Moment, out: &mut Vec<Command>) {
        let several = self.is_over_several_machines();
        let Some(part) = self.record.parts.get_mut(machine) else {
            return;
        };
        if part.ended {
            return;
        }
        part.ended = true;
        part.logs_shipped = true;
        let lost = |node: &&NodeStatus| node.machine == *machine && matches!(node.state, NodeState::Waiting | NodeState::Running);
        let failures = self.record.nodes.iter().filter(lost).map(|node| NodeFailure {
            node: node.id.clone(),
            machine: machine.clone(),
            cause: FailureCause::EngineLost {
                message: reason.to_owned(),
            },
            exit: "unknown".to_owned(),
        });
        let failures = failures.collect();
        self.fail_nodes(failures, out);
        self.record.broken = true;
        self.record.notes.push(format!("machine `{machine}`: {reason}"));
        out.push(Command::Save);
        if self.undo.is_some() {
            return;
        }
        if self.record.state < DataflowState::Running {
            let refusal = Refusal::new(RefusalCode::SpawnFailed, format!("machine `{machine}`: {reason}"));
            self.start_undo(refusal, now, out);
        } else if several && self.record.state == DataflowState::Running && !self.all(|part| part.ended) {
            self.stop_the_rest(
                format!("as the part on `{machine}` failed, the other machines were stopped"),
                out,
            );
        }
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

    fn node(&mut self, machine: &MachineName, id: &NodeId, state: NodeState, pid: Option<u32>, out: &mut Vec<Command>) {
        let known = self
            .record
            .nodes
            .iter_mut()
            .find(|node| node.id == *id && node.machine == *machine);
        if let Some(node) = known
            && (node.state, node.pid) != (state, pid)
        {
            (node.state, node.pid) = (state, pid);
            out.push(Command::Tell(DataflowEvent::Node(node.clone())));
            out.push(Command::Save);
        }
    }

    fn fail_nodes(&mut self, failures: Vec<NodeFailure>, out: &mut Vec<Command>) {
        for failure in failures {
            self.node(&failure.machine.clone(), &failure.node.clone(), NodeState::Failed, None, out);
            if !self.record.failures.iter().any(|known| known.node == failure.node) {
                self.record.failures.push(failure);
            }
        }
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

/// The cause of a failure as half a sentence, or nothing.
fn told_cause(cause: &FailureCause) -> String {
    match cause {
        FailureCause::FailedToSpawn { message } | FailureCause::EngineLost { message } => format!(": {message}"),
        FailureCause::Own { stderr } => stderr.lines().last().map_or_else(String::new, |line| format!(": {line}")),
        FailureCause::Cascading { caused_by } => format!(", after `{caused_by}` had failed"),
        FailureCause::GraceDuration => String::new(),
    }
}

/// What a failed start has changed, as it is known before it was undone.
const BEFORE_UNDO: Changed = Changed::Partly;
