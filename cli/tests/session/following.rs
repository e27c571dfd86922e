//! Lines that are followed: over refusals and silences, with gaps and limits, and how the command ends.

use crate::{
    coordinator::{Reading, Script, Then},
    laptop::{Laptop, Seen, interrupt},
    relay::Relay,
    samples::{ID, failed, good, lines, running, summary},
};
use dora_remote_protocol::{
    dataflow::{DataflowRef, DataflowState},
    log_line::{LogItem, LogLevel},
    refusal::RefusalCode,
};
use std::{
    io::{BufRead, BufReader, Read},
    time::{Duration, SystemTime},
};

const GAP: LogItem = LogItem::Gap {
    lines: 40,
    next_after: 41,
};

fn script(readings: Vec<(Vec<LogItem>, Then)>) -> Script {
    Script {
        on_start: running(),
        dataflows: vec![summary("arm", DataflowState::Running)],
        readings: readings.into_iter().map(|(items, then)| Reading { items, then }).collect(),
        ..Script::default()
    }
}

fn with_a_gap() -> (Vec<LogItem>, Then) {
    (vec![lines(1..2), GAP, lines(42..43)], Then::End)
}

#[test]
fn a_gap_counts_for_followers_that_are_strict() {
    let laptop = Laptop::new();
    let coordinator = laptop.coordinator(script(vec![with_a_gap(); 5]));
    coordinator.end(good());
    let start = |strict: &'static [&'static str]| [&["start", "arm/dataflow.yml"], strict].concat();
    for (line, exit) in [
        (start(&[]), 0),
        (start(&["--strict"]), 10),
        (vec!["logs", "arm", "-f"], 0),
        (vec!["logs", "arm", "-f", "--strict"], 10),
    ] {
        let seen = laptop.run(&coordinator, &line);
        assert_eq!(seen.exit, exit, "{line:?}: {seen:?}");
        assert_eq!(seen.stdout, "cam | line 1\ncam | line 42\n");
        assert!(seen.stderr.contains("40 lines are missing"), "{}", seen.stderr);
    }
    coordinator.end(failed());
    let seen = laptop.run(&coordinator, &start(&["--strict"]));
    assert_eq!(seen.exit, 10, "{seen:?}");
    assert!(seen.stderr.contains("`arm` failed"), "{}", seen.stderr);
}

#[test]
fn missing_lines_are_told_and_change_the_exit_code() {
    let laptop = Laptop::new();
    let gap = LogItem::Gap {
        lines: 40,
        next_after: 41,
    };
    let coordinator = laptop.coordinator(Script {
        readings: [Reading {
            items: vec![lines(1..2), gap, lines(42..43)],
            then: Then::End,
        }]
        .into(),
        ..Script::default()
    });
    let seen = laptop.run(&coordinator, &["logs", "arm", "--node", "cam", "--tail", "9"]);
    assert_eq!(seen.exit, 10, "{seen:?}");
    assert_eq!(seen.stdout, "cam | line 1\ncam | line 42\n");
    assert!(seen.stderr.contains("40 lines are missing"), "{}", seen.stderr);
    let script = coordinator.script();
    assert_eq!((script.asked_logs[0].tail, script.asked_logs[0].follow), (Some(9), false));
}

