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
/// Lives of the writer.
const LIVES: u64 = 25;
const CAPS: Caps = Caps {
    total_bytes: 1 << 30,
    per_dataflow_bytes: 1 << 30,
};

#[test]
fn what_was_acknowledged_survives_a_writer_that_is_killed() {
    if let Some(file) = env::var_os(FILE) {
        let first = env::var(FIRST).unwrap().parse().unwrap();
        write_until_killed(Path::new(&file), first);
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("logs.redb");
    let seed = u64::from(std::process::id());
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
        acked = acked.max(one_life(&file, first, answers, pause));
    }
    let store = LogStore::open(&file, CAPS).unwrap();
    let found = numbers(&store);
    assert!(
        acked > 0 && found.len() as u64 >= acked,
        "seed {seed}: {} of {acked}",
        found.len()
    );
    for (expected, number) in (1..).zip(&found) {
        assert_eq!(*number, expected, "seed {seed}: lines are whole and in order");
    }
    assert_eq!(store.last_seq(flow()).unwrap(), found.len() as u64);
}

/// Lets a writer live until it has acknowledged so often, and a little longer. Returns the last line that it acknowledged.
fn one_life(file: &Path, first: u64, answers: u64, pause: Duration) -> u64 {
    let mut child = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "what_was_acknowledged_survives_a_writer_that_is_killed",
            "--nocapture",
        ])
        .env(FILE, file)
        .env(FIRST, first.to_string())
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
fn write_until_killed(file: &Path, mut first: u64) -> ! {
    let store = LogStore::open(file, CAPS).unwrap();
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

/// The numbers of all lines in the store.
fn numbers(store: &LogStore) -> Vec<u64> {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let page = store.read(flow(), after, &Filter::default(), 1 << 20).unwrap();
        for item in page.items {
            let LogItem::Lines(lines) = item else {
                panic!("nothing is missing: {item:?}");
            };
            let lines = lines.lines().unwrap();
            found.extend(
                lines
                    .iter()
                    .map(|line| line.text.split(' ').nth(1).unwrap().parse::<u64>().unwrap()),
            );
        }
        after = page.next_after;
        if page.at_end {
            return found;
        }
    }
}
