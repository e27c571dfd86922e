//! Files as dora writes and rotates them.

use super::*;
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
    let lines = series.read(false, 1).unwrap().unwrap();
    assert_eq!((lines.lost_before, texts(&lines)), (1, numbers(3..4)));
    assert_eq!(series.cursor().epoch, 50);
    series.acked().unwrap();
    assert_eq!(drain(&mut series), numbers(4..5));
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
