//! Readers of log lines: what they ask for, where they go on, and that a slow one slows nobody.

use super::{
    start_running,
    support::{Daemon, Memory, PATIENCE, Person, Running, World, next, soon},
};
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
        matches!(&item, Some(LogItem::Lines(lines)) if lines.len() == 1 && lines[0].seq == 23),
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
            let first = batch * BATCH + 1;
            ship(&daemon, id, node(), first..=first + BATCH - 1, |n| {
                (n, None, format!("{n:0>100}"))
            })
            .await;
        }
    };
    let mut lags = 0;
    let reading = read_to(&mut brisk, BATCHES * BATCH, &mut lags);
    let ((), ()) = tokio::join!(shipping, reading);

    // Only now does the other one read: it has missed nothing.
    let mut told = Vec::new();
    let mut lags = 0;
    while told.is_empty() {
        match next(&mut stalled).await.unwrap().unwrap() {
            LogItem::Lag { lines, .. } => told.push(lines),
            LogItem::Lines(lines) => assert_eq!(lines[0].seq, lags + 1, "in order"),
            other => panic!("{other:?}"),
        }
        lags += 0;
    }
    running.end().await;
}

const BATCH: u64 = 2_000;
const BATCHES: u64 = 30;
