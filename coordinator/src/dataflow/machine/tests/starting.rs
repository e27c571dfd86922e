//! Starts that succeed: which order goes out when, on one machine and on several, also over a cut.

use super::flow::Flow;
use crate::dataflow::machine::{Input, OrderKind, Outcome};
use dora_remote_protocol::dataflow::DataflowState;

#[test]
fn one_machine_runs_without_a_barrier() {
    let mut flow = Flow::new(&["a"]);
    assert_eq!(flow.begin(), ["a: Prepare"]);
    assert_eq!(flow.answer("a", OrderKind::Prepare, Outcome::Done), ["a: Spawn"]);
    assert_eq!(flow.answer("a", OrderKind::Spawn, Outcome::Done), ["started"]);
    assert_eq!(flow.state(), DataflowState::Running);
    assert_eq!(flow.finish("a", vec![]), ["ended"]);
    assert_eq!(flow.state(), DataflowState::Finished);
    let result = flow.life.record().result.clone().unwrap();
    assert!(result.success && !result.stopped && result.failures.is_empty());
}

#[test]
fn nothing_is_ordered_before_the_record_is_on_disk() {
    let mut flow = Flow::new(&["a"]);
    assert!(flow.step(Input::Tick).is_empty());
    assert_eq!(flow.begin(), ["a: Prepare"]);
}

#[test]
fn several_machines_spawn_together_and_meet_at_the_barrier() {
    let mut flow = Flow::new(&["a", "b"]);
    assert_eq!(flow.begin(), ["a: Prepare", "b: Prepare"]);
    assert!(flow.answer("b", OrderKind::Prepare, Outcome::Done).is_empty());
    assert_eq!(flow.answer("a", OrderKind::Prepare, Outcome::Done), ["a: Spawn", "b: Spawn"]);
    // The barrier may be reached before the spawn is answered.
    assert!(flow.barrier("a", &["n-a"]).is_empty());
    assert!(flow.answer("a", OrderKind::Spawn, Outcome::Done).is_empty());
    assert!(flow.answer("b", OrderKind::Spawn, Outcome::Done).is_empty());
    assert_eq!(flow.barrier("b", &[]), ["started", "a: Release n-a", "b: Release n-a"]);
    assert_eq!(flow.state(), DataflowState::Running);
    flow.answer("a", OrderKind::Release, Outcome::Done);
    flow.answer("b", OrderKind::Release, Outcome::Done);
    assert!(flow.finish("a", vec![]).is_empty(), "a clean end waits for the others");
    assert_eq!(flow.finish("b", vec![]), ["ended"]);
    assert_eq!(flow.state(), DataflowState::Finished);
}

#[test]
fn a_cut_is_no_loss_and_what_was_asked_is_asked_again() {
    let mut flow = Flow::new(&["a"]);
    flow.begin();
    assert!(flow.answer("a", OrderKind::Prepare, Outcome::Lost).is_empty());
    assert!(flow.step(Input::Tick).is_empty(), "nothing is sent while the machine is away");
    assert_eq!(flow.back("a"), ["a: Prepare"]);
    flow.answer("a", OrderKind::Prepare, Outcome::Done);
    // The machine comes back before the loss of the order was noticed.
    assert_eq!(flow.back("a"), ["a: Spawn"]);
    assert_eq!(flow.answer("a", OrderKind::Spawn, Outcome::Done), ["started"]);
}
