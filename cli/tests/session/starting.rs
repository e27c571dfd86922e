//! Dataflows that are started: what travels to the coordinator, and how the command ends.

use crate::{
    coordinator::{Reading, Script, Then},
    laptop::{Laptop, Seen},
    samples::{ID, failed, good, lines, placed, running},
};
use dora_remote_protocol::{
    dataflow::{Files, NameWish},
    log_line::LogItem,
    refusal::{Refusal, RefusalCode},
};
use std::path::PathBuf;

#[test]
fn start_brings_the_folder_follows_the_logs_and_ends_as_the_dataflow_ends() {
    let laptop = Laptop::new();
    let coordinator = laptop.coordinator(Script {
        on_start: running(),
        readings: [Reading {
            items: vec![lines(1..3), LogItem::CaughtUp, lines(3..4)],
            then: Then::End,
        }]
        .into(),
        ..Script::default()
    });
    coordinator.end(good());
    let seen = laptop.run(&coordinator, &["start", "arm/dataflow.yml"]);
    assert_eq!(seen.exit, 0, "{seen:?}");
    assert_eq!(seen.stdout, "cam | line 1\ncam | line 2\ncam | line 3\n");
    assert!(
        seen.stderr.contains("  robot: cam\n") && seen.stderr.contains("`arm` finished"),
        "{}",
        seen.stderr
    );

    let script = coordinator.script();
    let spec = &script.asked_start[0].spec;
    assert_eq!(spec.name, NameWish::Like("arm".parse().expect("a name")));
    assert!(
        spec.descriptor.contains("5 $$"),
        "dollars stay doubled on the way: {}",
        spec.descriptor
    );
    assert_eq!(spec.nodes.len(), 1);
    let Files::Bundle(bundle) = spec.files else {
        panic!("the folder travels")
    };
    assert_eq!(blake3::hash(&script.bundles[0]).as_bytes(), &bundle.hash.0);
    let mut archive = tar::Archive::new(zstd::Decoder::new(script.bundles[0].as_slice()).expect("zstd"));
    let paths: Vec<_> = archive
        .entries()
        .expect("tar")
        .map(|entry| entry.expect("one").path().expect("a path").into_owned())
        .collect();
    assert_eq!(paths, [PathBuf::from("cam.py"), "dataflow.yml".into()]);
}

#[test]
fn files_that_the_coordinator_has_are_not_sent_again() {
    let laptop = Laptop::new();
    let coordinator = laptop.coordinator(Script {
        on_start: running(),
        ..Script::default()
    });
    for _ in 0..2 {
        let seen = laptop.run(&coordinator, &["start", "arm/dataflow.yml", "--detach"]);
        assert_eq!(
            (seen.exit, seen.stdout.as_str()),
            (0, format!("{ID}\n").as_str()),
            "{}",
            seen.stderr
        );
        assert!(seen.stderr.contains("started arm on robot"), "{}", seen.stderr);
    }
    assert_eq!(coordinator.script().bundles.len(), 1);
}

#[test]
fn files_on_the_machine_need_no_bundle() {
    let laptop = Laptop::new();
    let coordinator = laptop.coordinator(Script {
        on_start: running(),
        ..Script::default()
    });
    let line = [
        "start",
        "arm/dataflow.yml",
        "--detach",
        "--working-dir",
        "/srv/arm",
        "--name",
        "left",
        "--machine",
        "robot",
    ];
    assert_eq!(laptop.run(&coordinator, &line).exit, 0);
    let script = coordinator.script();
    let spec = &script.asked_start[0].spec;
    assert_eq!(spec.files, Files::OnMachine("/srv/arm".to_owned()));
    assert_eq!(spec.name, NameWish::Exactly("left".parse().expect("a name")));
    assert_eq!(
        spec.default_machine.as_ref().map(ToString::to_string).as_deref(),
        Some("robot")
    );
    assert!(script.bundles.is_empty());
}

#[test]
fn the_machine_of_the_context_is_the_default_one_of_a_start() {
    let laptop = Laptop::new();
    let coordinator = laptop.coordinator(Script {
        on_start: running(),
        ..Script::default()
    });
    let address = coordinator.address.to_string();
    let add = ["context", "add", "lab", "--coordinator-addr", &address, "--machine", "robot"];
    assert!(laptop.command(&add).output().expect("runs").status.success());
    for (machine, wanted) in [(&[][..], "robot"), (&["--machine", "other"], "other")] {
        let line = [&["start", "arm/dataflow.yml", "--detach"], machine].concat();
        let seen = Seen::from(laptop.command(&line).output().expect("runs"));
        assert_eq!(seen.exit, 0, "{seen:?}");
        let asked = coordinator.script().asked_start.pop().expect("asked");
        assert_eq!(asked.spec.default_machine.as_ref().map(|name| name.as_str()), Some(wanted));
    }
}

#[test]
fn a_dataflow_that_fails_ends_the_command_with_its_own_code() {
    let laptop = Laptop::new();
    let coordinator = laptop.coordinator(Script {
        on_start: running(),
        ..Script::default()
    });
    coordinator.end(failed());
    let seen = laptop.run(&coordinator, &["start", "arm/dataflow.yml", "--format", "json"]);
    assert_eq!(seen.exit, 9, "{seen:?}");
    assert!(
        seen.stderr
            .contains("node `cam` on `robot` failed (exit code 1):\n    Traceback\n    ValueError: 7"),
        "{}",
        seen.stderr
    );
    let types: Vec<_> = seen
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("one object per line")["type"].clone())
        .collect();
    assert_eq!(types, ["placed", "state", "state", "result"]);
}

#[test]
fn a_start_that_fails_on_a_machine_ends_as_a_failed_dataflow() {
    let laptop = Laptop::new();
    let coordinator = laptop.coordinator(Script {
        on_start: vec![placed()],
        refuse_start: Some(Refusal::new(
            RefusalCode::SpawnFailed,
            "machine `robot`: node `cam` cannot be started",
        )),
        ..Script::default()
    });
    for line in [&["start", "arm/dataflow.yml"][..], &["start", "arm/dataflow.yml", "--detach"]] {
        let seen = laptop.run(&coordinator, line);
        assert_eq!(seen.exit, 9, "{seen:?}");
        assert!(
            seen.stderr.contains("error: machine `robot`: node `cam` cannot be started"),
            "{}",
            seen.stderr
        );
    }
}

#[test]
fn refusals_are_shown_in_the_words_of_the_coordinator() {
    let laptop = Laptop::new();
    let refusal = Refusal::new(
        RefusalCode::PlacementAmbiguous,
        "node `cam` names no machine, and 2 are connected",
    )
    .hint("use `--machine NAME`");
    let coordinator = laptop.coordinator(Script {
        refuse_start: Some(refusal),
        ..Script::default()
    });
    let seen = laptop.run(&coordinator, &["start", "arm/dataflow.yml"]);
    assert_eq!(seen.exit, 2);
    assert_eq!(
        seen.stderr,
        "error: node `cam` names no machine, and 2 are connected\n\nhint: use `--machine NAME`; nothing was changed\n"
    );
}
