//! Clocks of machines that jump: order is that of the numbers, and a time is what a line says, however it compares to its neighbours.

use super::*;
use crate::Since;

const YEAR: u64 = 365 * 86_400_000;
/// A day in 2026.
const TODAY: u64 = 1_774_000_000_000;
/// Where a clock may jump to: the epoch, ten years back, today, fifty years ahead, and what no clock says.
const JUMPS: [u64; 6] = [0, 60_000, TODAY - 10 * YEAR, TODAY, TODAY + 50 * YEAR, u64::MAX - 1_000];

/// A writer whose clock is set before each batch. The store is opened anew before some.
struct Jumper {
    dir: tempfile::TempDir,
    store: Option<LogStore>,
    caps: Caps,
    /// The times of all lines, in their order.
    times: Vec<u64>,
}

impl Jumper {
    fn new(per_dataflow_bytes: u64) -> Self {
        let caps = Caps {
            total_bytes: u64::MAX,
            per_dataflow_bytes,
        };
        let mut jumper = Self {
            dir: tempfile::tempdir().unwrap(),
            store: None,
            caps,
            times: Vec::new(),
        };
        jumper.reopen();
        jumper
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(LogStore::open(&self.dir.path().join("logs.redb"), self.caps).unwrap());
    }

    fn store(&self) -> &LogStore {
        self.store.as_ref().unwrap()
    }

    /// Writes one batch: so many lines from each of these times on, a millisecond each. It is sent twice.
    fn write(&mut self, pieces: &[(u64, u64)]) {
        let before = self.times.len() as u64;
        for (begin, lines) in pieces {
            self.times.extend((0..*lines).map(|at| begin.saturating_add(at)));
        }
        let mut batch = batch("n", 1, 0, before + 1..=self.times.len() as u64);
        for (record, at) in batch.records.iter_mut().zip(&self.times[before as usize..]) {
            record.at_unix_ms = *at;
        }
        let lines = batch.records.len() as u64;
        let batches = [(machine("a"), batch)];
        assert_eq!(self.store().append(&batches).unwrap()[0].stored_lines, lines);
        assert_eq!(self.store().append(&batches).unwrap()[0].stored_lines, 0);
    }

    /// The numbers of all lines that pass, by a look at every one.
    fn expected(&self, filter: &Filter) -> Vec<u64> {
        let passes = |seq: u64, at: u64| {
            let is_old = |since: Since| seq <= since.to_seq && at < since.at_unix_ms;
            !filter.since.is_some_and(is_old) && filter.until_unix_ms.is_none_or(|until| at <= until)
        };
        let numbered = (1..).zip(&self.times);
        numbered.filter(|(seq, at)| passes(*seq, **at)).map(|(seq, _)| seq).collect()
    }

    /// The numbers of all lines that are read behind a cursor, in small pages.
    fn found(&self, mut after: u64, filter: &Filter) -> Vec<u64> {
        let mut found = Vec::new();
        // Each page but the last goes on by a line at least.
        for _ in 0..=self.times.len() {
            let page = self.store().read(flow(), after, filter, 1_000).unwrap();
            for item in &page.items {
                match item {
                    LogItem::Lines(lines) => {
                        let lines = lines.lines().unwrap();
                        for line in &lines {
                            assert_eq!(line.at_unix_ms, self.times[line.seq as usize - 1]);
                            assert_eq!(line.text, format!("n{}", line.seq));
                        }
                        found.extend(lines.iter().map(|line| line.seq));
                    }
                    other => panic!("nothing is missing: {other:?}"),
                }
            }
            if page.at_end {
                return found;
            }
            assert!(page.next_after > after, "a read that does not get on");
            after = page.next_after;
        }
        panic!("a read that does not end");
    }
}

fn limits(since: Option<Since>, until_unix_ms: Option<u64>) -> Filter {
    let mut filter = Filter::default();
    (filter.since, filter.until_unix_ms) = (since, until_unix_ms);
    filter
}

