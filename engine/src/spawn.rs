//! Makes dora's spawn command from a checked run.
//!
//! Dora expands `$` in env values wherever one of its types is deserialized. The command is deserialized once more by the daemon, so
//! every `$` is doubled here and the expansion gives the value back as it was meant.

use crate::{check::Checked, log_caps};
use dora_message::{
    SessionId,
    coordinator_to_daemon::SpawnDataflowNodes,
    descriptor::{CoreNodeKind, Deploy, EnvValue},
};
use dora_remote_protocol::agent_to_engine::RunOrder;
use std::{collections::BTreeMap, path::PathBuf};

/// The command that spawns the local nodes of a run. `node_log_bytes`: see [`crate::EngineConfig::node_log_bytes`].
pub(crate) fn command(order: &RunOrder, checked: &Checked, node_log_bytes: u64) -> SpawnDataflowNodes {
    let mut descriptor = checked.descriptor.clone();
    double(&mut descriptor.env);
    for node in &mut descriptor.nodes {
        double(&mut node.env);
    }
    let mut nodes = checked.nodes.clone();
    for node in nodes.values_mut() {
        log_caps::set(node, node_log_bytes);
        double(&mut node.env);
        if let CoreNodeKind::Custom(custom) = &mut node.kind {
            double(&mut custom.envs);
        }
        // Dora asks the daemons of other machines for their part by `deploy.machine`; nodes that were placed by a label or by default
        // have none in the text.
        if let Some(placed) = order.nodes.iter().find(|placed| placed.id.as_str() == node.id.as_ref()) {
            node.deploy.get_or_insert_with(Deploy::default).machine = Some(placed.machine.to_string());
        }
    }
    SpawnDataflowNodes {
        build_id: None,
        session_id: SessionId::generate(),
        dataflow_id: order.dataflow.0,
        local_working_dir: Some(PathBuf::from(&order.run_dir)),
        nodes,
        dataflow_descriptor: descriptor,
        spawn_nodes: checked.local.clone(),
        uv: order.uv,
        write_events_to: None,
        artifact_base_url: None,
    }
}

fn double(env: &mut Option<BTreeMap<String, EnvValue>>) {
    for value in env.iter_mut().flat_map(BTreeMap::values_mut) {
        match value {
            EnvValue::String(text) => *text = text.replace('$', "$$"),
            // JSON has no infinity; written as text, dora reads it back as the same number.
            EnvValue::Float(number) if !number.is_finite() => *value = EnvValue::String(number.to_string()),
            EnvValue::Bool(_) | EnvValue::Integer(_) | EnvValue::Float(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::{checked, order};

    #[test]
    fn env_values_survive_the_daemons_expansion() {
        let yaml = r"
env: {ALL: '$$$$UNSET'}
nodes:
  - id: a
    path: /bin/sh
    env: {ONE: '$$HOME', TWO: '$${X:-y}', THREE: '$$$$', FOUR: 7, FIVE: .inf, SIX: '$$DORA_AUTH_TOKEN'}
";
        let order = order(yaml, &[("a", "here", false)], "/");
        let command = command(&order, &checked(&order), 1 << 20);
        let text = serde_json::to_string(&command).expect("writes");
        let read: SpawnDataflowNodes = serde_json::from_str(&text).expect("the daemon reads it");
        let value = |env: &BTreeMap<String, EnvValue>, key: &str| env[key].to_string();
        let resolved = read.nodes.values().next().expect("one node").env.clone().expect("env");
        let written = read.dataflow_descriptor.nodes[0].env.clone().expect("env");
        for env in [&resolved, &written] {
            assert_eq!(value(env, "ONE"), "$HOME");
            assert_eq!(value(env, "TWO"), "${X:-y}");
            assert_eq!(value(env, "THREE"), "$$");
            assert_eq!(value(env, "FOUR"), "7");
            assert_eq!(value(env, "FIVE"), "inf");
            assert_eq!(value(env, "SIX"), "$DORA_AUTH_TOKEN");
        }
        assert_eq!(value(&resolved, "ALL"), "$$UNSET");
        assert_eq!(
            read.nodes
                .values()
                .next()
                .and_then(|node| node.deploy.clone()?.machine)
                .as_deref(),
            Some("here")
        );
    }
}
