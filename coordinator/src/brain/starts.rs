//! What the brain does about a start: everything that can be refused is refused before anything happens.

use super::{After, Brain, FEED};
use crate::{
    asker::Asker,
    dataflow::{
        machine::Life,
        placement,
        record::{Part, Record, StartOutcome},
    },
    event::Subscription,
    moment::Moment,
};
use dora_remote_protocol::{
    cli_to_coordinator::StartDataflow,
    dataflow::{DataflowSpec, DataflowState, Files, Labels, NodeState, NodeStatus},
    ids::DataflowId,
    limits::{
        MAX_DESCRIPTOR_BYTES, MAX_LABEL_BYTES, MAX_LABELS, MAX_LINK_SILENCE, MAX_LIVE_DATAFLOWS, MAX_NODES, MIN_LINK_SILENCE,
    },
    refusal::{Refusal, RefusalCode},
};
use std::{collections::BTreeSet, sync::Arc};
use tokio::sync::broadcast;
use uuid::Uuid;

impl Brain {
    pub(super) fn start(&mut self, asker: Asker, request: StartDataflow, now: Moment) -> Result<Subscription, Refusal> {
        let sight = self.sight(&asker);
        let by = asker.who;
        if let Some(id) = self.table.started_by(request.start_id) {
            let own = self.table.get(id).map(Life::record).filter(|record| record.started_by == by);
            let Some(own) = own else {
                return Err(Refusal::new(
                    RefusalCode::BadRequest,
                    "this start id belongs to somebody else",
                ));
            };
            sight.check(own)?;
            return self.subscribe(id);
        }
        let spec = request.spec;
        check(&spec)?;
        if self.table.live().count() >= MAX_LIVE_DATAFLOWS {
            return Err(Refusal::new(
                RefusalCode::Busy,
                format!("{MAX_LIVE_DATAFLOWS} dataflows are running, which is the most there can be"),
            )
            .hint("stop some that are not needed"));
        }
        let mut machines = self.machines.candidates(sight.view(), now);
        machines.retain(|machine| sight.has_machine(&machine.name));
        let placed = placement::place(&spec.nodes, spec.default_machine.as_ref(), &machines, sight.scope())?;
        let name = self.table.name_for(&spec.name, &sight)?;
        let bundle = match &spec.files {
            Files::Bundle(bundle) if self.bundles.has(bundle.hash) => Some(bundle.hash),
            Files::Bundle(bundle) => {
                return Err(
                    Refusal::new(RefusalCode::BadBundle, format!("the bundle {} is not here", bundle.hash))
                        .hint("start again, which uploads it"),
                );
            }
            Files::OnMachine(_) => None,
        };
        let id = self.table.next_id(DataflowId(Uuid::now_v7()));
        let record = Record {
            id,
            name,
            state: DataflowState::Preparing,
            created_unix_ms: now.unix_ms,
            running_since_unix_ms: None,
            ended_unix_ms: None,
            ended_as: None,
            started_by: by,
            start_id: Some(request.start_id),
            start: StartOutcome::Pending,
            bundle,
            nodes: placed
                .iter()
                .map(|node| NodeStatus {
                    id: node.id.clone(),
                    machine: node.machine.clone(),
                    state: NodeState::Waiting,
                    pid: None,
                })
                .collect(),
            parts: placed.iter().map(|node| (node.machine.clone(), Part::default())).collect(),
            placed,
            stop: None,
            failures: Vec::new(),
            notes: Vec::new(),
            broken: false,
            result: None,
            link_loss: spec.link_loss,
        };
        tracing::info!(dataflow = %id, name = %record.name, who = record.started_by, nodes = record.nodes.len(), "starts a dataflow");
        if let Some(hash) = bundle {
            self.bundles.pin(id, hash);
        }
        self.hub.register(id, record.parts.keys().cloned());
        self.changes.dataflow(record.clone());
        self.table.insert(Life::new(record, Arc::new(spec), now));
        self.open_feed(id);
        self.then.push(After::Begin(id));
        self.subscribe(id)
    }

    /// The present state of a dataflow, and what comes.
    pub(super) fn subscribe(&self, id: DataflowId) -> Result<Subscription, Refusal> {
        let life = self.table.get(id);
        let record = life
            .ok_or_else(|| Refusal::new(RefusalCode::NotFound, format!("no dataflow {id} is known")))?
            .record();
        Ok(Subscription {
            id,
            first: record.snapshot(),
            start: match &record.start {
                StartOutcome::Pending => None,
                StartOutcome::Started => Some(Ok(())),
                StartOutcome::Refused(refusal) => Some(Err(refusal.clone())),
            },
            news: self.feeds.get(&id).map(broadcast::Sender::subscribe),
        })
    }

    pub(super) fn open_feed(&mut self, id: DataflowId) {
        self.feeds.insert(id, broadcast::Sender::new(FEED));
    }
}

/// Checks the bounds that a request must keep.
fn check(spec: &DataflowSpec) -> Result<(), Refusal> {
    let bad = |message: String| Err(Refusal::new(RefusalCode::BadDescriptor, message));
    if spec.descriptor.len() > MAX_DESCRIPTOR_BYTES {
        return bad(format!(
            "the descriptor has {} bytes, and at most {MAX_DESCRIPTOR_BYTES} are allowed",
            spec.descriptor.len()
        ));
    }
    if spec.nodes.is_empty() {
        return bad("the dataflow has no nodes".to_owned());
    }
    if spec.nodes.len() > MAX_NODES {
        return bad(format!(
            "the dataflow has {} nodes, and at most {MAX_NODES} are allowed",
            spec.nodes.len()
        ));
    }
    let mut seen = BTreeSet::new();
    for node in &spec.nodes {
        if !seen.insert(&node.id) {
            return bad(format!("two nodes are called `{}`", node.id));
        }
        if !are_within_bounds(&node.labels) {
            return bad(format!(
                "node `{}` asks for more than {MAX_LABELS} labels, or for one with more than {MAX_LABEL_BYTES} bytes",
                node.id
            ));
        }
    }
    if !spec.link_loss.is_within_bounds() {
        return bad(format!(
            "the link-loss policy `{}` is not within {MIN_LINK_SILENCE:?} and {MAX_LINK_SILENCE:?}",
            spec.link_loss
        ));
    }
    if let Files::OnMachine(dir) = &spec.files
        && !dir.starts_with('/')
    {
        return bad(format!("the working directory `{}` is not absolute", dir.escape_debug()));
    }
    Ok(())
}

/// Whether labels keep their bounds.
pub(super) fn are_within_bounds(labels: &Labels) -> bool {
    let fits = |text: &String| text.len() <= MAX_LABEL_BYTES;
    labels.len() <= MAX_LABELS && labels.iter().all(|(key, value)| fits(key) && fits(value))
}
