//! Dataflows that are stopped: by an interrupt or by a command, which of them is meant, and what is asked before.

use crate::{
    coordinator::{Coordinator, Reading, Script, Then},
    laptop::{Laptop, Seen, interrupt},
    samples::{ID, good, lines, running, summary},
};
use dora_remote_protocol::{
    cli_to_coordinator::DataflowStopped,
    dataflow::{DataflowRef, DataflowResult, DataflowState},
    refusal::{Changed, Refusal, RefusalCode},
};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::Command,
};

#[test]
fn the_first_interrupt_stops_the_dataflow_and_waits_for_its_end() {
    let laptop = Laptop::new();
    let stopped = DataflowResult { stopped: true, ..good() };
    let coordinator = laptop.coordinator(endless(Ok(stopped_with(stopped))));
    let mut child = laptop.to(&coordinator, &["start", "arm/dataflow.yml"]).spawn().expect("runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut first = String::new();
    stdout.read_line(&mut first).expect("a line");
    assert_eq!(first, "cam | line 1\n");
    interrupt(child.id());
    let seen = Seen::from(child.wait_with_output().expect("it ends"));
    assert_eq!(seen.exit, 0, "{seen:?}");
    assert!(
        seen.stderr.contains("`arm` finished after it was asked to stop"),
        "{}",
        seen.stderr
    );
    assert_eq!(coordinator.script().asked_stop[0].dataflow, DataflowRef::Id(ID));
}

#[test]
fn the_second_interrupt_leaves() {
    let laptop = Laptop::new();
    // The stop fails, so that the dataflow goes on.
    let busy = Refusal::new(RefusalCode::Busy, "too much to do");
    let coordinator = laptop.coordinator(endless(Err(busy)));
    let mut child = laptop.to(&coordinator, &["start", "arm/dataflow.yml"]).spawn().expect("runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    stdout.read_line(&mut String::new()).expect("a line");
    interrupt(child.id());
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut told = String::new();
    while !told.contains("too much to do") {
        assert_ne!(stderr.read_line(&mut told).expect("it goes on"), 0, "{told}");
    }
    interrupt(child.id());
    stderr.read_to_string(&mut told).expect("UTF-8");
    assert_eq!(child.wait().expect("it ends").code(), Some(130), "{told}");
    assert!(told.contains("`dora-remote logs arm --follow` follows it again"), "{told}");
}

#[test]
fn without_a_name_the_only_dataflow_is_meant() {
    let laptop = Laptop::new();
    let coordinator = laptop.coordinator(Script {
        dataflows: vec![
            summary("old", DataflowState::Finished),
            summary("arm", DataflowState::Running),
        ],
        on_stop: Some(Ok(stopped_with(good()))),
        ..Script::default()
    });
    assert_eq!(laptop.run(&coordinator, &["stop"]).exit, 0);
    assert_eq!(coordinator.script().asked_stop[0].dataflow, DataflowRef::Id(ID));
    coordinator.script().dataflows.push(summary("other", DataflowState::Running));
    let seen = laptop.run(&coordinator, &["stop"]);
    assert_eq!(seen.exit, 2);
    assert!(
        seen.stderr.contains("several dataflows are running: `arm` and `other`"),
        "{}",
        seen.stderr
    );
    coordinator.script().dataflows.clear();
    assert_eq!(laptop.run(&coordinator, &["stop"]).exit, 3);
}

#[test]
fn a_stop_that_reaches_a_part_is_told_apart() {
    let laptop = Laptop::new();
    let refusal = Refusal::new(
        RefusalCode::MachineUnreachable,
        "machine `robot` cannot be reached; the stop waits for it",
    )
    .changed(Changed::Partly);
    let coordinator = laptop.coordinator(Script {
        on_stop: Some(Err(refusal)),
        ..Script::default()
    });
    let seen = laptop.run(&coordinator, &["stop", "arm"]);
    assert_eq!(seen.exit, 8);
    assert!(seen.stderr.contains("it was done in part"), "{}", seen.stderr);
}

#[test]
fn a_person_is_asked_before_several_dataflows_are_stopped_and_a_program_is_not() {
    if !PathBuf::from(SCRIPT).exists() {
        return;
    }
    let laptop = Laptop::new();
    let coordinator = laptop.coordinator(Script {
        dataflows: vec![summary("arm", DataflowState::Running), summary("leg", DataflowState::Running)],
        on_stop: Some(Ok(stopped_with(good()))),
        ..Script::default()
    });
    for (line, typed, exit, asks, stops) in [
        ("stop --all", "no\n", 1, true, 0),
        ("stop --all", "", 1, true, 0),
        ("stop --all", "2\n", 0, true, 2),
        ("stop --all --yes", "", 0, false, 2),
    ] {
        coordinator.script().asked_stop.clear();
        let (seen_exit, seen) = on_a_terminal(&laptop, &coordinator, line, typed);
        assert_eq!(seen_exit, exit, "{line} {typed:?}: {seen}");
        assert_eq!(seen.contains("this stops 2 dataflows"), asks, "{seen}");
        assert!(seen.contains(&format!("coordinator {}", coordinator.address)), "{seen}");
        assert_eq!(seen.contains("not confirmed"), exit == 1, "{seen}");
        assert_eq!(coordinator.script().asked_stop.len(), stops, "{line} {typed:?}: {seen}");
    }
    coordinator.script().asked_stop.clear();
    let seen = laptop.run(&coordinator, &["stop", "--all"]);
    assert_eq!((seen.exit, coordinator.script().asked_stop.len()), (0, 2), "{seen:?}");
    assert!(!seen.stderr.contains("coordinator"), "programs are not told: {seen:?}");
    coordinator.script().dataflows.pop();
    let (exit, seen) = on_a_terminal(&laptop, &coordinator, "stop --all", "");
    assert!(exit == 0 && !seen.contains("this stops"), "one is not several: {seen}");
}

/// A dataflow that has printed one line and goes on until it is stopped.
fn endless(on_stop: Result<DataflowStopped, Refusal>) -> Script {
    Script {
        on_start: running(),
        readings: [Reading {
            items: vec![lines(1..2)],
            then: Then::UntilEnded,
        }]
        .into(),
        on_stop: Some(on_stop),
        ..Script::default()
    }
}

fn stopped_with(result: DataflowResult) -> DataflowStopped {
    DataflowStopped {
        id: ID,
        name: "arm".parse().expect("a name"),
        result,
    }
}

/// Makes a terminal for the command line, and shows what a person sees there.
fn on_a_terminal(laptop: &Laptop, coordinator: &Coordinator, line: &str, typed: &str) -> (i32, String) {
    let typed_at = laptop.path("typed");
    fs::write(&typed_at, typed).expect("written");
    let plain = laptop.to(coordinator, &[]);
    let output = Command::new(SCRIPT)
        .args(["-qec", &format!("{} {line}", env!("CARGO_BIN_EXE_dora-remote")), "/dev/null"])
        .env_clear()
        .envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(fs::File::open(typed_at).expect("there"))
        .output()
        .expect("runs");
    let seen = Seen::from(output);
    (seen.exit, seen.stdout)
}

/// `script(1)` of util-linux; the test is left out where there is none.
const SCRIPT: &str = "/usr/bin/script";
