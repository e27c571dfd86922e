//! The runs that this engine has in hand: how far each is, its nodes and their processes. Pure: facts in, events out.

use crate::{check::Checked, translate::Heard};
use dora_remote_protocol::{
    agent_to_engine::RunOrder,
    dataflow::{FailureCause, NodeFailure, NodeState, NodeStatus},
    engine_to_agent::{EngineEvent, EngineRun, NodeOutput},
    ids::{DataflowId, NodeId},
    machine::RunPhase,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Every run, by id.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    by_id: BTreeMap<DataflowId, Run>,
}

/// One run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) order: RunOrder,
    pub(crate) phase: RunPhase,
    /// What the spawn needs; let go once it is over.
    pub(crate) checked: Option<Arc<Checked>>,
    /// Why the spawn failed, for an agent that asks again.
    pub(crate) spawn_failed: Option<String>,
    nodes: BTreeMap<NodeId, NodeStatus>,
    outputs: Vec<NodeOutput>,
    several_machines: bool,
    /// No local node takes part in dora's barrier, so that dora will not tell when it is reached.
    barrier_is_ours: bool,
    barrier_told: bool,
    /// Nodes whose latest process ended badly.
    failed: BTreeSet<NodeId>,
    /// Nodes that were killed from here, as dora would not any more.
    killed: BTreeSet<NodeId>,
}

impl Run {
    /// A checked run.
    pub(crate) fn new(order: RunOrder, checked: Arc<Checked>) -> Self {
        let local = order.nodes.iter().filter(|node| node.machine.same_as(&order.machine));
        let nodes = local
            .clone()
            .map(|node| {
                let status = NodeStatus {
                    id: node.id.clone(),
                    machine: order.machine.clone(),
                    state: NodeState::Waiting,
                    pid: None,
                };
                (node.id.clone(), status)
            })
            .collect();
        Self {
            phase: RunPhase::Prepared,
            spawn_failed: None,
            several_machines: order.nodes.iter().any(|node| !node.machine.same_as(&order.machine)),
            barrier_is_ours: local.clone().all(|node| node.dynamic),
            outputs: checked.outputs.clone(),
            checked: Some(checked),
            order,
            nodes,
            barrier_told: false,
            failed: BTreeSet::new(),
            killed: BTreeSet::new(),
        }
    }

    /// Where the output of its local nodes is written.
    pub(crate) fn outputs(&self) -> &[NodeOutput] {
        &self.outputs
    }

    /// Whether processes of it may exist.
    pub(crate) const fn is_live(&self) -> bool {
        matches!(
            self.phase,
            RunPhase::Spawning | RunPhase::AtBarrier | RunPhase::Running | RunPhase::Stopping
        )
    }

    /// The processes of nodes that have not ended.
    pub(crate) fn processes(&self) -> Vec<(NodeId, u32)> {
        self.nodes
            .values()
            .filter_map(|node| Some((node.id.clone(), node.pid?)))
            .collect()
    }

    /// Remembers that a node was killed from here.
    pub(crate) fn was_killed(&mut self, node: NodeId) {
        self.killed.insert(node);
    }

    /// Ends a run of which dora knows nothing (any more): it was never spawned, or its spawn was refused as a whole.
    pub(crate) fn end_without_dora(&mut self, why: Option<&str>) -> Vec<EngineEvent> {
        let failures = why.map_or_else(Vec::new, |why| {
            let failure = |node: &NodeId| NodeFailure {
                node: node.clone(),
                machine: self.order.machine.clone(),
                cause: FailureCause::FailedToSpawn { message: why.to_owned() },
                exit: "not started".to_owned(),
            };
            self.nodes.keys().map(failure).collect()
        });
        self.spawn_failed = why.map(ToOwned::to_owned);
        self.finish(failures)
    }

    fn hear(&mut self, heard: Heard) -> Vec<EngineEvent> {
        match heard {
            Heard::SpawnSettled { result, .. } => self.spawned(result),
            Heard::Process { node, pid, sure, .. } => self.process(&node, pid, sure),
            Heard::ProcessFailed { node, .. } => {
                self.failed.insert(node);
                Vec::new()
            }
            Heard::NodeStopped { node, clean, .. } => self.node_stopped(&node, clean),
            Heard::BarrierReached { exited, .. } => self.barrier(exited),
            Heard::Finished { failures, .. } => self.finish(failures),
            // Counted apart, as they come by the thousand.
            Heard::Up | Heard::Message { .. } | Heard::LinesLost { .. } => Vec::new(),
        }
    }

