//! Runs and engines that are ended, and that no process outlives it.

use crate::{
    flows::{STUBBORN, finished, is_gone, start_stubborn},
    support::Engine,
};
use dora_remote_protocol::{
    agent_to_engine::EngineOrder,
    dataflow::FailureCause,
    engine_to_agent::{EngineReply, Starts},
    refusal::RefusalCode,
};
use std::process::Command;

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
