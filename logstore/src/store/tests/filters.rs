//! Times, levels and texts: what is wanted is found, what is not wanted is not read.

use super::*;
use crate::{
    Since,
    store::{BLOCKS, key},
};
use dora_remote_protocol::log_line::LogLevel;

/// Five blocks of ten lines. The clock runs by a second with each line and is set back by an hour after the third block.
const TIMES: [u64; 5] = [10_000_000, 10_010_000, 10_020_000, 6_430_000, 6_440_000];

fn filled(dir: &Path) -> LogStore {
    let store = open(dir);
    for (block, begin) in TIMES.iter().enumerate() {
        let first = block as u64 * 10 + 1;
        let mut batch = batch("n", 1, 0, first..=first + 9);
        for (at, record) in batch.records.iter_mut().enumerate() {
            record.at_unix_ms = begin + at as u64 * 1_000;
        }
        store.append(&[(machine("a"), batch)]).unwrap();
    }
    store
}

fn since(at_unix_ms: u64, to_seq: u64) -> Filter {
    let mut filter = Filter::default();
    filter.since = Some(Since { at_unix_ms, to_seq });
    filter
}

fn until(until_unix_ms: u64) -> Filter {
    let mut filter = Filter::default();
    filter.until_unix_ms = Some(until_unix_ms);
    filter
}

fn levels(level: Option<LogLevel>, machine_level: Option<LogLevel>) -> Filter {
    let mut filter = Filter::default();
    (filter.level, filter.machine_level) = (level, machine_level);
    filter
}

fn numbers(store: &LogStore, filter: &Filter) -> Vec<u64> {
    let texts = texts(store, filter);
    texts.iter().map(|text| text[1..].parse().unwrap()).collect()
}

fn all(ranges: impl IntoIterator<Item = std::ops::RangeInclusive<u64>>) -> Vec<u64> {
    ranges.into_iter().flatten().collect()
}

#[test]
fn times_are_found_though_the_clock_was_set_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    assert_eq!(numbers(&store, &since(10_018_000, u64::MAX)), all([19..=30]));
    assert_eq!(numbers(&store, &until(10_002_000)), all([1..=3, 31..=50]));
    let mut both = since(6_435_000, u64::MAX);
    both.until_unix_ms = Some(6_441_000);
    assert_eq!(numbers(&store, &both), all([36..=42]));
    assert_eq!(tail(&store, 3, &until(10_002_000)), 47);
    assert_eq!(tail(&store, 12, &both), 0, "fewer exist");
    assert_eq!(tail(&store, 2, &since(10_018_000, u64::MAX)), 28);
    assert_eq!(
        numbers(&store, &since(10_018_000, 45)),
        all([19..=30, 46..=50]),
        "what came later is never old"
    );
    let page = store.read(flow(), 0, &since(u64::MAX, u64::MAX), usize::MAX).unwrap();
    assert_eq!((page.items.len(), page.next_after, page.at_end), (0, 50, true));
}

#[test]
fn blocks_that_are_not_wanted_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()));
    // Whoever reads one of the first blocks finds out that they are spoilt.
    let db = redb::Database::open(dir.path().join("logs.redb")).unwrap();
    let transaction = db.begin_write().unwrap();
    for first_seq in [1, 11, 21] {
        let mut blocks = transaction.open_table(BLOCKS).unwrap();
        let row = (first_seq + 9, first_seq, 10, b"spoilt".as_slice());
        blocks.insert((key(flow()), first_seq), row).unwrap();
    }
    transaction.commit().unwrap();
    drop(db);
    let store = open(dir.path());
    assert!(store.read(flow(), 0, &Filter::default(), usize::MAX).is_err());
    assert_eq!(numbers(&store, &until(6_500_000)), all([31..=50]));
    assert_eq!(tail(&store, 5, &Filter::default()), 45);
    assert_eq!(tail(&store, 99, &until(6_500_000)), 0);
}

