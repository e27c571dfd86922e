//! Starts that fail or are not wanted any more: what is undone where, and what the starter is told.

use super::flow::{Flow, failure, not_found};
use crate::dataflow::{
    machine::{OrderKind, Outcome},
    record::StartOutcome,
};
use dora_remote_protocol::{
    dataflow::DataflowState,
    limits::{BARRIER_DEADLINE, ORDER_DEADLINE, PREPARE_DEADLINE, SPAWN_DEADLINE},
    refusal::{Changed, Refusal, RefusalCode},
};

#[test]
fn a_machine_that_cannot_prepare_undoes_the_start_everywhere() {
    let mut flow = Flow::new(&["a", "b"]);
    flow.begin();
    flow.answer("a", OrderKind::Prepare, Outcome::Done);
    let no = Refusal::new(RefusalCode::NotPrepared, "node `n-b`: /srv/x.py does not exist");
    assert_eq!(
        flow.answer("b", OrderKind::Prepare, Outcome::Refused(no)),
        ["a: Kill", "b: Kill"]
    );
    assert_eq!(flow.answer("a", OrderKind::Kill, Outcome::Done), ["a: Forget"]);
    assert_eq!(
        flow.answer("b", OrderKind::Kill, Outcome::Refused(not_found())),
        ["b: Forget"]
    );
    assert!(flow.answer("b", OrderKind::Forget, Outcome::Done).is_empty());
    let shown = flow.answer("a", OrderKind::Forget, Outcome::Done);
    assert_eq!(
        shown,
        [
            "refused NotPrepared Nothing: machine `b`: node `n-b`: /srv/x.py does not exist",
            "ended"
        ]
    );
    assert_eq!(flow.state(), DataflowState::Failed);
    assert!(matches!(flow.life.record().start, StartOutcome::Refused(_)));
}

#[test]
fn a_failed_spawn_waits_for_the_last_process_before_it_forgets() {
    let mut flow = Flow::new(&["a", "b"]);
    flow.begin();
    flow.answer("a", OrderKind::Prepare, Outcome::Done);
    flow.answer("b", OrderKind::Prepare, Outcome::Done);
    flow.answer("a", OrderKind::Spawn, Outcome::Done);
    flow.finish("b", vec![failure("b")]);
    let no = Refusal::new(RefusalCode::SpawnFailed, "node `n-b`: no such file");
    assert_eq!(
        flow.answer("b", OrderKind::Spawn, Outcome::Refused(no)),
        ["a: Kill", "b: Kill"]
    );
    flow.answer("b", OrderKind::Kill, Outcome::Done);
    flow.answer("b", OrderKind::Forget, Outcome::Done);
    assert_eq!(flow.answer("a", OrderKind::Kill, Outcome::Done), ["a: Forget"]);
    let lives = Refusal::new(RefusalCode::WrongState, "a node lives");
    assert!(flow.answer("a", OrderKind::Forget, Outcome::Refused(lives)).is_empty());
    assert_eq!(flow.finish("a", vec![]), ["a: Forget"]);
    let shown = flow.answer("a", OrderKind::Forget, Outcome::Done);
    assert!(shown[0].starts_with("refused SpawnFailed Nothing: machine `b`"), "{shown:?}");
    let result = flow.life.record().result.clone().unwrap();
    assert_eq!(result.failures.len(), 1);
}

#[test]
fn nodes_that_end_before_the_barrier_fail_the_start() {
    let mut flow = Flow::new(&["a", "b"]);
    flow.run_to_spawned();
    let shown = flow.finish("a", vec![failure("a")]);
    assert_eq!(shown, ["a: Kill", "b: Kill"]);
}

