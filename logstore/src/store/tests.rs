//! Lines in, lines out: once each, in order, across restarts, resends and evictions.

mod clocks;
mod filters;

use crate::{Caps, Filter, LogStore};
use dora_remote_protocol::{
    ids::{DataflowId, NodeId},
    log_line::{LogBatch, LogItem, LogRecord, LogSource, LogStream},
    name::MachineName,
};
use proptest::prelude::*;
use std::path::Path;
use uuid::Uuid;

#[test]
fn lines_survive_a_restart_and_keep_their_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let answers = store
        .append(&[
            (machine("a"), batch("n", 1, 0, 1..=3)),
            (machine("b"), batch("m", 1, 0, 1..=2)),
        ])
        .unwrap();
    assert_eq!(
        (answers[0].last_seq, answers[0].stored_lines, answers[0].acked_offset),
        (3, 3, 3)
    );
    assert_eq!((answers[1].last_seq, answers[1].stored_lines), (5, 2));
    drop(store);

    let store = open(dir.path());
    store.append(&[(machine("a"), batch("n", 1, 0, 2..=4))]).unwrap();
    assert_eq!(texts(&store, &Filter::default()), ["n1", "n2", "n3", "m1", "m2", "n4"]);
    assert_eq!(store.last_seq(flow()).unwrap(), 6);
}

#[test]
fn doubles_and_older_epochs_are_dropped_and_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(&[(machine("a"), batch("n", 2, 0, 1..=3))]).unwrap();
    let again = store.append(&[(machine("a"), batch("n", 2, 0, 1..=3))]).unwrap()[0];
    assert_eq!((again.stored_lines, again.acked_offset, again.last_seq), (0, 3, 3));
    let older = store.append(&[(machine("a"), batch("n", 1, 5, 7..=9))]).unwrap()[0];
    assert_eq!((older.stored_lines, older.acked_offset, older.last_seq), (0, 9, 3));
    let newer = store.append(&[(machine("a"), batch("n", 3, 0, 1..=1))]).unwrap()[0];
    assert_eq!((newer.stored_lines, newer.acked_offset, newer.last_seq), (1, 1, 4));
}

#[test]
fn a_gap_without_lines_is_told_once_however_often_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let gap = |epoch, lost| LogBatch {
        records: Vec::new(),
        ..batch("n", epoch, lost, 1..=1)
    };
    store.append(&[(machine("a"), batch("n", 1, 0, 1..=2))]).unwrap();
    for _ in 0..3 {
        store.append(&[(machine("a"), gap(5, 40))]).unwrap();
    }
    store.append(&[(machine("a"), batch("n", 5, 0, 3..=3))]).unwrap();
    // Sent again by an agent that was killed before it heard of the answer.
    store
        .append(&[(machine("a"), gap(5, 40)), (machine("a"), batch("n", 5, 0, 3..=4))])
        .unwrap();
    assert_eq!(
        texts(&store, &Filter::default()),
        ["n1", "n2", "gap of 40, then 3", "n3", "n4"]
    );
}

#[test]
fn the_same_node_on_two_machines_has_two_positions() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store
        .append(&[
            (machine("a"), batch("n", 1, 0, 1..=2)),
            (machine("b"), batch("n", 1, 0, 1..=2)),
        ])
        .unwrap();
    assert_eq!(texts(&store, &Filter::default()), ["n1", "n2", "n1", "n2"]);
}

#[test]
fn lines_lost_on_the_machine_are_one_gap_even_when_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(&[(machine("a"), batch("n", 1, 0, 1..=1))]).unwrap();
    store.append(&[(machine("a"), batch("n", 1, 40, 42..=43))]).unwrap();
    store.append(&[(machine("a"), batch("n", 1, 40, 42..=44))]).unwrap();
    let page = store.read(flow(), 0, &Filter::default(), usize::MAX).unwrap();
    assert_eq!(shown(&page.items), ["n1", "gap of 40, then 2", "n42", "n43", "n44"]);
    let resumed = store.read(flow(), 2, &Filter::default(), usize::MAX).unwrap();
    assert_eq!(
        shown(&resumed.items),
        ["n42", "n43", "n44"],
        "a gap that was told is not told again"
    );
}