#[test]
fn a_cut_connection_loses_no_line_and_shows_none_twice() {
    let laptop = Laptop::new();
    let coordinator = laptop.coordinator(Script {
        on_start: running(),
        readings: [
            Reading {
                items: vec![lines(1..4)],
                then: Then::Cut,
            },
            Reading {
                items: vec![lines(3..6)],
                then: Then::End,
            },
        ]
        .into(),
        dataflows: vec![summary("arm", DataflowState::Running)],
        ..Script::default()
    });
    let mut child = laptop.to(&coordinator, &["logs", "arm", "--follow"]).spawn().expect("runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut shown = String::new();
    for _ in 1..4 {
        stdout.read_line(&mut shown).expect("a line");
    }
    coordinator.cut();
    stdout.read_to_string(&mut shown).expect("UTF-8");
    let seen = Seen::from(child.wait_with_output().expect("it ends"));
    assert_eq!(seen.exit, 0, "{seen:?}");
    let expected: String = (1..6).map(|seq| format!("cam | line {seq}\n")).collect();
    assert_eq!(shown, expected);
    let script = coordinator.script();
    assert_eq!(
        script.asked_logs[0].dataflow,
        DataflowRef::Id(ID),
        "the name may mean another dataflow by then"
    );
    assert_eq!(script.asked_logs[1].after, Some(3));
}

#[test]
fn what_is_wanted_is_asked_for_and_machines_are_quiet_unless_asked() {
    let laptop = Laptop::new();
    let coordinator = laptop.coordinator(script(Vec::new()));
    let line = "logs arm --since 1970-01-01T00:00:10Z --until 1970-01-01T00:01:00Z --level info --grep Time --tail 5";
    assert_eq!(laptop.run(&coordinator, &line.split(' ').collect::<Vec<_>>()).exit, 0);
    let asked = coordinator.script().asked_logs.pop().expect("asked");
    assert_eq!((asked.since_unix_ms, asked.until_unix_ms), (Some(10_000), Some(60_000)));
    assert_eq!(
        (asked.level, asked.machine_level),
        (Some(LogLevel::Info), Some(LogLevel::Info))
    );
    assert_eq!((asked.grep.as_deref(), asked.tail), (Some("Time"), Some(5)));

    let before = unix_ms();
    laptop.run(&coordinator, &["logs", "arm", "--since", "2h"]);
    let asked = coordinator.script().asked_logs.pop().expect("asked");
    let since = asked.since_unix_ms.expect("asked for") + 7_200_000;
    assert!((before..=unix_ms()).contains(&since), "{since}");
    assert_eq!((asked.level, asked.machine_level), (None, Some(LogLevel::Warn)));

    coordinator.end(good());
    for (level, expected) in [(&[][..], Some(LogLevel::Warn)), (&["--level", "stdout"], None)] {
        let line = [&["start", "arm/dataflow.yml"], level].concat();
        assert_eq!(laptop.run(&coordinator, &line).exit, 0);
        let asked = coordinator.script().asked_logs.pop().expect("asked");
        assert_eq!((asked.level, asked.machine_level), (None, expected));
    }
    let seen = laptop.run(&coordinator, &["logs", "arm", "-f", "--until", "1h"]);
    assert_eq!(seen.exit, 2, "nothing that comes is old: {seen:?}");
}

#[test]
fn a_follower_that_is_slow_is_told_how_far_it_is_behind() {
    let laptop = Laptop::new();
    let lag = LogItem::Lag {
        lines: 12_000,
        milliseconds: 8_400,
    };
    let reading = (vec![lines(1..2), lag, lines(2..3)], Then::End);
    let coordinator = laptop.coordinator(script(vec![reading.clone(), reading]));
    let seen = laptop.run(&coordinator, &["logs", "arm", "-f"]);
    assert_eq!((seen.exit, seen.stdout.as_str()), (0, "cam | line 1\ncam | line 2\n"));
    assert_eq!(seen.stderr, "12000 lines behind (8s)\n");
    let seen = laptop.run(&coordinator, &["logs", "arm", "-f", "--format", "json"]);
    let lag = r#"{"type":"lag","lines":12000,"milliseconds":8400}"#;
    assert_eq!(seen.stdout.lines().nth(1), Some(lag));
}

#[test]
fn a_coordinator_that_ends_or_is_unwell_is_asked_again_where_the_reader_was() {
    let laptop = Laptop::new();
    let passed = LogItem::Passed { next_after: 9 };
    let coordinator = laptop.coordinator(script(vec![
        (vec![lines(1..4)], Then::Refuse(RefusalCode::ShuttingDown)),
        (
            vec![lines(4..6), passed, LogItem::CaughtUp],
            Then::Refuse(RefusalCode::Internal),
        ),
        (vec![lines(10..11)], Then::End),
    ]));
    let seen = laptop.run(&coordinator, &["logs", "arm", "-f", "--tail", "9", "--since", "1h"]);
    assert_eq!(seen.exit, 0, "{seen:?}");
    let expected: String = (1..6).chain(10..11).map(|seq| format!("cam | line {seq}\n")).collect();
    assert_eq!((seen.stdout, seen.stderr.as_str()), (expected, ""), "short cuts are not told");
    let script = coordinator.script();
    let asked: Vec<_> = script
        .asked_logs
        .iter()
        .map(|asked| (asked.after, asked.tail, asked.since_unix_ms.is_some()))
        .collect();
    assert_eq!(
        asked,
        [(None, Some(9), true), (Some(3), None, true), (Some(9), None, false)],
        "what comes after the past is never old"
    );
}

#[test]
fn what_lasts_ends_a_follower() {
    let laptop = Laptop::new();
    for (code, exit) in [
        (RefusalCode::NotFound, 3),
        (RefusalCode::Denied, 4),
        (RefusalCode::BadRequest, 1),
    ] {
        let coordinator = laptop.coordinator(script(vec![(vec![lines(1..2)], Then::Refuse(code))]));
        let seen = laptop.run(&coordinator, &["logs", "arm", "-f"]);
        assert_eq!(seen.exit, exit, "{seen:?}");
        assert!(seen.stderr.contains("error: not now"), "{}", seen.stderr);
    }
}

/// A second connection is made while the first one is silent: nobody waits until that one is given up, which takes a minute.
#[test]
fn a_silent_connection_is_raced_by_another_one() {
    let laptop = Laptop::new();
    let coordinator = laptop.coordinator(script(vec![
        (vec![lines(1..3)], Then::UntilEnded),
        (vec![lines(3..5)], Then::End),
    ]));
    let relay = Relay::before(&coordinator);
    let mut command = laptop.command(&["logs", "arm", "-f"]);
    let mut child = command
        .env("DORA_REMOTE_ADDR", relay.address.to_string())
        .spawn()
        .expect("runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut shown = String::new();
    for _ in 1..3 {
        stdout.read_line(&mut shown).expect("a line");
    }
    let cut = SystemTime::now();
    relay.mute();
    stdout.read_to_string(&mut shown).expect("UTF-8");
    let took = cut.elapsed().expect("time runs");
    let seen = Seen::from(child.wait_with_output().expect("it ends"));
    assert_eq!(seen.exit, 0, "{seen:?}");
    assert_eq!(shown, (1..5).map(|seq| format!("cam | line {seq}\n")).collect::<String>());
    assert_eq!(coordinator.script().asked_logs[1].after, Some(2));
    assert!(took < Duration::from_secs(20), "it took {took:?}");
}

#[test]
fn an_interrupt_ends_a_follower_that_is_cut_off() {
    let laptop = Laptop::new();
    let coordinator = laptop.coordinator(script(vec![(vec![lines(1..2)], Then::Cut)]));
    let mut child = laptop.to(&coordinator, &["logs", "arm", "-f"]).spawn().expect("runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    stdout.read_line(&mut String::new()).expect("a line");
    drop(coordinator);
    interrupt(child.id());
    let ended = child.wait().expect("it ends");
    assert!(!ended.success(), "{ended:?}");
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("fits")
}
