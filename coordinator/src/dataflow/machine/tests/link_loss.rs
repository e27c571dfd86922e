//! Machines that stop their part by themselves, and when what has happened meanwhile is said to have happened.

use super::flow::Flow;
use crate::dataflow::{
    machine::{OrderKind, Outcome},
    record::Record,
    samples,
};
use dora_remote_protocol::dataflow::DataflowState;

fn running(machines: &[&str]) -> Flow {
    let mut flow = Flow::new(machines);
    flow.run();
    flow
}

#[test]
fn a_machine_that_stopped_its_part_by_itself_fails_the_dataflow_with_the_reason_and_its_own_time() {
    let mut flow = running(&["a"]);
    flow.lost("a");
    flow.back("a");
    assert!(flow.link_lost("a").is_empty(), "the machine does it, and is not ordered to");
    assert_eq!(flow.state(), DataflowState::Stopping);
    assert_eq!(flow.finish("a", vec![]), ["ended"]);
    let record = flow.life.record();
    let result = record.result.clone().unwrap();
    assert!(!result.success && !result.stopped && result.failures.is_empty());
    assert!(
        result.note.contains("link-loss policy") && result.note.contains("30 s"),
        "{result:?}"
    );
    assert_eq!(record.state, DataflowState::Failed);
    assert_eq!(record.ended_unix_ms, Some(900), "when it ended, not when that was heard");
}

#[test]
fn what_is_left_on_other_machines_is_stopped() {
    let mut flow = running(&["a", "b"]);
    flow.lost("a");
    flow.back("a");
    let orders = flow.link_lost("a");
    assert!(orders.contains(&"b: Stop".to_owned()), "{orders:?}");
    flow.finish("a", vec![]);
    assert_eq!(flow.finish("b", vec![]), ["ended"]);
    assert_eq!(flow.state(), DataflowState::Failed);
}

#[test]
fn who_asked_for_the_end_during_the_cut_got_it() {
    let mut flow = running(&["a"]);
    flow.lost("a");
    flow.stop(false);
    flow.back("a");
    flow.link_lost("a");
    flow.finish("a", vec![]);
    let result = flow.life.record().result.clone().unwrap();
    assert!(
        result.success && result.stopped && result.note.contains("link-loss policy"),
        "{result:?}"
    );
}

#[test]
fn a_start_is_undone_when_a_machine_stops_its_part_by_itself() {
    let mut flow = Flow::new(&["a", "b"]);
    flow.begin();
    for machine in ["a", "b"] {
        flow.answer(machine, OrderKind::Prepare, Outcome::Done);
    }
    flow.answer("a", OrderKind::Spawn, Outcome::Done);
    assert_eq!(flow.link_lost("a"), ["a: Kill", "b: Kill"]);
}

#[test]
fn a_wrong_clock_does_not_end_a_dataflow_before_it_began_or_in_the_future() {
    for (told, ended) in [(1_u64, 300), (300, 300), (800, 800), (5_000, 1_000)] {
        let mut record = Record {
            created_unix_ms: 300,
            ..samples::record_in(1, "flow", DataflowState::Running)
        };
        for part in record.parts.values_mut() {
            part.ended_unix_ms = Some(told);
        }
        record.conclude(1_000);
        assert_eq!(record.ended_unix_ms, Some(ended));
    }
}
