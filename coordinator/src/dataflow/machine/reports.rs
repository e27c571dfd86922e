//! What a machine reports of its part, and what its silence, its return and its forgetting mean for the dataflow.

use super::{Command, Life};
use crate::moment::Moment;
use dora_remote_protocol::{
    dataflow::{DataflowEvent, DataflowState, FailureCause, NodeFailure, NodeState, NodeStatus},
    ids::NodeId,
    machine::{Lifecycle, Restored},
    name::MachineName,
    refusal::{Refusal, RefusalCode},
};

impl Life {
    pub(super) fn happened(
        &mut self,
        machine: &MachineName,
        at_unix_ms: u64,
        what: Lifecycle,
        now: Moment,
        out: &mut Vec<Command>,
    ) {
        let several = self.is_over_several_machines();
        let Some(part) = self.record.parts.get_mut(machine) else {
            return;
        };
        out.push(Command::Save);
        match what {
            Lifecycle::NodeStarted { node, pid } => {
                self.node(machine, &node, NodeState::Running, Some(pid), Some(at_unix_ms), out)
            }
            Lifecycle::NodeStopped { node, clean } => {
                let state = if clean { NodeState::Stopped } else { NodeState::Failed };
                self.node(machine, &node, state, None, Some(at_unix_ms), out);
            }
            Lifecycle::BarrierReached { exited_before_subscribe } => part.barrier = Some(exited_before_subscribe),
            Lifecycle::Finished { failures, note } => {
                if part.ended {
                    return;
                }
                part.ended = true;
                part.ended_unix_ms = Some(at_unix_ms);
                if let Some(wire) = self.wires.get_mut(machine) {
                    wire.not_before = None;
                }
                if self.undo.is_some() {
                    return;
                }
                let failed = !failures.is_empty();
                self.fail_nodes(failures, Some(at_unix_ms), out);
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
            Lifecycle::LinkLost { silent_ms } => self.link_lost(machine, at_unix_ms, silent_ms, now, out),
        }
    }

    /// A machine has begun to stop its part by itself. Its end is reported on its own.
    fn link_lost(&mut self, machine: &MachineName, at_unix_ms: u64, silent_ms: u64, now: Moment, out: &mut Vec<Command>) {
        out.push(Command::Tell(DataflowEvent::LinkLost {
            machine: machine.clone(),
            at_unix_ms,
            silent_ms,
        }));
        let seconds = silent_ms / 1000;
        let reason =
            format!("its link-loss policy stopped it on `{machine}`, which did not hear the coordinator for {seconds} s");
        if self.undo.is_some() {
            return;
        }
        if self.record.state < DataflowState::Running {
            self.start_undo(Refusal::new(RefusalCode::MachineUnreachable, reason), now, out);
            return;
        }
        // Who has asked for the end gets it, in whichever way.
        self.record.broken |= self.record.stop.as_ref().is_none_or(|stop| stop.by.is_none());
        self.record.notes.push(reason);
        if self.record.state == DataflowState::Running {
            if self.is_over_several_machines() {
                self.stop_the_rest("the other machines were stopped therefore".to_owned(), out);
            } else {
                self.enter(DataflowState::Stopping, out);
            }
        }
    }

    pub(super) fn sync_nodes(&mut self, machine: &MachineName, nodes: Vec<NodeStatus>, out: &mut Vec<Command>) {
        for node in nodes {
            self.node(machine, &node.id, node.state, node.pid, None, out);
        }
    }

    pub(super) fn machine_lost(&mut self, machine: MachineName, since_unix_ms: u64, now: Moment, out: &mut Vec<Command>) {
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

    pub(super) fn machine_back(&mut self, machine: MachineName, fresh: bool, now: Moment, out: &mut Vec<Command>) {
        let Some((part, wire)) = self.record.parts.get_mut(&machine).zip(self.wires.get_mut(&machine)) else {
            return;
        };
        if fresh {
            wire.in_flight.clear();
        }
        wire.is_cut = false;
        wire.not_before = None;
        if let Some(unreachable_since_unix_ms) = part.unreachable_since_unix_ms.take() {
            part.restored = Some(Restored {
                unreachable_since_unix_ms,
                at_unix_ms: now.unix_ms,
            });
            out.push(Command::Save);
            out.push(Command::Tell(DataflowEvent::Reach {
                machine,
                unreachable_since_unix_ms: None,
            }));
        }
    }

    pub(super) fn part_gone(&mut self, machine: &MachineName, reason: &str, now: Moment, out: &mut Vec<Command>) {
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
        self.fail_nodes(failures, None, out);
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

    /// `at_unix_ms`: when that was, by the machine's clock, where it has said so.
    fn node(
        &mut self,
        machine: &MachineName,
        id: &NodeId,
        state: NodeState,
        pid: Option<u32>,
        at_unix_ms: Option<u64>,
        out: &mut Vec<Command>,
    ) {
        let known = self
            .record
            .nodes
            .iter_mut()
            .find(|node| node.id == *id && node.machine == *machine);
        if let Some(node) = known
            && (node.state, node.pid) != (state, pid)
        {
            (node.state, node.pid) = (state, pid);
            out.push(Command::Tell(DataflowEvent::Node {
                node: node.clone(),
                at_unix_ms,
            }));
            out.push(Command::Save);
        }
    }

    fn fail_nodes(&mut self, failures: Vec<NodeFailure>, at_unix_ms: Option<u64>, out: &mut Vec<Command>) {
        for failure in failures {
            self.node(
                &failure.machine.clone(),
                &failure.node.clone(),
                NodeState::Failed,
                None,
                at_unix_ms,
                out,
            );
            if !self.record.failures.iter().any(|known| known.node == failure.node) {
                self.record.failures.push(failure);
            }
        }
    }
}

/// The cause of a failure as half a sentence, or nothing.
pub(super) fn told_cause(cause: &FailureCause) -> String {
    match cause {
        FailureCause::FailedToSpawn { message } | FailureCause::EngineLost { message } => format!(": {message}"),
        FailureCause::Own { stderr } => stderr.lines().last().map_or_else(String::new, |line| format!(": {line}")),
        FailureCause::Cascading { caused_by } => format!(", after `{caused_by}` had failed"),
        FailureCause::GraceDuration => String::new(),
    }
}