#[test]
fn what_was_evicted_is_a_gap_only_where_it_may_have_been_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let caps = Caps {
        total_bytes: u64::MAX,
        per_dataflow_bytes: 1_000,
    };
    let store = LogStore::open(&dir.path().join("logs.redb"), caps).unwrap();
    for at in 1..=30 {
        // The time of a record is its offset here.
        store.append(&[(machine("a"), batch("n", 1, 0, at..=at))]).unwrap();
    }
    let page = store.read(flow(), 0, &Filter::default(), usize::MAX).unwrap();
    let LogItem::Gap { lines, .. } = page.items[0] else {
        panic!("{:?}", page.items[0])
    };
    assert_eq!(numbers(&store, &since(lines + 1, 30)), all([lines + 1..=30]));
    let page = store.read(flow(), 0, &since(lines, 30), usize::MAX).unwrap();
    assert!(
        matches!(page.items[0], LogItem::Gap { .. }),
        "the last that is gone was wanted"
    );
    store.forget(flow()).unwrap();
    store.append(&[(machine("a"), batch("n", 1, 0, 1..=1))]).unwrap();
    assert_eq!(numbers(&store, &since(1, 1)), [1], "numbers begin anew, and so do times");
}

#[test]
fn levels_and_texts_choose_lines() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let leveled = |source: &LogSource, level: Option<LogLevel>, text: &str, offset: u64| {
        let mut batch = batch("n", 1, 0, offset..=offset);
        batch.source = source.clone();
        batch.records[0].level = level;
        batch.records[0].text = text.to_owned();
        (machine("a"), batch)
    };
    let of_node = LogSource::Node(node("n"));
    let batches = [
        leveled(&of_node, None, "plain", 1),
        leveled(&of_node, Some(LogLevel::Debug), "detail", 2),
        leveled(&of_node, Some(LogLevel::Error), "Übel: TIMEOUT", 3),
        leveled(&LogSource::Machine, Some(LogLevel::Info), "spawned", 1),
        leveled(&LogSource::Machine, Some(LogLevel::Warn), "timeout soon", 2),
        leveled(&LogSource::Build, Some(LogLevel::Info), "compiled", 1),
    ];
    store.append(&batches).unwrap();
    assert_eq!(
        texts(&store, &levels(None, Some(LogLevel::Warn))),
        ["plain", "detail", "Übel: TIMEOUT", "timeout soon", "compiled"]
    );
    assert_eq!(
        texts(&store, &levels(Some(LogLevel::Info), Some(LogLevel::Info))),
        ["Übel: TIMEOUT", "spawned", "timeout soon", "compiled"]
    );
    assert_eq!(texts(&store, &levels(Some(LogLevel::Error), None)), ["Übel: TIMEOUT"]);
    let timeout = Filter::default().containing("TimeOut");
    assert_eq!(texts(&store, &timeout), ["Übel: TIMEOUT", "timeout soon"]);
    assert_eq!(tail(&store, 1, &timeout), 4);
    assert_eq!(texts(&store, &Filter::default().containing("üBEL")), ["Übel: TIMEOUT"]);
    assert!(Filter::default().containing("").is_open());
}

#[test]
fn lost_lines_are_as_old_as_what_follows_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(&[(machine("a"), batch("n", 1, 0, 1..=1))]).unwrap();
    store.append(&[(machine("a"), batch("n", 1, 7, 100..=101))]).unwrap();
    let shown_of = |filter: &Filter| shown(&store.read(flow(), 0, filter, usize::MAX).unwrap().items);
    assert_eq!(shown_of(&since(100, u64::MAX)), ["gap of 7, then 2", "n100", "n101"]);
    assert_eq!(shown_of(&since(101, u64::MAX)), ["n101"]);
    assert_eq!(shown_of(&until(50)), ["n1"]);
    let errors = levels(Some(LogLevel::Error), None);
    assert_eq!(shown_of(&errors), ["gap of 7, then 2"], "nobody knows what they said");
}

#[test]
fn lost_lines_at_the_end_of_a_block_are_not_as_old_as_what_stands_before_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let gap = LogBatch {
        records: Vec::new(),
        ..batch("m", 5, 7, 1..=1)
    };
    store
        .append(&[(machine("a"), batch("n", 1, 0, 1..=3)), (machine("a"), gap)])
        .unwrap();
    store.append(&[(machine("a"), batch("m", 5, 0, 100..=101))]).unwrap();
    let page = store.read(flow(), 0, &since(100, u64::MAX), usize::MAX).unwrap();
    assert_eq!(shown(&page.items), ["gap of 7, then 4", "m100", "m101"]);
}
