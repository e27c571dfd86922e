//! Whole commands of the real binary against a scripted coordinator: what is asked, what is shown, how it ends.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod coordinator;
mod following;

use coordinator::{Coordinator, Reading, Script, Then};
use dora_remote_protocol::{
    cli_to_coordinator::DataflowStopped,
    dataflow::{
        DataflowEvent, DataflowRef, DataflowResult, DataflowState, DataflowSummary, FailureCause, Files, LinkLoss, NameWish,
        NodeFailure, NodeState, NodeStatus, PlacedNode,
    },
    ids::{BootId, DataflowId, InstanceId},
    log_line::{LogItem, LogLine, LogSource, LogStream},
    machine::{DiskUse, EngineStatus, LogShipping, MachineFacts, MachineSummary, Quarantine, Reach, Restored},
    packed::Packed,
    refusal::{Changed, Refusal, RefusalCode},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;
use uuid::Uuid;

/// A laptop: a home with an authority, and a dataflow in a folder.
struct Laptop {
    home: TempDir,
}

impl Laptop {
    fn new() -> Self {
        let laptop = Self {
            home: tempfile::tempdir().expect("a home"),
        };
        let authority = laptop.path("authority");
        let made = laptop
            .command(&["certs", "init", "--out", authority.to_str().expect("UTF-8")])
            .output()
            .expect("runs");
        assert!(made.status.success(), "{made:?}");
        let folder = laptop.path("arm");
        fs::create_dir(&folder).expect("made");
        fs::write(folder.join("dataflow.yml"), FLOW).expect("written");
        fs::write(folder.join("cam.py"), "print()").expect("written");
        laptop
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.home.path().join(relative)
    }

    fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dora-remote"));
        command
            .args(line)
            .current_dir(self.home.path())
            .env_clear()
            .env("HOME", self.home.path())
            .env("DORA_REMOTE_IDENTITY", self.path("authority/admin"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn coordinator(&self, script: Script) -> Coordinator {
        Coordinator::start(&self.path("authority"), script)
    }

    fn run(&self, coordinator: &Coordinator, line: &[&str]) -> Seen {
        let output = self.to(coordinator, line).output().expect("runs");
        Seen::from(output)
    }

    fn to(&self, coordinator: &Coordinator, line: &[&str]) -> Command {
        let mut command = self.command(line);
        command.env("DORA_REMOTE_ADDR", coordinator.address.to_string());
        command
    }
}

#[derive(Debug)]
struct Seen {
    exit: i32,
    stdout: String,
    stderr: String,
}

impl From<Output> for Seen {
    fn from(output: Output) -> Self {
        Self {
            exit: output.status.code().expect("no signal"),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

const FLOW: &str = "nodes:\n  - id: cam\n    path: cam.py\n    outputs: [image]\n    env:\n      PRICE: \"5 $$\"\n";
const ID: DataflowId = DataflowId(Uuid::from_u128(7));

fn line(seq: u64) -> LogLine {
    LogLine {
        seq,
        machine: "robot".parse().expect("a name"),
        source: LogSource::Node("cam".parse().expect("a node")),
        stream: LogStream::Stdout,
        level: None,
        at_unix_ms: 1_000 * seq,
        text: format!("line {seq}"),
    }
}

fn lines(seqs: impl Iterator<Item = u64>) -> LogItem {
    LogItem::Lines(Packed::of_lines(&seqs.map(line).collect::<Vec<_>>()))
}

fn placed() -> DataflowEvent {
    DataflowEvent::Placed {
        id: ID,
        name: "arm".parse().expect("a name"),
        nodes: vec![PlacedNode {
            id: "cam".parse().expect("a node"),
            machine: "robot".parse().expect("a name"),
            dynamic: false,
        }],
    }
}

fn running() -> Vec<DataflowEvent> {
    vec![
        placed(),
        DataflowEvent::State(DataflowState::Preparing),
        DataflowEvent::State(DataflowState::Running),
    ]
}

fn good() -> DataflowResult {
    DataflowResult {
        success: true,
        stopped: false,
        failures: Vec::new(),
        note: String::new(),
    }
}

fn failed() -> DataflowResult {
    let failure = NodeFailure {
        node: "cam".parse().expect("a node"),
        machine: "robot".parse().expect("a name"),
        cause: FailureCause::Own {
            stderr: "Traceback\nValueError: 7\n".to_owned(),
        },
        exit: "exit code 1".to_owned(),
    };
    DataflowResult {
        success: false,
        failures: vec![failure],
        ..good()
    }
}

fn summary(name: &str, state: DataflowState) -> DataflowSummary {
    DataflowSummary {
        id: ID,
        name: name.parse().expect("a name"),
        state,
        created_unix_ms: 1_000,
        running_since_unix_ms: Some(2_000),
        ended_unix_ms: None,
        started_by: "spiffe://lab/admin/ann".to_owned(),
        nodes: vec![NodeStatus {
            id: "cam".parse().expect("a node"),
            machine: "robot".parse().expect("a name"),
            state: NodeState::Running,
            pid: Some(77),
        }],
        unreachable: BTreeMap::from([("robot".parse().expect("a name"), 3_000)]),
        result: None,
        link_loss: LinkLoss::StopAfter { silence_ms: 90_000 },
        restored: BTreeMap::from([(
            "arm".parse().expect("a name"),
            Restored {
                unreachable_since_unix_ms: 3_500,
                at_unix_ms: 4_000,
            },
        )]),
    }
}

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
fn the_first_interrupt_stops_the_dataflow_and_waits_for_its_end() {
    let laptop = Laptop::new();
    let coordinator = laptop.coordinator(Script {
        on_start: running(),
        readings: [Reading {
            items: vec![lines(1..2)],
            then: Then::UntilEnded,
        }]
        .into(),
        on_stop: Some(Ok(DataflowStopped {
            id: ID,
            name: "arm".parse().expect("a name"),
            result: DataflowResult { stopped: true, ..good() },
        })),
        ..Script::default()
    });
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
    let coordinator = laptop.coordinator(Script {
        on_start: running(),
        readings: [Reading {
            items: vec![lines(1..2)],
            then: Then::UntilEnded,
        }]
        .into(),
        // The stop fails, so that the dataflow goes on.
        on_stop: Some(Err(Refusal::new(RefusalCode::Busy, "too much to do"))),
        ..Script::default()
    });
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
fn what_is_listed_has_a_stable_form_for_programs() {
    let laptop = Laptop::new();
    let machine = MachineSummary {
        name: "robot".parse().expect("a name"),
        facts: MachineFacts {
            labels: BTreeMap::from([("gpu".to_owned(), "true".to_owned())]),
            build: "0.1.0".to_owned(),
            platform: "linux x86_64".to_owned(),
            logs: LogShipping::OnDemand,
            engine: EngineStatus::Down {
                reason: "killed by signal 9".to_owned(),
            },
        },
        reach: Reach::Unreachable { since_unix_ms: 5_000 },
        last_heard_unix_ms: 5_000,
        address: "192.0.2.7:4711".to_owned(),
        rtt_us: None,
        mtu: None,
        black_holes: 0,
        dataflows: vec![ID],
        disk: Some(DiskUse {
            free_bytes: 9,
            free_bytes_min: 8,
            log_bytes: 7,
            log_bytes_max: 6,
            ended_bytes: 5,
            ended_bytes_max: 4,
            bundle_bytes: 3,
            store_bytes: 2,
        }),
        quarantined: vec![Quarantine {
            instance: InstanceId(Uuid::from_u128(8)),
            boot: BootId(Uuid::from_u128(9)),
            address: "192.0.2.8:4711".to_owned(),
            at_unix_ms: 6_000,
            tries: 3,
        }],
        restored: Some(Restored {
            unreachable_since_unix_ms: 1_000,
            at_unix_ms: 2_000,
        }),
    };
    let mut ended = summary("old", DataflowState::Failed);
    ended.result = Some(failed());
    let coordinator = laptop.coordinator(Script {
        dataflows: vec![ended, summary("arm", DataflowState::Running)],
        machines: vec![machine],
        ..Script::default()
    });
    insta::assert_snapshot!("list_json", laptop.run(&coordinator, &["list", "--format", "json"]).stdout);
    insta::assert_snapshot!(
        "machines_json",
        laptop.run(&coordinator, &["machines", "--format", "json"]).stdout
    );
    let told = laptop.run(&coordinator, &["machines"]).stderr;
    assert!(
        told.contains("another machine with the identity of `robot` was refused") && told.contains("from 192.0.2.8:4711)"),
        "{told}"
    );
    let table = laptop.run(&coordinator, &["list"]).stdout;
    assert!(table.starts_with("NAME  STATE    NODES  MACHINES  STARTED"), "{table}");
    assert!(table.contains("robot unreachable since"), "{table}");
    let quiet = laptop.run(&coordinator, &["list", "-q"]).stdout;
    assert_eq!(quiet, format!("{ID}\n{ID}\n"));
    let status = laptop.run(&coordinator, &["status"]).stdout;
    assert!(status.contains("machines     2 connected, 1 unreachable\n"), "{status}");
}

#[test]
fn without_a_name_the_only_dataflow_is_meant() {
    let laptop = Laptop::new();
    let stopped = DataflowStopped {
        id: ID,
        name: "arm".parse().expect("a name"),
        result: good(),
    };
    let coordinator = laptop.coordinator(Script {
        dataflows: vec![
            summary("old", DataflowState::Finished),
            summary("arm", DataflowState::Running),
        ],
        on_stop: Some(Ok(stopped)),
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
fn a_person_is_asked_before_several_dataflows_are_stopped_and_a_program_is_not() {
    if !PathBuf::from(SCRIPT).exists() {
        return;
    }
    let laptop = Laptop::new();
    let stopped = DataflowStopped {
        id: ID,
        name: "arm".parse().expect("a name"),
        result: good(),
    };
    let coordinator = laptop.coordinator(Script {
        dataflows: vec![summary("arm", DataflowState::Running), summary("leg", DataflowState::Running)],
        on_stop: Some(Ok(stopped)),
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
fn a_viewer_may_not_stop_and_is_told_so() {
    let laptop = Laptop::new();
    let coordinator = laptop.coordinator(Script::default());
    let issue = [
        "certs",
        "issue",
        "--authority",
        "authority",
        "--role",
        "viewer",
        "--name",
        "vic",
        "--out",
        "vic",
    ];
    assert!(laptop.command(&issue).output().expect("runs").status.success());
    let seen = laptop.run(&coordinator, &["stop", "arm", "--identity", "vic"]);
    assert_eq!(seen.exit, 4, "{seen:?}");
    assert!(seen.stderr.contains("nothing was changed"), "{}", seen.stderr);
}

#[test]
fn an_identity_of_another_authority_is_a_certificate_failure() {
    let laptop = Laptop::new();
    let coordinator = laptop.coordinator(Script::default());
    assert!(
        laptop
            .command(&["certs", "init", "--out", "other"])
            .output()
            .expect("runs")
            .status
            .success()
    );
    let seen = laptop.run(&coordinator, &["list", "--identity", "other/admin"]);
    assert_eq!(seen.exit, 6, "{seen:?}");
    assert!(seen.stderr.contains("authority that we do not know"), "{}", seen.stderr);
}

fn interrupt(pid: u32) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGINT).expect("sent");
}
