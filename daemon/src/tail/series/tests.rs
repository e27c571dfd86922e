//! Files as dora writes and rotates them.

use super::*;
use dora_remote_protocol::limits::LOG_BATCH_LINES;
use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::Write,
};
use tempfile::TempDir;

struct Writer {
    dir: TempDir,
    next: u32,
}

impl Writer {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            next: 0,
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("log_a.b.jsonl")
    }

    fn raw(&self, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) {
        self.raw(&format!("{{\"msg\":\"{}\",\"stream\":\"stdout\"}}\n", self.next));
        self.next += 1;
    }

    /// Renames as dora does, keeping `keep` old files.
    fn rotate(&self, keep: usize) {
        let name = |n: usize| if n == 0 { self.path() } else { rotated(&self.path(), n) };
        let _ = fs::remove_file(name(keep));
        for n in (0..keep).rev() {
            let _ = fs::rename(name(n), name(n + 1));
        }
    }
}

fn texts(lines: &Lines) -> Vec<String> {
    lines.records.iter().map(|record| record.text.clone()).collect()
}

/// Reads and acknowledges a gap.
fn gap(series: &mut Series) -> u64 {
    let lines = series.read(false, 1).unwrap().unwrap();
    assert!(lines.records.is_empty(), "{lines:?}");
    series.acked().unwrap();
    lines.lost_before
}

/// Reads and acknowledges until nothing is left, gaps too. Returns the lines and how many are lost before which of them.
fn drain_with_gaps(series: &mut Series) -> (Vec<String>, Vec<(usize, u64)>) {
    let (mut all, mut gaps) = (Vec::new(), Vec::new());
    series.look(1).unwrap();
    while let Some(lines) = series.read(true, 1).unwrap() {
        if lines.records.is_empty() {
            gaps.push((all.len(), lines.lost_before));
        }
        all.extend(texts(&lines));
        series.acked().unwrap();
    }
    (all, gaps)
}

/// Reads and acknowledges until nothing is left.
fn drain(series: &mut Series) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        series.look(1).unwrap();
        let Some(lines) = series.read(false, 1).unwrap() else {
            return all;
        };
        assert_eq!(lines.lost_before, 0);
        all.extend(texts(&lines));
        series.acked().unwrap();
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[test]
fn a_torn_line_waits_for_its_end() {
    let mut writer = Writer::new();
    let mut series = Series::new(writer.path(), None);
    assert_eq!(drain(&mut series), numbers(0..0), "no file yet");
    writer.line();
    writer.raw("{\"msg\":\"to");
    assert_eq!(drain(&mut series), ["0"]);
    assert!(!series.is_drained().unwrap());
    writer.raw("rn\"}\n");
    assert_eq!(drain(&mut series), ["torn"]);
    assert!(series.is_drained().unwrap());
    writer.raw("the end");
    let lines = series.read(true, 1).unwrap().unwrap();
    assert_eq!(texts(&lines), ["the end"]);
    series.acked().unwrap();
    assert!(series.is_drained().unwrap());
    assert_eq!(series.cursor().offset, fs::metadata(writer.path()).unwrap().len());
}