    fn spawned(&mut self, result: Result<(), String>) -> Vec<EngineEvent> {
        self.checked = None;
        if let Err(why) = result {
            self.spawn_failed = Some(why);
            return Vec::new();
        }
        // Nodes that end at once may have ended the run before dora says that they were all spawned.
        if self.phase != RunPhase::Spawning {
            return Vec::new();
        }
        self.phase = if self.several_machines {
            RunPhase::AtBarrier
        } else {
            RunPhase::Running
        };
        if self.several_machines && self.barrier_is_ours {
            return self.barrier(Vec::new());
        }
        Vec::new()
    }

    fn process(&mut self, node: &NodeId, pid: u32, sure: bool) -> Vec<EngineEvent> {
        let Some(status) = self.nodes.get_mut(node) else {
            return Vec::new();
        };
        // A process that is merely seen may be one that ended since; it is believed only while none is known.
        if status.pid == Some(pid) || (!sure && status.state != NodeState::Waiting) {
            return Vec::new();
        }
        self.failed.remove(node);
        status.state = NodeState::Running;
        status.pid = Some(pid);
        vec![EngineEvent::NodeStarted { node: node.clone(), pid }]
    }

    fn node_stopped(&mut self, node: &NodeId, clean: bool) -> Vec<EngineEvent> {
        let clean = clean && !self.failed.contains(node);
        let Some(status) = self.nodes.get_mut(node) else {
            return Vec::new();
        };
        status.state = if clean { NodeState::Stopped } else { NodeState::Failed };
        status.pid = None;
        vec![EngineEvent::NodeStopped {
            node: node.clone(),
            clean,
        }]
    }

    fn barrier(&mut self, exited_before_subscribe: Vec<NodeId>) -> Vec<EngineEvent> {
        if std::mem::replace(&mut self.barrier_told, true) || !self.several_machines {
            return Vec::new();
        }
        vec![EngineEvent::BarrierReached { exited_before_subscribe }]
    }

    fn finish(&mut self, mut failures: Vec<NodeFailure>) -> Vec<EngineEvent> {
        if self.phase == RunPhase::Ended {
            return Vec::new();
        }
        self.phase = RunPhase::Ended;
        self.checked = None;
        for failure in &mut failures {
            if self.killed.contains(&failure.node) && failure.exit == "signal 9" {
                failure.cause = FailureCause::GraceDuration;
            }
        }
        for status in self.nodes.values_mut() {
            let failed = failures.iter().any(|failure| failure.node == status.id);
            status.state = if failed { NodeState::Failed } else { NodeState::Stopped };
            status.pid = None;
        }
        vec![EngineEvent::Finished { failures }]
    }

    fn report(&self) -> EngineRun {
        EngineRun {
            order: self.order.clone(),
            phase: self.phase,
            nodes: self.nodes.values().cloned().collect(),
            outputs: self.outputs.clone(),
        }
    }
}

impl Runs {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// One run.
    pub(crate) fn get(&self, dataflow: DataflowId) -> Option<&Run> {
        self.by_id.get(&dataflow)
    }

    /// One run, to change it.
    pub(crate) fn get_mut(&mut self, dataflow: DataflowId) -> Option<&mut Run> {
        self.by_id.get_mut(&dataflow)
    }

    /// Takes a run in hand, in place of a run of the same id.
    pub(crate) fn insert(&mut self, run: Run) {
        self.by_id.insert(run.order.dataflow, run);
    }

    /// Forgets a run.
    pub(crate) fn remove(&mut self, dataflow: DataflowId) {
        self.by_id.remove(&dataflow);
    }

    /// Runs that may have processes.
    pub(crate) fn live(&self) -> Vec<DataflowId> {
        self.by_id
            .values()
            .filter(|run| run.is_live())
            .map(|run| run.order.dataflow)
            .collect()
    }

    /// All runs, for the agent.
    pub(crate) fn report(&self) -> Vec<EngineRun> {
        self.by_id.values().map(Run::report).collect()
    }

    /// Takes a fact in; says to which run it belongs and what is to be told.
    pub(crate) fn hear(&mut self, heard: Heard) -> (Option<DataflowId>, Vec<EngineEvent>) {
        let dataflow = match &heard {
            Heard::Up => None,
            Heard::Message { dataflow, .. } => *dataflow,
            Heard::SpawnSettled { dataflow, .. }
            | Heard::Process { dataflow, .. }
            | Heard::ProcessFailed { dataflow, .. }
            | Heard::NodeStopped { dataflow, .. }
            | Heard::BarrierReached { dataflow, .. }
            | Heard::LinesLost { dataflow, .. }
            | Heard::Finished { dataflow, .. } => Some(*dataflow),
        };
        if let Heard::Message { source, level, text, .. } = heard {
            return (dataflow, vec![EngineEvent::Message { source, level, text }]);
        }
        let events = dataflow
            .and_then(|dataflow| self.get_mut(dataflow))
            .map_or_else(Vec::new, |run| run.hear(heard));
        (dataflow, events)
    }
}

#[cfg(test)]
#[path = "runs/tests.rs"]
mod tests;
