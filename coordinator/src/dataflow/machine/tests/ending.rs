//! Dataflows that ran: stops that are asked for, parts that fail, and machines that are lost meanwhile.

use super::flow::{Flow, failure};
use crate::dataflow::{
    machine::{Input, OrderKind, Outcome, StopVerdict},
    samples,
};
use dora_remote_protocol::dataflow::{DataflowState, FailureCause, NodeState};
use std::time::Duration;

#[test]
fn a_running_dataflow_outlives_the_loss_of_a_machine_and_a_stop_is_kept_for_it() {
    let mut flow = Flow::new(&["a", "b"]);
    flow.run();
    assert!(flow.lost("b").is_empty());
    assert_eq!(flow.state(), DataflowState::Running);
    assert_eq!(flow.life.record().summary().unreachable.len(), 1);
    assert_eq!(flow.stop(false), ["a: Stop"]);
    assert_eq!(flow.life.stop_verdict(), StopVerdict::UnderWay);
    flow.answer("a", OrderKind::Stop, Outcome::Done);
    flow.finish("a", vec![]);
    assert!(matches!(flow.life.stop_verdict(), StopVerdict::OnlyUnreachable(missing) if missing.len() == 1));
    assert_eq!(flow.back("b"), ["b: Stop"]);
    flow.answer("b", OrderKind::Stop, Outcome::Done);
    assert_eq!(flow.finish("b", vec![]), ["ended"]);
    let result = flow.life.record().result.clone().unwrap();
    assert!(result.success && result.stopped);
}

#[test]
fn a_forced_stop_overtakes_a_graceful_one() {
    let mut flow = Flow::new(&["a"]);
    flow.run();
    assert_eq!(flow.stop(false), ["a: Stop"]);
    assert!(flow.stop(false).is_empty(), "the same wish is not ordered twice");
    assert_eq!(flow.stop(true), ["a: Kill"]);
    flow.answer("a", OrderKind::Stop, Outcome::Done);
    assert!(flow.answer("a", OrderKind::Kill, Outcome::Done).is_empty());
    assert_eq!(flow.finish("a", vec![failure("a")]), ["ended"]);
    assert_eq!(flow.state(), DataflowState::Failed);
}

#[test]
fn a_stop_that_the_machine_does_not_take_is_tried_again() {
    let mut flow = Flow::new(&["a"]);
    flow.run();
    flow.stop(false);
    assert!(flow.answer("a", OrderKind::Stop, Outcome::TimedOut).is_empty());
    assert_eq!(flow.pass(Duration::from_secs(5)), ["a: Stop"]);
}

#[test]
fn a_part_that_fails_stops_the_others_and_says_so() {
    let mut flow = Flow::new(&["a", "b"]);
    flow.run();
    assert_eq!(flow.finish("a", vec![failure("a")]), ["b: Stop"]);
    flow.answer("b", OrderKind::Stop, Outcome::Done);
    assert_eq!(flow.finish("b", vec![]), ["ended"]);
    let result = flow.life.record().result.clone().unwrap();
    assert!(
        !result.success && !result.stopped && result.note.contains("`a` failed"),
        "{result:?}"
    );
}

#[test]
fn a_machine_that_restarted_without_its_part_fails_it() {
    let mut flow = Flow::new(&["a"]);
    flow.run();
    let gone = Input::PartGone {
        machine: samples::machine("a"),
        reason: "the machine restarted without it".to_owned(),
    };
    assert_eq!(flow.step(gone), ["ended"]);
    let result = flow.life.record().result.clone().unwrap();
    assert!(matches!(result.failures[0].cause, FailureCause::EngineLost { .. }));
    assert_eq!(flow.life.record().nodes[0].state, NodeState::Failed);
}

#[test]
fn causes_stand_before_their_consequences() {
    let mut flow = Flow::new(&["a"]);
    flow.run();
    let mut consequence = failure("a");
    consequence.node = "other".parse().unwrap();
    consequence.cause = FailureCause::Cascading {
        caused_by: "n-a".parse().unwrap(),
    };
    flow.finish("a", vec![consequence, failure("a")]);
    let failures = flow.life.record().result.clone().unwrap().failures;
    assert_eq!(failures[0].node.as_str(), "n-a");
}
