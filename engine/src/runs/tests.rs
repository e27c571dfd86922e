//! Tests of the life of a run.

use super::*;
use dora_remote_protocol::dataflow::PlacedNode;
use uuid::Uuid;

const RUN: DataflowId = DataflowId(Uuid::from_u128(1));

fn node(id: &str) -> NodeId {
    id.parse().expect("an id")
}

fn runs(machines: &[(&str, &str, bool)]) -> Runs {
    let order = RunOrder {
        dataflow: RUN,
        name: "flow".parse().expect("a name"),
        descriptor: String::new(),
        nodes: machines
            .iter()
            .map(|(id, machine, dynamic)| PlacedNode {
                id: node(id),
                machine: machine.parse().expect("a name"),
                dynamic: *dynamic,
            })
            .collect(),
        machine: "here".parse().expect("a name"),
        run_dir: "/run".to_owned(),
        uv: false,
    };
    let mut runs = Runs::default();
    runs.insert(Run::new(order, Arc::new(Checked::empty())));
    runs.get_mut(RUN).expect("inserted").phase = RunPhase::Spawning;
    runs
}

fn spawned(runs: &mut Runs) -> Vec<EngineEvent> {
    let result = Ok(());
    runs.hear(Heard::SpawnSettled { dataflow: RUN, result }).1
}

fn process(id: &str, pid: u32, sure: bool) -> Heard {
    Heard::Process {
        dataflow: RUN,
        node: node(id),
        pid,
        sure,
    }
}

fn phase(runs: &Runs) -> RunPhase {
    runs.get(RUN).expect("there").phase
}

#[test]
fn on_one_machine_a_spawned_run_runs() {
    let mut runs = runs(&[("a", "here", false), ("b", "HERE", false)]);
    assert_eq!(spawned(&mut runs), []);
    assert_eq!(phase(&runs), RunPhase::Running);
}

#[test]
fn on_several_machines_it_waits_and_the_barrier_is_told_once() {
    let mut runs = runs(&[("a", "here", false), ("b", "there", false)]);
    spawned(&mut runs);
    assert_eq!(phase(&runs), RunPhase::AtBarrier);
    let ready = || Heard::BarrierReached {
        dataflow: RUN,
        exited: vec![],
    };
    assert_eq!(runs.hear(ready()).1.len(), 1);
    assert_eq!(runs.hear(ready()).1, []);
}

#[test]
fn a_machine_with_dynamic_nodes_alone_holds_nobody_up() {
    let mut runs = runs(&[("a", "here", true), ("b", "there", false)]);
    assert!(matches!(spawned(&mut runs).as_slice(), [EngineEvent::BarrierReached { .. }]));
}

#[test]
fn every_process_is_told_once_and_stale_sights_are_not_believed() {
    let mut runs = runs(&[("a", "here", false)]);
    assert_eq!(runs.hear(process("a", 7, true)).1.len(), 1);
    assert_eq!(runs.hear(process("a", 7, false)).1, []);
    assert_eq!(runs.hear(process("a", 8, true)).1.len(), 1, "a restart by dora");
    assert_eq!(runs.hear(process("a", 7, false)).1, [], "a sight of the old process");
    let stopped = Heard::NodeStopped {
        dataflow: RUN,
        node: node("a"),
        clean: true,
    };
    assert_eq!(runs.hear(stopped).1.len(), 1);
    assert_eq!(runs.hear(process("a", 8, false)).1, [], "it has ended");
    assert_eq!(runs.get(RUN).expect("there").processes(), []);
}

#[test]
fn the_end_is_told_once_even_when_it_comes_before_the_spawn_is_over() {
    let mut runs = runs(&[("a", "here", false)]);
    let finished = || Heard::Finished {
        dataflow: RUN,
        failures: vec![],
    };
    assert_eq!(runs.hear(finished()).1.len(), 1);
    assert_eq!(runs.hear(finished()).1, []);
    spawned(&mut runs);
    assert_eq!(phase(&runs), RunPhase::Ended);
    assert_eq!(runs.live(), []);
}

#[test]
fn a_node_that_was_killed_from_here_was_killed_for_its_grace() {
    let mut runs = runs(&[("a", "here", false)]);
    runs.get_mut(RUN).expect("there").was_killed(node("a"));
    let failure = NodeFailure {
        node: node("a"),
        machine: "here".parse().expect("a name"),
        cause: FailureCause::Own { stderr: String::new() },
        exit: "signal 9".to_owned(),
    };
    let events = runs
        .hear(Heard::Finished {
            dataflow: RUN,
            failures: vec![failure],
        })
        .1;
    assert!(
        matches!(events.as_slice(), [EngineEvent::Finished { failures }] if failures[0].cause == FailureCause::GraceDuration)
    );
}

#[test]
fn a_refused_spawn_ends_the_run_with_every_node_failed() {
    let mut runs = runs(&[("a", "here", false), ("b", "here", false)]);
    let run = runs.get_mut(RUN).expect("there");
    let events = run.end_without_dora(Some("no directory"));
    assert!(matches!(events.as_slice(), [EngineEvent::Finished { failures }] if failures.len() == 2));
    assert_eq!(run.end_without_dora(None), []);
}

#[test]
fn a_crash_is_no_clean_end_whatever_dora_calls_it() {
    let stopped = || Heard::NodeStopped {
        dataflow: RUN,
        node: node("a"),
        clean: true,
    };
    let failed = || Heard::ProcessFailed {
        dataflow: RUN,
        node: node("a"),
    };
    let clean = |events: &[EngineEvent]| matches!(events, [EngineEvent::NodeStopped { clean: true, .. }]);
    let mut runs = runs(&[("a", "here", false)]);
    runs.hear(process("a", 7, true));
    runs.hear(failed());
    runs.hear(process("a", 8, true));
    assert!(clean(&runs.hear(stopped()).1), "the restarted process ended well");
    runs.hear(failed());
    assert!(!clean(&runs.hear(stopped()).1));
}
