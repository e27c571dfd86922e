//! What is remembered of a dataflow across restarts of the coordinator. It says what is known, not what is to be done next.

use dora_remote_protocol::{
    dataflow::{
        DataflowEvent, DataflowResult, DataflowState, DataflowSummary, FailureCause, LinkLoss, NodeFailure, NodeState,
        NodeStatus, PlacedNode,
    },
    ids::{BundleHash, DataflowId, NodeId, RequestId},
    machine::Restored,
    name::{DataflowName, MachineName},
    refusal::Refusal,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One dataflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: DataflowId,
    pub(crate) name: DataflowName,
    pub(crate) state: DataflowState,
    pub(crate) created_unix_ms: u64,
    pub(crate) running_since_unix_ms: Option<u64>,
    pub(crate) ended_unix_ms: Option<u64>,
    /// Which of all that ended it is, counted: clocks are set, and do not tell who ended first. None for one that ended before this was
    /// counted. Stored in a table of its own.
    #[serde(skip)]
    pub(crate) ended_as: Option<u64>,
    /// SPIFFE id of the one who asked for it.
    pub(crate) started_by: String,
    /// Id of the asking; none for a run that was found on a machine.
    pub(crate) start_id: Option<RequestId>,
    /// What came of the asking.
    pub(crate) start: StartOutcome,
    /// The archive that it needs.
    pub(crate) bundle: Option<BundleHash>,
    pub(crate) placed: Vec<PlacedNode>,
    pub(crate) nodes: Vec<NodeStatus>,
    pub(crate) parts: BTreeMap<MachineName, Part>,
    pub(crate) stop: Option<StopWish>,
    pub(crate) failures: Vec<NodeFailure>,
    /// Things to be said beside the failures.
    pub(crate) notes: Vec<String>,
    /// Whether something failed that is no node's failure.
    pub(crate) broken: bool,
    pub(crate) result: Option<DataflowResult>,
    /// What each machine does with its part when it does not hear us for long.
    pub(crate) link_loss: LinkLoss,
}

/// What came of a start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StartOutcome {
    Pending,
    Started,
    Refused(Refusal),
}

/// The part of a dataflow that one machine runs. Each flag is only ever set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Files are there and were checked.
    pub(crate) prepared: bool,
    /// All processes exist.
    pub(crate) spawned: bool,
    /// The machine reached the barrier; these nodes had exited by then.
    pub(crate) barrier: Option<Vec<NodeId>>,
    /// The machine knows that all others have reached the barrier.
    pub(crate) released: bool,
    /// The strongest stop that the machine has confirmed.
    pub(crate) stop_confirmed: Option<StopForce>,
    /// No process is left.
    pub(crate) ended: bool,
    /// When the last one ended, by the machine's clock, where it has said so.
    pub(crate) ended_unix_ms: Option<u64>,
    /// Every log line is here.
    pub(crate) logs_shipped: bool,
    /// Since when the machine cannot be reached.
    pub(crate) unreachable_since_unix_ms: Option<u64>,
    /// When it last came back from that.
    pub(crate) restored: Option<Restored>,
}

/// How hard a stop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum StopForce {
    /// A stop event, SIGTERM after the grace, SIGKILL later.
    Grace,
    /// SIGKILL at once.
    Kill,
}

/// The wish that a dataflow should end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StopWish {
    /// SPIFFE id of the one who asked; none when the coordinator decided it.
    pub(crate) by: Option<String>,
    pub(crate) grace_ms: Option<u64>,
    pub(crate) force: StopForce,
}

impl Record {
    /// The dataflow as people see it.
    pub(crate) fn summary(&self) -> DataflowSummary {
        DataflowSummary {
            id: self.id,
            name: self.name.clone(),
            state: self.state,
            created_unix_ms: self.created_unix_ms,
            running_since_unix_ms: self.running_since_unix_ms,
            ended_unix_ms: self.ended_unix_ms,
            started_by: self.started_by.clone(),
            nodes: self.nodes.clone(),
            unreachable: self.unreachable(),
            result: self.result.clone(),
            link_loss: self.link_loss,
            restored: self.restored(),
        }
    }

    /// Machines of a live dataflow that cannot be reached, and since when.
    pub(crate) fn unreachable(&self) -> BTreeMap<MachineName, u64> {
        let missing = |(name, part): (&MachineName, &Part)| {
            let since = part.unreachable_since_unix_ms.filter(|_| !part.ended)?;
            Some((name.clone(), since))
        };
        if self.state.has_ended() {
            return BTreeMap::new();
        }
        self.parts.iter().filter_map(missing).collect()
    }

    /// Machines of a live dataflow that could not be reached for a while and are back.
    fn restored(&self) -> BTreeMap<MachineName, Restored> {
        if self.state.has_ended() {
            return BTreeMap::new();
        }
        let back = |(name, part): (&MachineName, &Part)| {
            let restored = part.restored.filter(|_| part.unreachable_since_unix_ms.is_none())?;
            Some((name.clone(), restored))
        };
        self.parts.iter().filter_map(back).collect()
    }

    /// What a newcomer is told before it hears news.
    pub(crate) fn snapshot(&self) -> Vec<DataflowEvent> {
        let mut events = vec![
            DataflowEvent::Placed {
                id: self.id,
                name: self.name.clone(),
                nodes: self.placed.clone(),
            },
            DataflowEvent::State(self.state),
        ];
        let known = self.nodes.iter().filter(|node| node.state != NodeState::Waiting);
        events.extend(known.cloned().map(|node| DataflowEvent::Node { node, at_unix_ms: None }));
        events.extend(self.unreachable().into_iter().map(|(machine, since)| DataflowEvent::Reach {
            machine,
            unreachable_since_unix_ms: Some(since),
        }));
        events.extend(self.result.clone().map(DataflowEvent::Ended));
        events
    }

    /// Whether every machine has shipped all its log lines.
    pub(crate) fn has_all_logs(&self) -> bool {
        self.state.has_ended() && self.parts.values().all(|part| part.logs_shipped || !part.prepared)
    }

    /// Writes the result: first causes before their consequences.
    pub(crate) fn conclude(&mut self, now_unix_ms: u64) -> DataflowResult {
        let consequence = |failure: &NodeFailure| matches!(failure.cause, FailureCause::Cascading { .. });
        self.failures.sort_by_key(consequence);
        let result = DataflowResult {
            success: self.failures.is_empty() && !self.broken,
            stopped: self.stop.as_ref().is_some_and(|stop| stop.by.is_some()),
            failures: self.failures.clone(),
            note: self.notes.join("; "),
        };
        for node in &mut self.nodes {
            if matches!(node.state, NodeState::Waiting | NodeState::Running) {
                node.state = NodeState::Stopped;
            }
            if self.failures.iter().any(|failure| failure.node == node.id) {
                node.state = NodeState::Failed;
            }
            node.pid = None;
        }
        self.state = if result.success {
            DataflowState::Finished
        } else {
            DataflowState::Failed
        };
        let told: Option<Vec<_>> = self.parts.values().map(|part| part.ended_unix_ms).collect();
        let ended = told.and_then(|told| told.into_iter().max()).unwrap_or(now_unix_ms);
        // A clock that is wrong does not make it end before it began, or in the future.
        self.ended_unix_ms = Some(ended.max(self.created_unix_ms).min(now_unix_ms));
        self.result = Some(result.clone());
        result
    }
}