#[test]
fn a_board_that_boots_in_1970_and_learns_the_time_loses_no_line() {
    let mut board = Jumper::new(u64::MAX);
    // Some of the jumps happen within a batch, others between two lives of the coordinator.
    board.write(&[(0, 20), (TODAY, 20), (TODAY - 10 * YEAR, 20)]);
    board.reopen();
    board.write(&[(TODAY + 60_000, 20), (30_000, 20)]);
    board.write(&[(TODAY + 50 * YEAR, 20)]);
    board.reopen();
    board.write(&[(TODAY + 120_000, 20)]);
    assert_eq!(board.found(0, &Filter::default()), (1..=140).collect::<Vec<_>>());
    let last_hour = Since {
        at_unix_ms: TODAY - 3_600_000,
        to_seq: 140,
    };
    let of_today = limits(Some(last_hour), Some(TODAY + 3_600_000));
    assert_eq!(
        board.found(0, &of_today),
        all([21..=40, 61..=80, 121..=140]),
        "neither the wrong clocks' lines, nor fewer than the right one's"
    );
    let cursor = tail(board.store(), 30, &of_today);
    assert_eq!(board.found(cursor, &of_today), all([71..=80, 121..=140]));
}

#[test]
fn eviction_goes_by_age_in_the_store_and_not_by_the_clock() {
    let mut board = Jumper::new(2_000);
    // The latest lines say that they are the oldest.
    for step in 0..60 {
        board.write(&[((60 - step) * YEAR, 2)]);
    }
    let page = board.store().read(flow(), 0, &Filter::default(), usize::MAX).unwrap();
    let LogItem::Gap { lines, next_after } = page.items[0] else {
        panic!("{:?}", page.items[0])
    };
    assert_eq!(lines, next_after);
    assert!(lines < 118, "some are left");
    let left: Vec<_> = (lines + 1..=120).collect();
    assert_eq!(board.found(next_after, &Filter::default()), left);
    // What is gone is told of where its times were wanted, though everything that is left is older.
    let since = |at_unix_ms| Some(Since { at_unix_ms, to_seq: 120 });
    let gap_of = |since| board.store().read(flow(), 0, &limits(since, None), usize::MAX).unwrap().items;
    assert!(matches!(gap_of(since(60 * YEAR))[..], [LogItem::Gap { .. }]));
    assert!(gap_of(since(61 * YEAR)).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_line_whose_time_is_wanted_is_read_however_the_clock_jumps(
        batches in prop::collection::vec((pieces(), prop::bool::weighted(0.2)), 1..12),
        limits_at in prop::collection::vec((0..JUMPS.len(), 0_u64..5_000, 0..JUMPS.len(), 0_u64..5_000, 0_u64..100), 4),
        last in 1_u64..40,
    ) {
        let mut board = Jumper::new(u64::MAX);
        for (pieces, reopens) in batches {
            if reopens {
                board.reopen();
            }
            board.write(&pieces);
        }
        let count = board.times.len() as u64;
        prop_assert_eq!(board.found(0, &Filter::default()), (1..=count).collect::<Vec<_>>());
        for (since, since_offset, until, until_offset, to_seq) in limits_at {
            let since = Since {
                at_unix_ms: JUMPS[since].saturating_add(since_offset),
                to_seq: to_seq.min(count),
            };
            let until = JUMPS[until].saturating_add(until_offset);
            for filter in [limits(Some(since), None), limits(None, Some(until)), limits(Some(since), Some(until))] {
                let expected = board.expected(&filter);
                prop_assert_eq!(&board.found(0, &filter), &expected);
                let cursor = tail(board.store(), last, &filter);
                let last = expected.len().saturating_sub(last as usize);
                prop_assert_eq!(&board.found(cursor, &filter), &expected[last..]);
            }
        }
    }
}

/// A batch in which the clock jumps.
fn pieces() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let piece = (0..JUMPS.len(), 0_u64..5_000, 1_u64..6);
    let piece = piece.prop_map(|(jump, offset, lines)| (JUMPS[jump].saturating_add(offset), lines));
    prop::collection::vec(piece, 1..4)
}

fn all(ranges: impl IntoIterator<Item = std::ops::RangeInclusive<u64>>) -> Vec<u64> {
    ranges.into_iter().flatten().collect()
}
