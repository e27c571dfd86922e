//! What was packed comes back, in few bytes; what nobody packed is an error, and never takes more memory than was said.

use super::*;
use crate::{
    limits::LOG_BATCH_LINES,
    log_line::{LogLevel, LogSource, LogStream},
};
use proptest::{collection::vec, prelude::*};

fn record(offset: u64, text: String) -> LogRecord {
    LogRecord {
        offset,
        at_unix_ms: 1_790_000_000_000 + offset / 3_000,
        stream: LogStream::Stdout,
        level: None,
        text,
    }
}

fn line(record: &LogRecord, seq: u64) -> LogLine {
    LogLine {
        seq,
        machine: "robot".parse().unwrap(),
        source: LogSource::Node("ticker".parse().unwrap()),
        stream: record.stream,
        level: record.level,
        at_unix_ms: record.at_unix_ms,
        text: record.text.clone(),
    }
}

/// A flood: 24 characters and their end, each line with a number and a time of its own.
fn flood(count: u64) -> Vec<LogRecord> {
    let text = |number: u64| format!("tick {number:07} at {:08}", 51_234_567 + number / 22);
    (1..=count).map(|number| record(number * 151, text(number))).collect()
}

#[test]
fn a_flood_takes_few_bytes() {
    for (count, most) in [(LOG_BATCH_LINES as u64, 7), (1_000, 7), (100, 9)] {
        let records = flood(count);
        let packed = Packed::of_records(&records);
        let bytes = packed.bytes.0.len() as u64;
        assert!(bytes <= most * count, "{bytes} bytes for {count} lines");
        assert_eq!(packed.records().unwrap(), records);
        let lines: Vec<_> = records.iter().zip(9..).map(|(record, seq)| line(record, seq)).collect();
        let packed = Packed::of_lines(&lines);
        assert!(packed.bytes.0.len() as u64 <= most * count);
        assert_eq!(packed.lines().unwrap(), lines);
    }
}

#[test]
fn nothing_and_little_are_not_compressed() {
    let empty = Packed::of_records(&[]);
    assert_eq!((empty.last, empty.raw_bytes, empty.records().unwrap()), (0, 0, vec![]));
    let one = Packed::of_records(&flood(1));
    assert_eq!((one.last, one.raw_bytes), (151, 0));
    assert!(one.bytes.0.len() < 40, "{one:?}");
}

#[test]
fn what_becomes_too_long_is_refused_before_it_is_unpacked() {
    let bomb = Packed {
        last: 0,
        raw_bytes: u32::MAX,
        bytes: Chunk(zstd::bulk::compress(&vec![0; 64 << 20], LEVEL).unwrap()),
    };
    assert_eq!(
        bomb.records(),
        Err(PackError::TooLong {
            bytes: u32::MAX as usize
        })
    );
    let liar = Packed {
        raw_bytes: 1_000,
        ..bomb
    };
    assert_eq!(liar.records(), Err(PackError::Zstd));
    let many = Packed::of_records(&flood(LOG_BATCH_LINES as u64 + 1));
    assert_eq!(many.records(), Err(PackError::Column { column: "lines" }));
}

#[test]
fn another_last_number_is_refused() {
    let packed = Packed::of_records(&flood(3));
    let other = Packed { last: 1, ..packed };
    assert_eq!(other.records(), Err(PackError::Column { column: "numbers" }));
}

fn any_line() -> impl Strategy<Value = LogLine> {
    let levels = vec![
        None,
        Some(LogLevel::Error),
        Some(LogLevel::Warn),
        Some(LogLevel::Info),
        Some(LogLevel::Debug),
        Some(LogLevel::Trace),
    ];
    let streams = vec![LogStream::Stdout, LogStream::Stderr, LogStream::Message];
    let sources = prop_oneof![
        "[a-z]{1,3}".prop_map(|node| LogSource::Node(node.parse().unwrap())),
        Just(LogSource::Machine),
        Just(LogSource::Build),
    ];
    let numbers = any::<(u64, u64)>();
    let kind = (prop::sample::select(streams), prop::sample::select(levels));
    (numbers, kind, "[a-z]{1,2}", sources, ".{0,40}").prop_map(|((seq, at_unix_ms), (stream, level), machine, source, text)| {
        LogLine {
            seq,
            machine: machine.parse().unwrap(),
            source,
            stream,
            level,
            at_unix_ms,
            text,
        }
    })
}

proptest! {
    #[test]
    fn any_lines_come_back(lines in vec(any_line(), 0..60)) {
        let packed = Packed::of_lines(&lines);
        prop_assert_eq!(packed.last, lines.last().map_or(0, |line| line.seq));
        prop_assert_eq!(packed.lines().unwrap(), lines);
    }

    #[test]
    fn changed_bytes_are_lines_or_an_error(
        lines in vec(any_line(), 1..20),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        plain in any::<bool>(),
    ) {
        let mut packed = if plain {
            Packed { last: lines.last().unwrap().seq, raw_bytes: 0, bytes: Chunk(columns::write(&lines)) }
        } else {
            Packed::of_lines(&lines)
        };
        let at = at.index(packed.bytes.0.len());
        packed.bytes.0[at] ^= byte;
        if let Ok(read) = packed.lines() {
            prop_assert!(read.len() <= LOG_BATCH_LINES);
        }
        packed.bytes.0.truncate(at);
        prop_assert!(packed.lines().is_err(), "torn bytes");
        let _ = packed.records();
    }

    #[test]
    fn any_bytes_are_lines_or_an_error(last in any::<u64>(), bytes in vec(any::<u8>(), 0..300)) {
        let packed = Packed { last, raw_bytes: 0, bytes: Chunk(bytes) };
        let _ = (packed.lines(), packed.records());
    }
}
