//! A writer that is killed at any point: what it acknowledged is there, once, and in order.

#![expect(clippy::unwrap_used, reason = "helpers of tests stand outside of test functions")]

use dora_remote_logstore::{Caps, Filter, LogStore};
use dora_remote_protocol::{
    ids::DataflowId,
    log_line::{LogBatch, LogItem, LogRecord, LogSource, LogStream},
};
use std::{
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Set in the process that writes: the store's file.
const FILE: &str = "DORA_REMOTE_TEST_STORE";
/// The first line that it writes.
const FIRST: &str = "DORA_REMOTE_TEST_FIRST_LINE";
/// Bytes that the store may hold.
const CAP: &str = "DORA_REMOTE_TEST_CAP";
/// Chance of a former run, to have it again.
const SEED: &str = "DORA_REMOTE_TEST_SEED";
/// Lives of the writer.
const LIVES: u64 = 25;

#[test]
fn what_was_acknowledged_survives_a_writer_that_is_killed() {
    let (found, gone, _) = written_by_the_killed("what_was_acknowledged_survives_a_writer_that_is_killed", 1 << 30);
    assert_eq!((found.first(), gone), (Some(&1), 0));
}

#[test]
fn what_was_evicted_is_counted_though_the_writer_is_killed() {
    let cap = 6_000;
    let (found, gone, bytes) = written_by_the_killed("what_was_evicted_is_counted_though_the_writer_is_killed", cap);
    assert!(
        gone > 0 && found.first() == Some(&(gone + 1)),
        "{gone} gone, then {:?}",
        found.first()
    );
    assert!(bytes <= cap, "{bytes} bytes");
}

/// Has a writer killed at many points. Returns the lines that are there then, how many are gone before them, and what they take.
#[expect(clippy::print_stderr, reason = "a failure can only be repeated with its seed")]
fn written_by_the_killed(test: &str, cap: u64) -> (Vec<u64>, u64, u64) {
    if let Some(file) = env::var_os(FILE) {
        let number = |name: &str| env::var(name).unwrap().parse().unwrap();
        write_until_killed(Path::new(&file), number(FIRST), number(CAP));
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("logs.redb");
    let seed = env::var(SEED).map_or_else(|_| u64::from(std::process::id()), |seed| seed.parse().unwrap());
    eprintln!("the killed writer: {SEED}={seed}");
    let mut random = seed;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut acked = 0_u64;
    for _ in 0..LIVES {
        // What was not acknowledged is sent again, and some of what was.
        let first = acked.saturating_sub(next(30)) + 1;
        let (answers, pause) = (next(12), Duration::from_micros(next(4_000)));
        let variables = [(FIRST, first), (CAP, cap)];
        acked = acked.max(one_life(test, &file, variables, answers, pause));
    }
    let store = LogStore::open(&file, caps(cap)).unwrap();
    let (found, gone) = numbers(&store);
    let last = gone + found.len() as u64;
    assert!(acked > 0 && last >= acked, "{last} of {acked}");
    for (expected, number) in (gone + 1..).zip(&found) {
        assert_eq!(*number, expected, "lines are whole and in order");
    }
    assert_eq!(store.last_seq(flow()).unwrap(), last);
    let bytes = store.bytes().unwrap();
    store.forget(flow()).unwrap();
    assert_eq!(store.bytes().unwrap(), 0, "no byte is counted twice");
    (found, gone, bytes)
}

const fn caps(bytes: u64) -> Caps {
    Caps {
        total_bytes: 1 << 30,
        per_dataflow_bytes: bytes,
    }
}

/// Lets a writer live until it has acknowledged so often, and a little longer. Returns the last line that it acknowledged.
fn one_life(test: &str, file: &Path, variables: [(&str, u64); 2], answers: u64, pause: Duration) -> u64 {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(FILE, file)
        .envs(variables.map(|(name, value)| (name, value.to_string())))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let told = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = told.filter_map(|line| line.ok()?.strip_prefix("acked ")?.parse::<u64>().ok());
    let acked = told.by_ref().take(usize::try_from(answers).unwrap()).last();
    let until = Instant::now() + pause;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    told.last().or(acked).unwrap_or(0)
}

/// Appends batches and says which are stored.
fn write_until_killed(file: &Path, mut first: u64, cap: u64) -> ! {
    let store = LogStore::open(file, caps(cap)).unwrap();
    let mut out = io::stdout();
    out.write_all(b"\n").unwrap();
    loop {
        let last = first + first % 40;
        let record = |number: u64| LogRecord {
            offset: number,
            at_unix_ms: number,
            stream: LogStream::Stdout,
            level: None,
            text: format!("line {number} {}", "x".repeat(300)),
        };
        let batch = LogBatch {
            dataflow: flow(),
            source: LogSource::Node("n".parse().unwrap()),
            epoch: 1,
            lost_before: 0,
            records: (first..=last).map(record).collect(),
        };
        store.append(&[("m".parse().unwrap(), batch)]).unwrap();
        // Whoever listened may have gone, and this process goes next.
        let _ = out.write_all(format!("acked {last}\n").as_bytes());
        first = last + 1;
    }
}

fn flow() -> DataflowId {
    DataflowId(Uuid::from_u128(7))
}

/// The numbers of all lines in the store, and how many are gone before them.
fn numbers(store: &LogStore) -> (Vec<u64>, u64) {
    let (mut found, mut gone, mut after) = (Vec::new(), 0, 0);
    loop {
        let page = store.read(flow(), after, &Filter::default(), 1 << 20).unwrap();
        for item in page.items {
            let lines = match item {
                LogItem::Lines(lines) => lines.lines().unwrap(),
                LogItem::Gap { lines, .. } if found.is_empty() => {
                    gone += lines;
                    continue;
                }
                other => panic!("nothing is missing: {other:?}"),
            };
            found.extend(
                lines
                    .iter()
                    .map(|line| line.text.split(' ').nth(1).unwrap().parse::<u64>().unwrap()),
            );
        }
        after = page.next_after;
        if page.at_end {
            return (found, gone);
        }
    }
}
