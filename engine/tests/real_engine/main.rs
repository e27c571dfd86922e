//! A real engine with real Python nodes: what happens between an agent's orders and the processes on the machine.

#![expect(clippy::expect_used, reason = "tests")]

mod support;

use dora_remote_protocol::{
    agent_to_engine::{EngineOrder, RunOrder},
    dataflow::{FailureCause, NodeFailure, NodeState},
    engine_to_agent::{EngineEvent, EngineHello, EngineReply, Starts},
    ids::NodeId,
    machine::RunPhase,
    refusal::RefusalCode,
    version::{Version, VersionRange},
};
use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
};
use support::{Agent, Engine, TOKEN, eventually, started};

/// Ends when the sink has enough: dora may lose messages while nodes find each other, so that no test may count on each of them.
const PIPELINE: &str = "
nodes:
  - id: source
    path: source.py
    inputs: {tick: dora/timer/millis/10, enough: sink/enough}
    outputs: [number]
    env: {COUNT: 1000000}
  - {id: relay, path: relay.py, inputs: {number: {source: source/number, queue_size: 1000}}, outputs: [number]}
  - {id: sink, path: sink.py, inputs: {number: {source: relay/number, queue_size: 1000}}, outputs: [enough]}
";
const STUBBORN: &str = "nodes: [{id: stubborn, path: stubborn.py}]";
const TICKER: &str = "
nodes:
  - {id: source, path: source.py, inputs: {tick: dora/timer/millis/20}, outputs: [number], env: {COUNT: 1000000}}
";

fn finished(event: &EngineEvent) -> Option<Vec<NodeFailure>> {
    match event {
        EngineEvent::Finished { failures } => Some(failures.clone()),
        _ => None,
    }
}

fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// The messages of one JSONL file of dora.
fn lines(path: &str) -> Vec<String> {
    let text = fs::read_to_string(path).expect("dora wrote it");
    let message = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        line["msg"].as_str().expect("text").to_owned()
    };
    text.lines().map(message).collect()
}

/// Waits until the stubborn node ignores SIGTERM.
fn start_stubborn(agent: &mut Agent, order: RunOrder) -> u32 {
    let outputs = agent.start(order);
    let path = outputs[0].path.clone().expect("captured");
    eventually("the node is stubborn", || {
        fs::read_to_string(&path).is_ok_and(|text| text.contains("stubborn"))
    });
    agent.wait_for(started("stubborn"))
}

/// Not a test by itself: the other tests start this binary as an engine.
#[test]
fn engine_child() {
    support::act_as_engine();
}

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
fn a_stubborn_node_is_gone_after_its_grace() {
    let Some(engine) = Engine::start() else { return };
    let mut agent = engine.agent();
    let order = engine.order(STUBBORN, &["stubborn"]);
    let dataflow = order.dataflow;
    let pid = start_stubborn(&mut agent, order);
    let refusal = agent.order(EngineOrder::Forget { dataflow }).expect_err("it runs");
    assert_eq!(refusal.code, RefusalCode::WrongState);
    agent.stop(dataflow, 500, false);
    let failures = agent.wait_for(finished);
    assert_eq!(failures[0].cause, FailureCause::GraceDuration);
    assert_eq!(failures[0].exit, "signal 9");
    assert!(is_gone(pid));
    agent.stop(dataflow, 500, false);
}

#[test]
fn force_overtakes_a_stop_that_has_a_long_grace() {
    let Some(engine) = Engine::start() else { return };
    let mut agent = engine.agent();
    let order = engine.order(STUBBORN, &["stubborn"]);
    let dataflow = order.dataflow;
    let pid = start_stubborn(&mut agent, order);
    agent.stop(dataflow, 3_600_000, false);
    assert!(!is_gone(pid), "it has an hour");
    agent.stop(dataflow, 0, true);
    assert_eq!(agent.wait_for(finished)[0].cause, FailureCause::GraceDuration);
    assert!(is_gone(pid));
}

#[test]
fn a_run_that_was_never_spawned_ends_and_is_forgotten() {
    let Some(engine) = Engine::start() else { return };
    let mut agent = engine.agent();
    let order = engine.order(STUBBORN, &["stubborn"]);
    let dataflow = order.dataflow;
    agent.order(EngineOrder::Check(order.clone())).expect("right");
    agent.order(EngineOrder::Check(order)).expect("asking again is no fault");
    let inspect = || EngineOrder::Inspect { dataflow };
    let Ok(EngineReply::Facts(facts)) = agent.order(inspect()) else {
        panic!("it says what it would start");
    };
    assert!(matches!(&facts.nodes[0].starts, Starts::Python { script } if script.ends_with("/stubborn.py")));
    agent.stop(dataflow, 0, false);
    assert_eq!(agent.wait_for(finished), []);
    let refusal = agent.order(EngineOrder::Spawn { dataflow }).expect_err("it has ended");
    assert_eq!(refusal.code, RefusalCode::WrongState);
    let refusal = agent.order(inspect()).expect_err("it has ended");
    assert_eq!(refusal.code, RefusalCode::WrongState);
    assert_eq!(agent.order(EngineOrder::Forget { dataflow }), Ok(EngineReply::Done));
    assert_eq!(agent.order(inspect()).expect_err("forgotten").code, RefusalCode::NotFound);
    assert_eq!(agent.order(EngineOrder::Forget { dataflow }), Ok(EngineReply::Done));
}

