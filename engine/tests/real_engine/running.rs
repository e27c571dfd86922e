//! Runs that go their way: what is checked before, what nodes get and print, and how their failures are told.

use crate::{
    flows::{PIPELINE, finished, lines},
    support::{Engine, TOKEN, started},
};
use dora_remote_protocol::{
    agent_to_engine::EngineOrder,
    dataflow::FailureCause,
    engine_to_agent::{EngineEvent, EngineHello, EngineReply},
    ids::NodeId,
    refusal::RefusalCode,
};
use std::fs;

#[test]
fn a_dataflow_runs_to_its_end_and_its_output_is_complete() {
    let Some(engine) = Engine::start() else { return };
    let mut agent = engine.agent();
    let order = engine.order(PIPELINE, &["source", "relay", "sink"]);
    let outputs = agent.start(order.clone());
    for node in ["source", "relay", "sink"] {
        assert!(agent.wait_for(started(node)) > 1);
    }
    assert_eq!(agent.wait_for(finished), []);
    // What a node wrote down itself is what the log must have, line by line and in order, on each stream.
    for (node, marks) in [("source", &["sent "][..]), ("sink", &["got ", "on stderr "])] {
        let printed = fs::read_to_string(format!("{}/{node}.printed", order.run_dir)).expect("its own record");
        let output = outputs.iter().find(|output| output.node.as_str() == node).expect("listed");
        let logged = lines(output.path.as_deref().expect("captured"));
        for mark in marks {
            let printed: Vec<_> = printed.lines().filter(|line| line.starts_with(mark)).collect();
            let logged: Vec<_> = logged.iter().filter(|line| line.starts_with(mark)).collect();
            assert!(printed.len() >= 20, "{node} had work to do");
            assert_eq!(logged, printed, "{node}: {mark}");
        }
    }

    let seqs: Vec<_> = agent.events.iter().map(|(seq, _, _)| *seq).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "no holes");
    assert!(
        matches!(agent.events.last(), Some((_, Some(dataflow), EngineEvent::Finished { .. })) if *dataflow == order.dataflow),
        "the end of a run is its last event"
    );
    assert!(
        !agent
            .events
            .iter()
            .any(|(_, _, event)| matches!(event, EngineEvent::Message { text, .. } if text.contains("sent 1"))),
        "output of nodes is not told as messages"
    );
    let forget = EngineOrder::Forget {
        dataflow: order.dataflow,
    };
    assert_eq!(agent.order(forget), Ok(EngineReply::Done));
    let EngineHello::Welcome { runs, .. } = &engine.agent().welcome else {
        panic!("welcome");
    };
    assert!(runs.is_empty());
}

#[test]
fn a_missing_file_is_refused_before_anything_starts() {
    let Some(engine) = Engine::start() else { return };
    let mut agent = engine.agent();
    let yaml = "
nodes:
  - {id: source, path: source.py, inputs: {tick: dora/timer/millis/10}, outputs: [number], env: {COUNT: 50}}
  - {id: gone, path: gone.py, inputs: {number: source/number}}
";
    let order = engine.order(yaml, &["source", "gone"]);
    let dataflow = order.dataflow;
    let path = format!("{}/gone.py", order.run_dir);
    let refusal = agent.order(EngineOrder::Check(order)).expect_err("a file is missing");
    assert_eq!(refusal.code, RefusalCode::NotPrepared);
    assert_eq!(
        refusal.message,
        format!("machine `here`: node `gone`: file {path} does not exist")
    );
    let refusal = agent.order(EngineOrder::Spawn { dataflow }).expect_err("never checked");
    assert_eq!(refusal.code, RefusalCode::NotFound);
    assert_eq!(agent.events, []);
    assert_eq!(engine.marked(), Vec::<u32>::new());
}

#[test]
fn a_file_that_goes_after_the_check_fails_the_spawn_and_starts_nothing() {
    let Some(engine) = Engine::start() else { return };
    let mut agent = engine.agent();
    let order = engine.order(PIPELINE, &["source", "relay", "sink"]);
    let dataflow = order.dataflow;
    fs::copy(format!("{}/relay.py", order.run_dir), format!("{}/kept", order.run_dir)).expect("copies");
    agent.order(EngineOrder::Check(order.clone())).expect("all is there");
    fs::remove_file(format!("{}/relay.py", order.run_dir)).expect("removes");
    let refusal = agent.order(EngineOrder::Spawn { dataflow }).expect_err("a file is missing");
    assert_eq!(refusal.code, RefusalCode::SpawnFailed, "{refusal:?}");
    let failures = agent.wait_for(finished);
    assert_eq!(failures[0].node.as_str(), "relay", "the cause comes first");
    assert!(matches!(&failures[0].cause, FailureCause::FailedToSpawn { message } if message.contains("relay.py")));
    assert!(matches!(&failures[1].cause, FailureCause::Cascading { caused_by } if caused_by.as_str() == "relay"));
    assert_eq!(engine.marked(), Vec::<u32>::new());
    let again = agent.order(EngineOrder::Spawn { dataflow }).expect_err("still");
    assert_eq!(again.code, RefusalCode::SpawnFailed);

    let mut order = order;
    order.dataflow.0 = uuid::Uuid::now_v7();
    let moved = engine.dir.path().join("moved");
    fs::rename(format!("{}/kept", order.run_dir), format!("{}/relay.py", order.run_dir)).expect("moves");
    agent.order(EngineOrder::Check(order.clone())).expect("all is there");
    fs::rename(&order.run_dir, &moved).expect("moves");
    let spawn = EngineOrder::Spawn {
        dataflow: order.dataflow,
    };
    let refusal = agent.order(spawn).expect_err("the directory is gone");
    assert_eq!(refusal.code, RefusalCode::NotPrepared, "{refusal:?}");
    fs::rename(&moved, &order.run_dir).expect("moves back");
    let order = engine.order(PIPELINE, &["source", "relay", "sink"]);
    agent.events.clear();
    agent.start(order);
    assert_eq!(agent.wait_for(finished), [], "the engine is as well as before");
}