#[test]
fn a_full_dataflow_loses_its_oldest_lines_and_says_how_many() {
    let dir = tempfile::tempdir().unwrap();
    let caps = Caps {
        total_bytes: u64::MAX,
        per_dataflow_bytes: 1_000,
    };
    let store = LogStore::open(&dir.path().join("logs.redb"), caps).unwrap();
    for at in 0..50 {
        store
            .append(&[(machine("a"), batch("n", 1, 0, at * 2 + 1..=at * 2 + 2))])
            .unwrap();
    }
    let page = store.read(flow(), 0, &Filter::default(), usize::MAX).unwrap();
    let LogItem::Gap { lines, next_after } = page.items[0] else {
        panic!("{:?}", page.items[0])
    };
    let rest = shown(&page.items[1..]);
    assert_eq!(lines, next_after);
    assert_eq!(lines as usize + rest.len(), 100, "every line is there or counted");
    assert_eq!(rest[0], format!("n{}", lines + 1));
    assert!(store.bytes().unwrap() <= 1_000);
    let inside = store.read(flow(), lines - 1, &Filter::default(), usize::MAX).unwrap();
    assert!(matches!(inside.items[0], LogItem::Gap { lines: 1, .. }));
    assert_eq!(tail(&store, 1_000, &Filter::default()), lines, "no gap in what exists");
}

#[test]
fn a_full_store_loses_the_oldest_lines_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let caps = Caps {
        total_bytes: 1_500,
        per_dataflow_bytes: u64::MAX,
    };
    let store = LogStore::open(&dir.path().join("logs.redb"), caps).unwrap();
    let mut other = batch("old", 1, 0, 1..=5);
    other.dataflow = DataflowId(Uuid::from_u128(99));
    store.append(&[(machine("a"), other.clone())]).unwrap();
    for at in 1..=40 {
        store.append(&[(machine("a"), batch("n", 1, 0, at..=at))]).unwrap();
    }
    assert!(store.bytes().unwrap() <= 1_500);
    let page = store.read(other.dataflow, 0, &Filter::default(), usize::MAX).unwrap();
    assert_eq!(shown(&page.items), ["gap of 5, then 5"]);
    other.records.push(record("old", 6));
    store.append(&[(machine("a"), other.clone())]).unwrap();
    let page = store.read(other.dataflow, 0, &Filter::default(), usize::MAX).unwrap();
    assert_eq!(
        shown(&page.items),
        ["gap of 5, then 5", "old6"],
        "positions outlive the lines"
    );
}

#[test]
fn tail_counts_only_what_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for at in 1..=20 {
        store
            .append(&[
                (machine("a"), batch("n", 1, 0, at..=at)),
                (machine("a"), batch("m", 1, 0, at..=at)),
            ])
            .unwrap();
    }
    let only_m = Filter::nodes([node("m")]);
    let cursor = tail(&store, 3, &only_m);
    let page = store.read(flow(), cursor, &only_m, usize::MAX).unwrap();
    assert_eq!(shown(&page.items), ["m18", "m19", "m20"]);
    assert_eq!(tail(&store, 0, &only_m), 40);
    assert_eq!(tail(&store, 2, &Filter::default()), 38);
    assert_eq!(tail(&store, 999, &only_m), 0);
}

#[test]
fn pages_join_without_seam() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(&[(machine("a"), batch("n", 1, 0, 1..=5_000))]).unwrap();
    let (mut after, mut seen, mut pages) = (0, Vec::new(), 0);
    loop {
        let page = store.read(flow(), after, &Filter::default(), 10_000).unwrap();
        seen.extend(shown(&page.items));
        after = page.next_after;
        pages += 1;
        if page.at_end {
            break;
        }
    }
    assert!(pages > 10);
    assert_eq!(seen, (1..=5_000).map(|at| format!("n{at}")).collect::<Vec<_>>());
    let page = store.read(flow(), 5_000, &Filter::default(), 10_000).unwrap();
    assert!(page.items.is_empty() && page.at_end);
}