#[test]
fn an_agent_that_returns_gets_what_it_missed_exactly_once() {
    let Some(engine) = Engine::start() else { return };
    let mut first = engine.agent();
    let order = engine.order(TICKER, &["source"]);
    let dataflow = order.dataflow;
    first.start(order.clone());
    let pid = first.wait_for(started("source"));
    let known = first.events.last().expect("events").0;
    first.acknowledge(known);
    drop(first);

    // What happens now happens without an agent of the first one's life.
    let mut second = engine.agent_that_knows(Some((engine.id, known)));
    let EngineHello::Welcome {
        engine: id,
        pid: engine_pid,
        runs,
        ..
    } = &second.welcome
    else {
        panic!("welcome");
    };
    assert_eq!((*id, *engine_pid), (engine.id, engine.pid()));
    assert_eq!(runs[0].order, order);
    assert_eq!(runs[0].phase, RunPhase::Running);
    assert_eq!(
        (runs[0].nodes[0].state, runs[0].nodes[0].pid),
        (NodeState::Running, Some(pid))
    );
    second.stop(dataflow, 10_000, false);
    second.wait_for(finished);
    let last = second.events.last().expect("events").0;
    let seqs: Vec<_> = second.events.iter().map(|(seq, _, _)| *seq).collect();
    assert_eq!(
        seqs,
        (known + 1..=last).collect::<Vec<_>>(),
        "neither a hole nor anything twice"
    );

    // Nothing was acknowledged by the second; a third, who knows as much as the first, gets the same again.
    let mut third = engine.agent_that_knows(Some((engine.id, known)));
    third.wait_for(finished);
    assert_eq!(third.events, second.events);
    second.wait_for_end();
    let mut stranger = engine.agent_that_knows(Some((dora_remote_protocol::ids::EngineId(uuid::Uuid::nil()), 77)));
    stranger.wait_for(finished);
    assert_eq!(stranger.events, second.events, "another engine's numbers mean nothing here");
    third.wait_for_end();
}

#[test]
fn who_does_not_speak_the_language_is_turned_away_and_does_no_harm() {
    let Some(engine) = Engine::start() else { return };
    let mut agent = engine.agent();
    let newer = VersionRange {
        oldest: Version(700),
        newest: Version(701),
    };
    let mut stranger = engine.agent_that_speaks(newer);
    assert!(matches!(&stranger.welcome, EngineHello::Refusal(refusal) if refusal.code == RefusalCode::VersionMismatch));
    stranger.wait_for_end();
    let mut garbage = UnixStream::connect(engine.socket()).expect("the engine listens");
    garbage.write_all(&[0xff; 64]).expect("writes");
    let mut answer = Vec::new();
    // Closed with bytes unread, which the kernel may call a reset.
    let _ = garbage.read_to_end(&mut answer);
    assert_eq!(answer, b"");
    let order = engine.order(STUBBORN, &["stubborn"]);
    agent.order(EngineOrder::Check(order)).expect("the agent is heard as before");
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

#[test]
fn an_ordered_end_stops_what_runs_and_is_a_good_one() {
    let Some(mut engine) = Engine::start() else { return };
    let mut agent = engine.agent();
    let pid = start_stubborn(&mut agent, engine.order(STUBBORN, &["stubborn"]));
    let refusal = agent
        .order(EngineOrder::Shutdown { force: false })
        .expect_err("something runs");
    assert_eq!(refusal.code, RefusalCode::WrongState);
    assert_eq!(agent.order(EngineOrder::Shutdown { force: true }), Ok(EngineReply::Done));
    assert!(is_gone(pid), "before it is said to be done");
    assert!(agent.events.iter().any(|(_, _, event)| finished(event).is_some()));
    agent.wait_for_end();
    assert!(engine.wait().success());
    assert!(!engine.dir.path().join("state/engine.sock").exists());
    assert!(!engine.dir.path().join("state/engine.json").exists());
}

#[test]
fn sigterm_leaves_no_orphans() {
    let Some(mut engine) = Engine::start() else { return };
    let mut agent = engine.agent();
    let pid = start_stubborn(&mut agent, engine.order(STUBBORN, &["stubborn"]));
    let killed = Command::new("kill").args(["-TERM", &engine.pid().to_string()]).status();
    assert!(killed.expect("`kill` is everywhere").success());
    assert!(engine.wait().success());
    assert!(is_gone(pid));
    assert_eq!(engine.marked(), Vec::<u32>::new());
}

#[test]
fn sigint_leaves_no_orphans_and_is_no_good_end() {
    let Some(mut engine) = Engine::start() else { return };
    let mut agent = engine.agent();
    let pid = start_stubborn(&mut agent, engine.order(STUBBORN, &["stubborn"]));
    let killed = Command::new("kill").args(["-INT", &engine.pid().to_string()]).status();
    assert!(killed.expect("`kill` is everywhere").success());
    assert!(!engine.wait().success());
    assert!(is_gone(pid));
    assert_eq!(engine.marked(), Vec::<u32>::new());
}