#[test]
fn every_wait_of_a_start_has_its_deadline() {
    let mut flow = Flow::new(&["a", "b"]);
    flow.begin();
    flow.answer("a", OrderKind::Prepare, Outcome::Done);
    flow.pass(PREPARE_DEADLINE);
    flow.pass(ORDER_DEADLINE);
    assert!(
        flow.refusal().message.contains("did not get ready in time: `b`"),
        "{:?}",
        flow.refusal()
    );

    let mut flow = Flow::new(&["a", "b"]);
    flow.begin();
    flow.answer("a", OrderKind::Prepare, Outcome::Done);
    flow.answer("b", OrderKind::Prepare, Outcome::Done);
    flow.answer("b", OrderKind::Spawn, Outcome::Done);
    flow.pass(SPAWN_DEADLINE);
    flow.pass(ORDER_DEADLINE);
    assert!(
        flow.refusal().message.contains("spawn their nodes in time: `a`"),
        "{:?}",
        flow.refusal()
    );

    let mut flow = Flow::new(&["a", "b"]);
    flow.run_to_spawned();
    flow.barrier("a", &[]);
    flow.pass(BARRIER_DEADLINE);
    flow.pass(ORDER_DEADLINE);
    let refusal = flow.refusal();
    assert!(refusal.message.contains("reach the barrier in time: `b`"), "{refusal:?}");
    assert_eq!(refusal.changed, Changed::Partly, "nobody has answered the undoing");
}

#[test]
fn a_machine_that_is_lost_during_the_start_fails_it_and_is_left_behind() {
    let mut flow = Flow::new(&["a", "b"]);
    flow.begin();
    assert_eq!(flow.lost("b"), ["a: Kill"]);
    flow.answer("a", OrderKind::Kill, Outcome::Done);
    flow.answer("a", OrderKind::Forget, Outcome::Done);
    let refusal = flow.refusal();
    assert_eq!(
        (refusal.code, refusal.changed),
        (RefusalCode::MachineUnreachable, Changed::Partly)
    );
    assert!(refusal.message.contains("could not be undone on `b`"), "{refusal:?}");
}

#[test]
fn what_a_machine_forbids_reaches_the_starter_as_such() {
    let mut flow = Flow::new(&["a"]);
    flow.begin();
    let no = Refusal::new(
        RefusalCode::ForbiddenByMachine,
        "`/usr/bin/bash` is a shell, which may not run here",
    )
    .hint("ask its owner");
    flow.answer("a", OrderKind::Prepare, Outcome::Refused(no));
    flow.answer("a", OrderKind::Kill, Outcome::Refused(not_found()));
    flow.answer("a", OrderKind::Forget, Outcome::Done);
    let told = flow.refusal();
    assert_eq!((told.code, told.changed), (RefusalCode::ForbiddenByMachine, Changed::Nothing));
    assert_eq!(
        told.message,
        "machine `a`: `/usr/bin/bash` is a shell, which may not run here"
    );
    assert_eq!(told.hint, "ask its owner");
}

#[test]
fn a_stop_during_the_start_undoes_it_and_is_no_failure() {
    let mut flow = Flow::new(&["a"]);
    flow.begin();
    assert_eq!(flow.stop(false), ["a: Kill"]);
    flow.answer("a", OrderKind::Kill, Outcome::Done);
    flow.answer("a", OrderKind::Forget, Outcome::Done);
    let result = flow.life.record().result.clone().unwrap();
    assert!(result.success && result.stopped, "{result:?}");
    assert_eq!(flow.refusal().code, RefusalCode::WrongState);
}

#[test]
fn a_late_answer_to_a_start_that_was_undone_is_cleaned_up() {
    let mut flow = Flow::new(&["a"]);
    flow.begin();
    flow.pass(PREPARE_DEADLINE);
    flow.pass(ORDER_DEADLINE);
    assert!(flow.state().has_ended());
    assert_eq!(flow.answer("a", OrderKind::Prepare, Outcome::Done), ["a: Forget"]);
    assert_eq!(flow.answer("a", OrderKind::Spawn, Outcome::Done), ["a: Kill"]);
}
