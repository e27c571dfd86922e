//! Readers of log lines: what they ask for, where they go on, and that a slow one slows nobody.

use super::support::{Daemon, Memory, PATIENCE, Person, Running, World, next, start_running};
use dora_remote_link::Feed;
use dora_remote_protocol::{
    cli_to_coordinator::ReadLogs,
    daemon_to_coordinator::ShipLogs,
    dataflow::DataflowRef,
    ids::DataflowId,
    limits::MAX_GREP_BYTES,
    log_line::{LogBatch, LogItem, LogLevel, LogRecord, LogSource, LogStream},
    refusal::RefusalCode,
};
use uuid::Uuid;

#[tokio::test]
async fn readers_get_what_they_ask_for_and_go_on_where_they_were() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let mut daemon = Daemon::join(&world, running.address, "a", &Memory::new()).await;
    let person = world.person(running.address).await;
    let id = start_running(&person, &mut daemon, 1).await;
    // A clock that is set back, and messages of the machine among the lines.
    ship(&daemon, id, node(), 1..=10, |n| (5_000 + n, None, format!("early {n}"))).await;
    ship(&daemon, id, LogSource::Machine, 1..=2, |n| {
        let level = if n == 1 { LogLevel::Info } else { LogLevel::Warn };
        (5_100, Some(level), format!("machine {n}"))
    })
    .await;
    ship(&daemon, id, node(), 11..=20, |n| (1_000 + n, None, format!("late {n}"))).await;

    let all = ReadLogs::of(DataflowRef::Id(id));
    let asked = |change: fn(&mut ReadLogs)| {
        let mut asked = all.clone();
        change(&mut asked);
        texts(&person, asked)
    };
    assert_eq!(asked(|asked| asked.tail = Some(2)).await, ["late 19", "late 20"]);
    let quiet = asked(|asked| asked.machine_level = Some(LogLevel::Warn)).await;
    assert_eq!((quiet.len(), quiet[10].as_str()), (21, "machine 2"));
    let since = asked(|asked| asked.since_unix_ms = Some(5_010)).await;
    assert_eq!(since, ["early 10", "machine 1", "machine 2"]);
    let until = asked(|asked| (asked.until_unix_ms, asked.tail) = (Some(5_001), Some(11))).await;
    assert_eq!((until[0].as_str(), until.len()), ("early 1", 11));
    let grep = asked(|asked| (asked.grep, asked.tail) = (Some("LATE 1".to_owned()), Some(2))).await;
    assert_eq!(grep, ["late 18", "late 19"]);
    let long = ReadLogs {
        grep: Some("x".repeat(MAX_GREP_BYTES + 1)),
        ..all.clone()
    };
    let refused = next(&mut read(&person, &long).await).await.unwrap_err();
    assert_eq!(refused.code, RefusalCode::BadRequest);

    // A follower to whom nothing was sent knows all the same where it goes on after a cut.
    let mut only_new = ReadLogs {
        tail: Some(0),
        follow: true,
        since_unix_ms: Some(9_000),
        ..all.clone()
    };
    let mut feed = read(&person, &only_new).await;
    assert_eq!(next(&mut feed).await.unwrap(), Some(LogItem::Passed { next_after: 22 }));
    assert_eq!(next(&mut feed).await.unwrap(), Some(LogItem::CaughtUp));
    drop(feed);
    ship(&daemon, id, node(), 21..=21, |n| (2_000, None, format!("during the cut {n}"))).await;
    (only_new.after, only_new.tail, only_new.since_unix_ms) = (Some(22), None, None);
    let mut feed = read(&person, &only_new).await;
    let item = next(&mut feed).await.unwrap();
    assert!(
        matches!(&item, Some(LogItem::Lines(packed)) if packed.lines().unwrap().iter().map(|line| line.seq).eq([23])),
        "{item:?}"
    );
    running.end().await;
}

#[tokio::test]
async fn a_reader_that_stands_still_slows_nobody_and_is_told_its_lag() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let mut daemon = Daemon::join(&world, running.address, "a", &Memory::new()).await;
    let (fast, slow) = (world.person(running.address).await, world.person(running.address).await);
    let id = start_running(&fast, &mut daemon, 1).await;
    let follow = ReadLogs {
        follow: true,
        ..ReadLogs::of(DataflowRef::Id(id))
    };
    let mut stalled = read(&slow, &follow).await;
    assert_eq!(next(&mut stalled).await.unwrap(), Some(LogItem::CaughtUp));
    let mut brisk = read(&fast, &follow).await;

    let shipping = async {
        for batch in 0..BATCHES {
            let offsets = batch * BATCH + 1..=(batch + 1) * BATCH;
            // Nothing to compress: what waits for a reader must not fit into its window.
            ship(&daemon, id, node(), offsets, |n| (n, None, noise(n))).await;
        }
    };
    tokio::join!(shipping, read_all(&mut brisk));

    // Only now does the other one read: it has missed nothing.
    let lags = read_all(&mut stalled).await;
    assert!(!lags.is_empty(), "it was told nothing");
    assert!(lags.iter().all(|lines| *lines < BATCHES * BATCH), "{lags:?}");
    running.end().await;
}

const BATCH: u64 = 2_000;
const BATCHES: u64 = 25;

/// Reads every line in its order; gives the lags that were told.
async fn read_all(feed: &mut Feed<LogItem>) -> Vec<u64> {
    let (mut last, mut lags) = (0, Vec::new());
    while last < BATCHES * BATCH {
        match next(feed).await.unwrap() {
            Some(LogItem::Lines(packed)) => {
                for line in packed.lines().unwrap() {
                    last += 1;
                    assert_eq!(line.seq, last);
                }
            }
            Some(LogItem::Lag { lines, .. }) => lags.push(lines),
            Some(LogItem::CaughtUp) => {}
            other => panic!("{other:?}"),
        }
    }
    lags
}

fn noise(n: u64) -> String {
    format!("line {n} {} {}", Uuid::new_v4(), Uuid::new_v4())
}

fn node() -> LogSource {
    LogSource::Node("n-a".parse().unwrap())
}

/// Ships lines: of each, by its offset, the time, the level and the text.
async fn ship(
    daemon: &Daemon,
    dataflow: DataflowId,
    source: LogSource,
    offsets: std::ops::RangeInclusive<u64>,
    line: impl Fn(u64) -> (u64, Option<LogLevel>, String),
) {
    let record = |offset| {
        let (at_unix_ms, level, text) = line(offset);
        LogRecord {
            offset,
            at_unix_ms,
            stream: LogStream::Stdout,
            level,
            text,
        }
    };
    let batch = LogBatch {
        dataflow,
        source,
        epoch: 1,
        lost_before: 0,
        records: offsets.map(record).collect(),
    };
    daemon.peer.call(&ShipLogs::pack(batch), PATIENCE).await.unwrap();
}

async fn read(person: &Person, asked: &ReadLogs) -> Feed<LogItem> {
    person.peer.feed(asked, None).await.unwrap()
}

/// The texts of all lines of a feed that ends.
async fn texts(person: &Person, asked: ReadLogs) -> Vec<String> {
    let mut feed = read(person, &asked).await;
    let mut texts = Vec::new();
    while let Some(item) = next(&mut feed).await.unwrap() {
        if let LogItem::Lines(packed) = item {
            texts.extend(packed.lines().unwrap().into_iter().map(|line| line.text));
        }
    }
    texts
}