#[test]
fn a_forgotten_dataflow_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(&[(machine("a"), batch("n", 1, 0, 1..=5))]).unwrap();
    store.forget(flow()).unwrap();
    assert_eq!((store.bytes().unwrap(), store.last_seq(flow()).unwrap()), (0, 0));
    let again = store.append(&[(machine("a"), batch("n", 1, 0, 1..=5))]).unwrap()[0];
    assert_eq!(again.stored_lines, 5, "positions are forgotten too");
}

#[test]
fn a_reader_goes_on_while_lines_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for at in 1..=100 {
                store.append(&[(machine("a"), batch("n", 1, 0, at..=at))]).unwrap();
            }
        });
        let (mut after, mut seen) = (0, Vec::new());
        while seen.len() < 100 {
            let page = store.read(flow(), after, &Filter::default(), 1_000).unwrap();
            seen.extend(shown(&page.items));
            after = page.next_after;
        }
        assert_eq!(seen, (1..=100).map(|at| format!("n{at}")).collect::<Vec<_>>());
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn overlapping_resends_yield_each_line_once_in_order(
        sends in prop::collection::vec((0_u64..40, 1_u64..12, any::<bool>()), 1..30)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        // A shipper never starts above what was acknowledged, and may go back to anything below it.
        let mut acked = 0;
        for (back, count, reopen) in sends {
            let first = acked - back.min(acked) + 1;
            let answer = store.append(&[(machine("a"), batch("n", 1, 0, first..=first + count - 1))]).unwrap()[0];
            acked = acked.max(first + count - 1);
            prop_assert_eq!(answer.acked_offset, acked);
            if reopen {
                drop(store);
                store = open(dir.path());
            }
        }
        let page = store.read(flow(), 0, &Filter::default(), usize::MAX).unwrap();
        prop_assert_eq!(shown(&page.items), (1..=acked).map(|at| format!("n{at}")).collect::<Vec<_>>());
    }
}

/// The cursor behind which the last lines follow, found in the shortest steps.
fn tail(store: &LogStore, lines: u64, filter: &Filter) -> u64 {
    let mut search = store.tail(flow(), lines).unwrap();
    loop {
        if let Some(cursor) = store.tail_step(&mut search, filter, 1).unwrap() {
            return cursor;
        }
    }
}

fn open(dir: &Path) -> LogStore {
    let caps = Caps {
        total_bytes: 64 << 20,
        per_dataflow_bytes: 64 << 20,
    };
    LogStore::open(&dir.join("logs.redb"), caps).unwrap()
}

fn flow() -> DataflowId {
    DataflowId(Uuid::from_u128(7))
}

fn machine(name: &str) -> MachineName {
    name.parse().unwrap()
}

fn node(id: &str) -> NodeId {
    id.parse().unwrap()
}

fn record(node: &str, offset: u64) -> LogRecord {
    LogRecord {
        offset,
        at_unix_ms: offset,
        stream: LogStream::Stdout,
        level: None,
        text: format!("{node}{offset}"),
    }
}

fn batch(name: &str, epoch: u64, lost_before: u64, offsets: std::ops::RangeInclusive<u64>) -> LogBatch {
    LogBatch {
        dataflow: flow(),
        source: LogSource::Node(node(name)),
        epoch,
        lost_before,
        records: offsets.map(|offset| record(name, offset)).collect(),
    }
}

fn texts(store: &LogStore, filter: &Filter) -> Vec<String> {
    shown(&store.read(flow(), 0, filter, usize::MAX).unwrap().items)
}

fn shown(items: &[LogItem]) -> Vec<String> {
    let mut shown = Vec::new();
    for item in items {
        match item {
            LogItem::Lines(lines) => shown.extend(lines.lines().unwrap().into_iter().map(|line| line.text)),
            LogItem::Gap { lines, next_after } => shown.push(format!("gap of {lines}, then {next_after}")),
            LogItem::CaughtUp
            | LogItem::Lag { .. }
            | LogItem::Passed { .. }
            | LogItem::Fetching { .. }
            | LogItem::Unfetched { .. } => panic!("no business of a store: {item:?}"),
        }
    }
    shown
}
