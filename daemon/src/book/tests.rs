//! Events in, account and changes out.

use super::{Book, ending::shorten};
use crate::{
    records::{Changes, Forget, RunPlan},
    seat::Seat,
};
use dora_remote_protocol::{
    agent_to_engine::RunOrder,
    dataflow::{FailureCause, Files, LinkLoss, NodeFailure, PlacedNode},
    engine_to_agent::EngineEvent,
    ids::{DataflowId, EngineId, NodeId},
    machine::{Lifecycle, RunPhase},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use uuid::Uuid;

const ENGINE: EngineId = EngineId(Uuid::nil());

fn node(text: &str) -> NodeId {
    text.parse().unwrap()
}

fn plan(id: DataflowId, machines: &[(&str, &str)]) -> RunPlan {
    RunPlan {
        order: RunOrder {
            dataflow: id,
            name: "flow".parse().unwrap(),
            descriptor: String::new(),
            nodes: machines
                .iter()
                .map(|(id, machine)| PlacedNode {
                    id: node(id),
                    machine: machine.parse().unwrap(),
                    dynamic: false,
                })
                .collect(),
            machine: "m".parse().unwrap(),
            run_dir: String::new(),
            uv: false,
        },
        files: Files::OnMachine(String::new()),
        outputs: Vec::new(),
        owns_dir: true,
        seat: Seat::default(),
        link_loss: LinkLoss::Keep,
    }
}

fn book_with(runs: u128) -> (Book, Vec<DataflowId>) {
    let mut book = Book::new("m".parse().unwrap(), BTreeMap::new(), 0, BTreeMap::new());
    let ids: Vec<_> = (1..=runs).map(|n| DataflowId(Uuid::from_u128(n))).collect();
    for id in &ids {
        book.add(plan(*id, &[("a", "m"), ("b", "M"), ("c", "other")]), &mut Changes::default());
    }
    book.follow_engine(Seat::default(), ENGINE, &mut Changes::default());
    (book, ids)
}

#[test]
fn only_local_nodes_are_kept_and_names_ignore_case() {
    let (book, ids) = book_with(1);
    let run = book.get(ids[0]).unwrap();
    assert_eq!(run.state.nodes.iter().map(|n| n.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(run.spans_machines());
}

#[test]
fn a_lost_engine_ends_its_runs_and_says_which_nodes_it_took() {
    let (mut book, ids) = book_with(2);
    let mut changes = Changes::default();
    let stopped = EngineEvent::NodeStopped {
        node: node("a"),
        clean: true,
    };
    book.apply(ENGINE, 1, 1, Some(ids[0]), stopped, &mut changes);
    book.apply(
        ENGINE,
        2,
        1,
        Some(ids[1]),
        EngineEvent::Finished { failures: vec![] },
        &mut changes,
    );
    let mut changes = Changes::default();
    for id in &ids {
        book.lose(*id, 9, "the engine was killed", &mut changes);
    }
    assert_eq!(changes.events.len(), 1, "a run that had ended stays as it is");
    let Lifecycle::Finished { failures, note } = &changes.events[0].what else {
        panic!("{changes:?}");
    };
    assert_eq!(note, "the engine was killed");
    assert_eq!(failures.iter().map(|f| f.node.as_str()).collect::<Vec<_>>(), ["b"]);
    assert!(!book.any_alive());
    let mut again = Changes::default();
    book.lose(ids[0], 10, "again", &mut again);
    assert!(again.is_empty());
}

#[test]
fn the_end_is_told_once_and_the_logs_after_it() {
    let (mut book, ids) = book_with(1);
    let mut changes = Changes::default();
    assert!(!book.shipped(ids[0], 1, &mut changes), "it has not ended");
    for seq in 1..=2 {
        book.apply(
            ENGINE,
            seq,
            1,
            Some(ids[0]),
            EngineEvent::Finished { failures: vec![] },
            &mut changes,
        );
    }
    assert!(book.shipped(ids[0], 2, &mut changes));
    assert!(!book.shipped(ids[0], 3, &mut changes));
    let told: Vec<_> = changes.events.iter().map(|event| (event.seq, event.what.clone())).collect();
    assert_eq!(told.len(), 2);
    assert_eq!(told[1], (2, Lifecycle::LogsShipped));
    assert_eq!(book.reports(&BTreeSet::new()), []);
    assert_eq!(book.reports(&ids.into_iter().collect()).len(), 1, "until its end is told");
}

#[test]
fn old_runs_go_but_never_with_lines_that_were_not_shipped() {
    let (mut book, ids) = book_with(5);
    let mut changes = Changes::default();
    for (seq, id) in (1..).zip(&ids) {
        book.apply(
            ENGINE,
            seq,
            seq,
            Some(*id),
            EngineEvent::Finished { failures: vec![] },
            &mut changes,
        );
    }
    for id in &ids[1..] {
        book.shipped(*id, 9, &mut changes);
    }
    assert_eq!(book.removable(2), ids[1..3]);
    book.update(ids[0], &mut changes, |state| state.forget = Forget::WhenShipped);
    assert_eq!(book.removable(9), []);
    book.update(ids[0], &mut changes, |state| state.forget = Forget::WhenEnded);
    assert_eq!(book.removable(9), ids[..1]);
    book.remove(ids[0], &mut changes);
    assert!(changes.states.iter().all(|(id, _)| *id != ids[0]) && changes.removed == ids[..1]);
}

#[test]
fn old_runs_go_in_the_order_of_their_ends_however_the_clock_jumps() {
    const YEAR: u64 = 365 * 86_400_000;
    let (mut book, ids) = book_with(5);
    let mut changes = Changes::default();
    // The ends come in another order than the beginnings; the clock is set ahead, back, and far back.
    let ends = [(3, 56 * YEAR), (0, 106 * YEAR), (4, 46 * YEAR), (1, 5), (2, 56 * YEAR + 1)];
    for (seq, (run, at)) in (1..).zip(ends) {
        let finished = EngineEvent::Finished { failures: vec![] };
        book.apply(ENGINE, seq, at, Some(ids[run]), finished, &mut changes);
        book.shipped(ids[run], at, &mut changes);
    }
    assert_eq!(book.removable(0), ends.map(|(run, _)| ids[run]));
    let told = changes
        .events
        .iter()
        .filter(|event| matches!(event.what, Lifecycle::Finished { .. }));
    let told: Vec<_> = told.map(|event| event.at_unix_ms).collect();
    assert_eq!(told, ends.map(|(_, at)| at), "what people are told is the clock's");
}

#[test]
fn failures_of_a_large_run_fit_into_one_frame() {
    let mut failures: Vec<_> = (0..1024)
        .map(|n| NodeFailure {
            node: node(&format!("n{n}")),
            machine: "m".parse().unwrap(),
            cause: FailureCause::Own {
                stderr: "ä".repeat(8_000) + "end",
            },
            exit: "exit code 1".to_owned(),
        })
        .collect();
    shorten(&mut failures);
    let FailureCause::Own { stderr } = &failures[9].cause else {
        panic!("{failures:?}");
    };
    assert!(stderr.len() <= 1024 && stderr.ends_with("end"));
}

#[test]
fn two_engines_are_told_apart_by_their_places_and_ids() {
    let (mut book, ids) = book_with(1);
    let (second, newer) = (Seat::all().nth(1).unwrap(), EngineId(Uuid::from_u128(9)));
    let mut changes = Changes::default();
    book.follow_engine(second, newer, &mut changes);
    let mut newcomer = plan(DataflowId(Uuid::from_u128(2)), &[("a", "m")]);
    newcomer.seat = second;
    let id = newcomer.order.dataflow;
    book.add(newcomer, &mut changes);
    assert_eq!(
        (book.alive_in(Seat::default()), book.alive_in(second)),
        (ids.clone(), vec![id])
    );

    let finished = || EngineEvent::Finished { failures: vec![] };
    // An older engine may have prepared a run that was then given to a newer one: what it tells of that is nothing.
    book.apply(ENGINE, 1, 1, Some(id), finished(), &mut changes);
    assert_eq!(book.alive_in(second), [id]);
    book.apply(newer, 1, 1, Some(id), finished(), &mut changes);
    assert_eq!(book.engine_cursor(Seat::default()), Some((ENGINE, 1)));
    assert_eq!(changes.engine_cursors.unwrap()[&second], (newer, 1));
    assert_eq!((book.alive_in(Seat::default()), book.alive_in(second)), (ids, vec![]));
}

#[test]
fn silence_ends_what_has_processes_and_must_not_go_on_alone_and_is_told_once() {
    let (mut book, ids) = book_with(0);
    assert!(ids.is_empty() && book.shortest_silence().is_none());
    let mut changes = Changes::default();
    let s = Duration::from_secs;
    let policies = [
        LinkLoss::Keep,
        LinkLoss::StopAfter { silence_ms: 30_000 },
        LinkLoss::StopAfter { silence_ms: 60_000 },
        LinkLoss::StopAfter { silence_ms: 5_000 },
    ];
    let ids: Vec<_> = (1..).map(|n| DataflowId(Uuid::from_u128(n))).zip(policies).collect();
    for (id, link_loss) in &ids {
        let plan = RunPlan {
            link_loss: *link_loss,
            ..plan(*id, &[("a", "m")])
        };
        book.add(plan, &mut changes);
    }
    let [keeps, short, long, prepared] = [0, 1, 2, 3].map(|at: usize| ids[at].0);
    for id in [keeps, short, long] {
        book.update(id, &mut changes, |state| state.phase = RunPhase::Running);
    }
    assert_eq!(
        book.shortest_silence(),
        Some(s(5)),
        "one that is prepared may be spawned at any time"
    );
    assert!(
        book.ended_by_silence(s(29)).is_empty(),
        "what is prepared has no process: {prepared}"
    );
    assert_eq!(book.ended_by_silence(s(30)), [short]);
    assert_eq!(book.ended_by_silence(s(60)), [short, long]);

    let mut changes = Changes::default();
    assert!(book.lose_link(short, 77, s(31), &mut changes));
    assert!(!book.lose_link(short, 99, s(32), &mut changes), "told once");
    let [event] = changes.events.as_slice() else {
        panic!("{changes:?}");
    };
    assert_eq!(
        (event.at_unix_ms, event.what.clone()),
        (77, Lifecycle::LinkLost { silent_ms: 31_000 })
    );
    assert_eq!(changes.messages.len(), 1);
    assert!(changes.states[0].1.link_lost && changes.states[0].1.phase == RunPhase::Stopping);
    // Heard again or not, what was begun is ended.
    assert!(book.stops_alone());
    assert_eq!(book.ended_by_silence(s(0)), [short]);
    book.end(short, 80, vec![], String::new(), &mut changes);
    assert!(!book.stops_alone() && book.ended_by_silence(s(31)).is_empty());
    assert!(!book.lose_link(short, 99, s(32), &mut changes), "it has ended");
}