#[test]
fn a_failing_node_is_named_with_its_last_words() {
    let Some(engine) = Engine::start() else { return };
    let mut agent = engine.agent();
    agent.start(engine.order("nodes: [{id: failing, path: failing.py}]", &["failing"]));
    let failures = agent.wait_for(finished);
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].exit, "exit code 1");
    assert!(
        matches!(&failures[0].cause, FailureCause::Own { stderr } if stderr.contains("the lens is dirty")),
        "{failures:?}"
    );
    let stopped = |event: &EngineEvent| match event {
        EngineEvent::NodeStopped { clean, .. } => Some(*clean),
        _ => None,
    };
    assert!(!agent.wait_for(stopped), "it did not end well");
}

#[test]
fn env_values_arrive_as_they_are_meant() {
    let Some(engine) = Engine::start() else { return };
    let mut agent = engine.agent();
    let meant = [
        ("TWO", "$$"),
        ("UNSET", "$UNSET"),
        ("A_HOME", "$HOME/x"),
        ("FALLBACK", "${X:-y}"),
        ("SECRET", "$DORA_AUTH_TOKEN"),
        ("PLAIN", "plain"),
    ];
    let env: Vec<_> = meant
        .iter()
        .map(|(key, value)| format!("{key}: '{}'", value.replace('$', "$$")))
        .collect();
    let yaml = format!(
        "env: {{GLOBAL: '$$${{}}'}}\nnodes: [{{id: environment, path: environment.py, env: {{{}}}}}]",
        env.join(", ")
    );
    let yaml = yaml.replace("$$${}", "$${GLOBAL}");
    let outputs = agent.start(engine.order(&yaml, &["environment"]));
    assert_eq!(agent.wait_for(finished), []);
    let path = outputs[0].path.as_deref().expect("captured");
    let line = lines(path)
        .into_iter()
        .find(|line| line.contains("environment"))
        .expect("printed");
    let environment = serde_json::from_str::<serde_json::Value>(&line).expect("JSON")["environment"].clone();
    for (key, value) in meant {
        assert_eq!(environment[key], value, "{key}");
    }
    assert_eq!(environment["GLOBAL"], "${GLOBAL}");
    assert_eq!(environment[dora_remote_engine::ENGINE_ID_ENV], engine.id.to_string());
    assert!(environment.get("DORA_AUTH_TOKEN").is_none(), "dora takes it away");
    assert!(!line.contains(TOKEN), "the secret is nowhere");
}

#[test]
fn a_part_of_several_machines_waits_at_the_barrier() {
    let Some(engine) = Engine::start() else { return };
    let mut agent = engine.agent();
    let yaml = "
nodes:
  - {id: source, path: source.py, inputs: {tick: dora/timer/millis/10}, outputs: [number], env: {COUNT: 5}}
  - {id: sink, path: sink.py, inputs: {number: source/number}, outputs: [enough], deploy: {machine: there}}
";
    let mut order = engine.order(yaml, &["source", "sink"]);
    order.nodes[1].machine = "there".parse().expect("a name");
    let dataflow = order.dataflow;
    let outputs = agent.start(order);
    assert_eq!(outputs.len(), 1, "the sink's file is not looked for here");
    let barrier = |event: &EngineEvent| match event {
        EngineEvent::BarrierReached { exited_before_subscribe } => Some(exited_before_subscribe.clone()),
        _ => None,
    };
    assert_eq!(agent.wait_for(barrier), Vec::<NodeId>::new());
    assert_eq!(agent.events.iter().find_map(|(_, _, event)| finished(event)), None);
    let release = EngineOrder::Release {
        dataflow,
        exited_before_subscribe: vec![],
    };
    assert_eq!(agent.order(release.clone()), Ok(EngineReply::Done));
    agent.order(release).ok();
    assert_eq!(agent.wait_for(finished), []);
    let sent = lines(outputs[0].path.as_deref().expect("captured"));
    assert_eq!(sent.iter().filter(|line| line.starts_with("sent ")).count(), 5);
}
