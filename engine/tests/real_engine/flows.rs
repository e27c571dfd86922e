//! Dataflows of the Python nodes in `nodes`, and what is seen of their runs.

use crate::support::{Agent, eventually, started};
use dora_remote_protocol::{agent_to_engine::RunOrder, dataflow::NodeFailure, engine_to_agent::EngineEvent};
use std::{fs, path::Path};

/// Ends when the sink has enough: dora may lose messages while nodes find each other, so that no test may count on each of them.
pub(crate) const PIPELINE: &str = "
nodes:
  - id: source
    path: source.py
    inputs: {tick: dora/timer/millis/10, enough: sink/enough}
    outputs: [number]
    env: {COUNT: 1000000}
  - {id: relay, path: relay.py, inputs: {number: {source: source/number, queue_size: 1000}}, outputs: [number]}
  - {id: sink, path: sink.py, inputs: {number: {source: relay/number, queue_size: 1000}}, outputs: [enough]}
";
pub(crate) const STUBBORN: &str = "nodes: [{id: stubborn, path: stubborn.py}]";
pub(crate) const TICKER: &str = "
nodes:
  - {id: source, path: source.py, inputs: {tick: dora/timer/millis/20}, outputs: [number], env: {COUNT: 1000000}}
";

pub(crate) fn finished(event: &EngineEvent) -> Option<Vec<NodeFailure>> {
    match event {
        EngineEvent::Finished { failures } => Some(failures.clone()),
        _ => None,
    }
}

pub(crate) fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// The messages of one JSONL file of dora.
pub(crate) fn lines(path: &str) -> Vec<String> {
    let text = fs::read_to_string(path).expect("dora wrote it");
    let message = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        line["msg"].as_str().expect("text").to_owned()
    };
    text.lines().map(message).collect()
}

/// Waits until the stubborn node ignores SIGTERM.
pub(crate) fn start_stubborn(agent: &mut Agent, order: RunOrder) -> u32 {
    let outputs = agent.start(order);
    let path = outputs[0].path.clone().expect("captured");
    eventually("the node is stubborn", || {
        fs::read_to_string(&path).is_ok_and(|text| text.contains("stubborn"))
    });
    agent.wait_for(started("stubborn"))
}