#[test]
fn rotations_lose_nothing_and_offsets_go_on() {
    let mut writer = Writer::new();
    let mut series = Series::new(writer.path(), None);
    let (mut all, mut offsets) = (Vec::new(), Vec::new());
    for round in 0..40 {
        for _ in 0..3 {
            writer.line();
        }
        if round % 3 == 1 {
            writer.rotate(2);
            writer.line();
        }
        series.look(1).unwrap();
        if round % 2 == 0 {
            while let Some(lines) = series.read(false, 1).unwrap() {
                assert_eq!(lines.lost_before, 0);
                offsets.extend(lines.records.iter().map(|record| record.offset));
                all.extend(texts(&lines));
                series.acked().unwrap();
            }
        }
    }
    all.extend(drain(&mut series));
    assert_eq!(all, numbers(0..writer.next));
    assert!(offsets.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn a_restart_goes_on_behind_the_last_acknowledged_line() {
    let mut writer = Writer::new();
    let mut series = Series::new(writer.path(), None);
    for _ in 0..5 {
        writer.line();
    }
    assert_eq!(drain(&mut series), numbers(0..5));
    let stored = series.cursor().clone();
    writer.line();
    series.look(1).unwrap();
    let unacked = series.read(false, 1).unwrap().unwrap();
    drop(series);
    writer.rotate(5);
    writer.line();
    let mut series = Series::new(writer.path(), Some(stored));
    series.look(1).unwrap();
    let again = series.read(false, 1).unwrap().unwrap();
    assert_eq!(unacked.records[0], again.records[0], "the same line has the same offset");
    series.acked().unwrap();
    assert_eq!(drain(&mut series), numbers(6..7));
    assert_eq!(series.cursor().epoch, 1);
}

#[test]
fn a_file_that_was_rotated_away_meanwhile_is_a_gap_and_a_new_epoch() {
    let mut writer = Writer::new();
    let mut series = Series::new(writer.path(), None);
    writer.line();
    drain(&mut series);
    let stored = series.cursor().clone();
    drop(series);
    for _ in 0..4 {
        writer.rotate(1);
        writer.line();
    }
    let mut series = Series::new(writer.path(), Some(stored));
    series.look(50).unwrap();
    assert_eq!(gap(&mut series), 1);
    assert!(series.cursor().epoch >= 50);
    assert_eq!(drain(&mut series), numbers(3..5));
}

#[test]
fn epochs_go_on_however_the_clock_jumps() {
    const YEAR: u64 = 365 * 86_400_000;
    let mut writer = Writer::new();
    writer.line();
    let mut series = Series::new(writer.path(), None);
    let mut seen = vec![(0, 0)];
    for (failed, now) in (1..).zip([5, 56 * YEAR, 106 * YEAR, 46 * YEAR, 0, 56 * YEAR]) {
        series.look(now).unwrap();
        series.failed(failed).unwrap();
        writer.line();
        // Whatever is read is placed behind what was read before, over a restart as well.
        while let Some(lines) = series.read(true, now).unwrap() {
            let offset = lines
                .records
                .last()
                .map_or_else(|| series.cursor().offset, |record| record.offset);
            seen.push((series.cursor().epoch, offset));
            assert!(lines.records.iter().all(|record| record.at_unix_ms <= now), "{lines:?}");
            series.acked().unwrap();
        }
        series = Series::new(writer.path(), Some(series.cursor().clone()));
    }
    assert!(seen.len() > 12 && seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
}

#[test]
fn held_files_are_bounded_and_the_gap_is_counted() {
    let mut writer = Writer::new();
    let mut series = Series::new(writer.path(), None);
    writer.line();
    series.look(1).unwrap();
    let first = series.read(false, 1).unwrap().unwrap();
    assert_eq!(texts(&first), ["0"]);
    for _ in 0..60 {
        writer.rotate(2);
        writer.line();
        series.look(1).unwrap();
    }
    assert!(series.files.len() <= MAX_HELD);
    series.acked().unwrap();
    let (mut seen, mut lost) = (1, 0);
    while let Some(lines) = series.read(false, 1).unwrap() {
        lost += lines.lost_before;
        seen += lines.records.len() as u64;
        series.acked().unwrap();
    }
    assert!(lost > 0);
    assert_eq!(seen + lost, u64::from(writer.next));
}

#[test]
fn long_lines_and_many_lines_come_in_bounded_batches() {
    let mut writer = Writer::new();
    let mut series = Series::new(writer.path(), None);
    writer.raw(&format!("{{\"msg\":\"{}\"}}\n", "x".repeat(900 << 10)));
    for _ in 0..20_000 {
        writer.line();
    }
    series.look(1).unwrap();
    let (mut seen, mut batches) = (BTreeSet::new(), 0);
    while let Some(lines) = series.read(false, 1).unwrap() {
        assert!(lines.records.len() <= LOG_BATCH_LINES);
        seen.extend(lines.records.iter().map(|record| record.offset));
        batches += 1;
        series.acked().unwrap();
    }
    assert_eq!(seen.len(), 20_001);
    assert!(batches >= 4, "{batches}");
}

#[test]
fn a_reader_without_a_cursor_repeats_the_epoch_and_the_offsets_of_the_one_before() {
    let mut writer = Writer::new();
    for _ in 0..5 {
        writer.line();
    }
    let reading = || {
        let mut series = Series::new(writer.path(), None);
        series.look(1).unwrap();
        let lines = series.read(true, 1).unwrap().unwrap();
        let offsets: Vec<_> = lines.records.iter().map(|record| record.offset).collect();
        (series.cursor().epoch, offsets)
    };
    assert_eq!(
        reading(),
        reading(),
        "the coordinator knows lines that come again by epoch and offset"
    );
}

/// A writer with four files of three lines each, and a reader that has seen none of them.
fn four_files() -> (Writer, Series) {
    let mut writer = Writer::new();
    for file in 0..4 {
        if file > 0 {
            writer.rotate(9);
        }
        for _ in 0..3 {
            writer.line();
        }
    }
    let mut series = Series::new(writer.path(), None);
    series.look(1).unwrap();
    (writer, series)
}

#[test]
fn what_is_given_back_is_emptied_oldest_first_and_is_one_gap() {
    let (writer, mut series) = four_files();
    let before = series.bytes();
    assert_eq!(series.give_back(Give::Shipped).unwrap(), 0, "nothing is shipped");
    let first = series.give_back(Give::Any).unwrap();
    let second = series.give_back(Give::Any).unwrap();
    assert!(first > 0 && second > 0);
    assert_eq!(series.bytes(), before - first - second);
    assert!(rotated(&writer.path(), 3).exists(), "dora still finds the file");
    assert_eq!(drain_with_gaps(&mut series), (numbers(6..12), vec![(0, 6)]));
    assert!(series.is_drained().unwrap());
    assert!(series.give_back(Give::Shipped).unwrap() > 0, "the third file is shipped now");
    assert_eq!(series.give_back(Give::Any).unwrap(), 0, "the current one stays");
    assert_eq!(series.cursor().dropped, 0);
}

#[test]
fn lines_under_way_survive_their_file_and_are_lost_only_with_the_process() {
    let (writer, mut series) = four_files();
    let stored = series.cursor().clone();
    let under_way = series.read(false, 1).unwrap().unwrap();
    assert_eq!(texts(&under_way), numbers(0..3));
    let stored = LogCursor {
        place: {
            // As after the acknowledgement of a line of the first file.
            let mut reader = Series::new(writer.path(), Some(stored.clone()));
            reader.look(1).unwrap();
            reader.note_place().unwrap();
            reader.cursor().place.clone()
        },
        ..stored
    };
    series.cursor = stored;
    assert!(series.give_back(Give::Any).unwrap() > 0);
    assert!(series.give_back(Give::Any).unwrap() > 0);
    let cut_off = series.cursor().clone();
    assert_eq!(cut_off.dropped, 6);
    series.acked().unwrap();
    assert_eq!(series.cursor().dropped, 3);
    assert_eq!(drain_with_gaps(&mut series), (numbers(6..12), vec![(0, 3)]));

    let mut series = Series::new(writer.path(), Some(cut_off));
    series.look(1).unwrap();
    assert_eq!(
        drain_with_gaps(&mut series),
        (numbers(6..12), vec![(0, 6)]),
        "the batch was never acknowledged"
    );
}

#[test]
fn all_of_an_ended_node_can_be_given_back() {
    let (_writer, mut series) = four_files();
    while series.give_back(Give::All).unwrap() > 0 {}
    assert_eq!(series.bytes(), 0);
    assert!(!series.is_drained().unwrap());
    assert_eq!(drain_with_gaps(&mut series), (Vec::new(), vec![(0, 12)]));
    assert!(series.is_drained().unwrap());
}

#[test]
fn lines_that_could_not_be_written_are_one_gap_at_their_place() {
    let mut writer = Writer::new();
    let mut series = Series::new(writer.path(), None);
    writer.line();
    writer.line();
    // The disk is full in the middle of the third line.
    writer.raw("{\"msg\":\"2\",\"str");
    series.look(1).unwrap();
    series.failed(2).unwrap();
    series.failed(4).unwrap();
    writer.next = 6;
    writer.line();
    series.failed(6).unwrap();
    let lines = series.read(false, 1).unwrap().unwrap();
    assert_eq!(texts(&lines), numbers(0..2));
    series.acked().unwrap();
    assert_eq!(
        series.read(false, 1).unwrap(),
        None,
        "it may still grow, and no line passes it"
    );
    assert_eq!(drain_with_gaps(&mut series), (numbers(6..7), vec![(0, 6)]));
    // What was told is not told again, neither now nor after a restart.
    series.failed(6).unwrap();
    assert_eq!(drain_with_gaps(&mut series), (Vec::new(), Vec::new()));
    let mut series = Series::new(writer.path(), Some(series.cursor().clone()));
    series.look(1).unwrap();
    series.failed(7).unwrap();
    assert_eq!(drain_with_gaps(&mut series), (Vec::new(), vec![(0, 1)]));
}

#[test]
fn a_gap_that_was_stored_comes_again_as_the_same_one() {
    let (writer, mut series) = four_files();
    series.give_back(Give::Any).unwrap();
    let told = series.read(false, 1).unwrap().unwrap();
    let stored = series.cursor().clone();
    let mut series = Series::new(writer.path(), Some(stored.clone()));
    series.look(1).unwrap();
    assert_eq!(series.read(false, 1).unwrap().unwrap(), told);
    assert_eq!(series.cursor().epoch, stored.epoch);
    series.acked().unwrap();
    assert_eq!(drain(&mut series), numbers(3..12));
}

#[test]
fn a_torn_end_that_is_counted_as_lost_is_no_line() {
    let mut writer = Writer::new();
    let mut series = Series::new(writer.path(), None);
    writer.line();
    writer.raw("{\"msg\":\"1\",\"str");
    series.look(1).unwrap();
    series.failed(1).unwrap();
    assert_eq!(drain_with_gaps(&mut series), (numbers(0..1), vec![(1, 1)]));
    assert!(series.is_drained().unwrap());
}

#[test]
fn places_go_on_over_gaps_and_the_end_is_reached_with_the_last_line() {
    let (mut writer, mut series) = four_files();
    let end = series.end().unwrap();
    series.give_back(Give::Any).unwrap();
    series.give_back(Give::Any).unwrap();
    assert_eq!(series.end().unwrap(), end, "what is given back moves no place");
    assert_eq!(series.place(), None, "the gap is not told");
    let epoch = series.cursor().epoch;
    assert_eq!(gap(&mut series), 6);
    assert!(series.cursor().epoch > epoch && series.place().unwrap() < end);
    series.look(1).unwrap();
    let third = series.read(false, 1).unwrap().unwrap();
    assert_eq!(texts(&third), numbers(6..9));
    series.acked().unwrap();
    assert!(series.place().unwrap() < end);
    writer.rotate(9);
    writer.line();
    assert_eq!(drain(&mut series), numbers(9..13));
    assert!(series.place().unwrap() > end);
}
