//! Records for tests of the modules around.

use super::record::{Part, Record, StartOutcome};
use dora_remote_protocol::{
    dataflow::{DataflowSpec, DataflowState, Files, Labels, LinkLoss, NameWish, NodeSpec, NodeState, NodeStatus, PlacedNode},
    ids::{DataflowId, RequestId},
    name::MachineName,
};
use std::{collections::BTreeMap, sync::Arc};
use uuid::Uuid;

pub(crate) fn id(number: u128) -> DataflowId {
    DataflowId(Uuid::from_u128(number))
}

pub(crate) fn start_id(number: u128) -> RequestId {
    RequestId(Uuid::from_u128(number))
}

pub(crate) fn machine(name: &str) -> MachineName {
    name.parse().unwrap()
}

/// A dataflow with one node, named like its machine with `n-` before, on each machine.
pub(crate) fn record_on(number: u128, name: &str, state: DataflowState, machines: &[&str]) -> Record {
    let ended = state.has_ended();
    Record {
        id: id(number),
        name: name.parse().unwrap(),
        state,
        created_unix_ms: 1,
        running_since_unix_ms: None,
        ended_unix_ms: ended.then_some(u64::try_from(number).unwrap()),
        ended_as: None,
        started_by: "spiffe://lab/operator/ann".to_owned(),
        start_id: Some(start_id(number)),
        start: if state < DataflowState::Running {
            StartOutcome::Pending
        } else {
            StartOutcome::Started
        },
        bundle: None,
        placed: machines
            .iter()
            .map(|name| PlacedNode {
                id: format!("n-{name}").parse().unwrap(),
                machine: machine(name),
                dynamic: false,
            })
            .collect(),
        nodes: machines
            .iter()
            .map(|name| NodeStatus {
                id: format!("n-{name}").parse().unwrap(),
                machine: machine(name),
                state: NodeState::Waiting,
                pid: None,
            })
            .collect(),
        parts: machines
            .iter()
            .map(|name| {
                let part = Part {
                    prepared: state > DataflowState::Preparing,
                    spawned: state > DataflowState::Starting,
                    barrier: (state > DataflowState::Starting && machines.len() > 1).then(Vec::new),
                    ended,
                    ..Part::default()
                };
                (machine(name), part)
            })
            .collect::<BTreeMap<_, _>>(),
        stop: None,
        failures: Vec::new(),
        notes: Vec::new(),
        broken: false,
        result: None,
        link_loss: LinkLoss::Keep,
    }
}

pub(crate) fn record_in(number: u128, name: &str, state: DataflowState) -> Record {
    record_on(number, name, state, &["a"])
}

pub(crate) fn spec(machines: &[&str]) -> Arc<DataflowSpec> {
    Arc::new(DataflowSpec {
        name: NameWish::Like("flow".parse().unwrap()),
        descriptor: "nodes: []".to_owned(),
        nodes: machines
            .iter()
            .map(|name| NodeSpec {
                id: format!("n-{name}").parse().unwrap(),
                machine: Some(machine(name)),
                labels: Labels::new(),
                dynamic: false,
            })
            .collect(),
        default_machine: None,
        files: Files::OnMachine("/srv/flow".to_owned()),
        uv: false,
        link_loss: LinkLoss::Keep,
    })
}
