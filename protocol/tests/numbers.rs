//! Pinned numbers: the index on the wire of every variant of every enum, and the table of who may ask what.
//!
//! postcard writes an enum as the index of its variant, so reordering or removing a variant silently changes the language.
//! Variants are only ever added at the end; then a line is added here.

#![expect(clippy::expect_used, reason = "helpers of tests stand outside of test functions")]

use dora_remote_protocol::{
    access::{InviteState, RevokeTarget},
    agent_to_engine::{AgentFrame, ENGINE_VERSIONS, EngineOrder},
    audit::AuditItem,
    dataflow::{
        DataflowEvent, DataflowRef, DataflowResult, DataflowState, FailureCause, Files, LinkLoss, NameWish, NodeState, NodeStatus,
    },
    engine_to_agent::{EngineEvent, EngineFrame, EngineHello, EngineReply, OperatorKind, RunFacts, Starts},
    hello::{HelloAnswer, Welcome},
    identity::{Role, RoleSet},
    ids::{BundleHash, DataflowId, EngineId, NodeId},
    log_line::{LogItem, LogLevel, LogSource, LogStream},
    machine::{EngineStatus, Lifecycle, LogShipping, Reach, RunPhase},
    packed::Packed,
    refusal::{Changed, Refusal, RefusalCode},
    request::{Answer, FeedFrame, Priority, Shape, VerbRow},
    verbs,
    version::Version,
};
use serde::Serialize;
use std::{fmt::Write as _, path::Path};
use uuid::Uuid;

#[test]
fn the_table_of_verbs_is_the_committed_one() {
    let mut table = String::from("# verb  name              shape   who may ask\n");
    for row in verbs::TABLE {
        let shape = match row.shape {
            Shape::Call => "call",
            Shape::Feed => "feed",
            Shape::Upload => "upload",
        };
        writeln!(table, "{:>6}  {:<16}  {shape:<6}  {}", row.verb.0, row.name, who(row)).expect("a String takes all");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verbs.txt");
    let committed = std::fs::read_to_string(&path).expect("the committed table");
    assert_eq!(
        table,
        committed,
        "who may ask what has changed; if that is meant, write the left text into {}",
        path.display()
    );
}

#[test]
fn no_verb_is_open_to_people_and_machines_alike() {
    // Everybody renews; and joining is for those who hold an invite, whatever they become.
    for row in verbs::TABLE.iter().filter(|row| !matches!(row.name, "renew" | "join")) {
        let kinds = [
            RoleSet::LOOK.iter().any(|role| row.may_ask.contains(role)),
            row.may_ask.contains(Role::Daemon),
            row.may_ask.contains(Role::Coordinator),
        ];
        assert_eq!(kinds.iter().filter(|kind| **kind).count(), 1, "{row:?}");
    }
}

#[test]
fn roles() {
    for (role, index) in Role::ALL.iter().zip(0..) {
        pinned(role, index);
        assert_eq!(*role as u8, index);
    }
    assert_eq!(Role::ALL.len(), 5);
}

#[test]
fn refusals() {
    let numbers: Vec<u16> = RefusalCode::ALL.iter().map(|code| u16::from(*code)).collect();
    assert_eq!(numbers, (1..=26).collect::<Vec<u16>>());
    let texts: Vec<&str> = RefusalCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(
        texts,
        [
            "denied",
            "unknown-verb",
            "bad-request",
            "version-mismatch",
            "not-found",
            "name-taken",
            "unknown-machine",
            "machine-unreachable",
            "no-machine-with-labels",
            "placement-ambiguous",
            "bad-descriptor",
            "bad-bundle",
            "not-prepared",
            "spawn-failed",
            "deadline-exceeded",
            "busy",
            "shutting-down",
            "superseded",
            "wrong-state",
            "internal",
            "engine-down",
            "certificate-lapsed",
            "invite-void",
            "forbidden-by-machine",
            "quarantined",
            "limit-reached",
        ]
    );
    pinned(&Changed::Nothing, 0);
    pinned(&Changed::Partly, 1);
    pinned(&Changed::Unknown, 2);
}

#[test]
fn grammar() {
    pinned(&Answer::Reply(()), 0);
    pinned(&Answer::<()>::Refusal(no()), 1);
    pinned(&FeedFrame::Item(()), 0);
    pinned(&FeedFrame::<()>::Idle, 1);
    pinned(&FeedFrame::<()>::End, 2);
    pinned(&FeedFrame::<()>::Refusal(no()), 3);
    pinned(
        &HelloAnswer::Welcome(Welcome {
            version: Version(1),
            build: String::new(),
            features: vec![],
            role: Role::Admin,
            time_unix_ms: 0,
            store_epoch: 0,
        }),
        0,
    );
    pinned(&HelloAnswer::Refusal(no()), 1);
    let order = [
        Priority::Bundle,
        Priority::Logs,
        Priority::Event,
        Priority::Command,
        Priority::Safety,
    ];
    assert!(order.is_sorted(), "stop goes before everything else");
}

#[test]
fn dataflows() {
    pinned(&NameWish::Exactly(name()), 0);
    pinned(&NameWish::Like(name()), 1);
    pinned(
        &Files::Bundle(dora_remote_protocol::dataflow::BundleRef {
            hash: BundleHash([0; 32]),
            bytes: 0,
            unpacked_bytes: 0,
            entries: 0,
        }),
        0,
    );
    pinned(&Files::OnMachine(String::new()), 1);
    pinned(&DataflowRef::Id(run()), 0);
    pinned(&DataflowRef::Name(String::new()), 1);
    let states = [
        (DataflowState::Preparing, "Preparing"),
        (DataflowState::Starting, "Starting"),
        (DataflowState::Running, "Running"),
        (DataflowState::Stopping, "Stopping"),
        (DataflowState::Finished, "Finished"),
        (DataflowState::Failed, "Failed"),
    ];
    for ((state, text), index) in states.iter().zip(0..) {
        pinned(state, index);
        assert_eq!(state.as_str(), *text, "JSON shows it");
    }
    let states = [
        (NodeState::Waiting, "Waiting"),
        (NodeState::Running, "Running"),
        (NodeState::Stopped, "Stopped"),
        (NodeState::Failed, "Failed"),
    ];
    for ((state, text), index) in states.iter().zip(0..) {
        pinned(state, index);
        assert_eq!(state.as_str(), *text, "JSON shows it");
    }
    pinned(&FailureCause::GraceDuration, 0);
    pinned(&FailureCause::Cascading { caused_by: node() }, 1);
    pinned(&FailureCause::FailedToSpawn { message: String::new() }, 2);
    pinned(&FailureCause::Own { stderr: String::new() }, 3);
    pinned(&FailureCause::EngineLost { message: String::new() }, 4);
    let placed = DataflowEvent::Placed {
        id: run(),
        name: name(),
        nodes: vec![],
    };
    pinned(&placed, 0);
    pinned(&DataflowEvent::State(DataflowState::Preparing), 1);
    let done = DataflowEvent::MachineDone {
        machine: name(),
        state: DataflowState::Preparing,
    };
    pinned(&done, 2);
    pinned(
        &DataflowEvent::Node {
            node: NodeStatus {
                id: node(),
                machine: name(),
                state: NodeState::Waiting,
                pid: None,
            },
            at_unix_ms: None,
        },
        3,
    );
    let reach = DataflowEvent::Reach {
        machine: name(),
        unreachable_since_unix_ms: None,
    };
    pinned(&reach, 4);
    pinned(
        &DataflowEvent::Ended(DataflowResult {
            success: true,
            stopped: false,
            failures: vec![],
            note: String::new(),
        }),
        5,
    );
    let link_lost = DataflowEvent::LinkLost {
        machine: name(),
        at_unix_ms: 0,
        silent_ms: 0,
    };
    pinned(&link_lost, 6);
    pinned(&LinkLoss::Keep, 0);
    pinned(&LinkLoss::StopAfter { silence_ms: 0 }, 1);
}

#[test]
fn machines() {
    pinned(&EngineStatus::Starting, 0);
    let up = EngineStatus::Up {
        engine: EngineId(Uuid::nil()),
        pid: 0,
        dora_version: String::new(),
        older: Vec::new(),
    };
    pinned(&up, 1);
    pinned(&EngineStatus::Down { reason: String::new() }, 2);
    pinned(&LogShipping::Always, 0);
    pinned(&LogShipping::OnDemand, 1);
    pinned(&Reach::Connected, 0);
    pinned(&Reach::Unreachable { since_unix_ms: 0 }, 1);
    let phases = [
        RunPhase::Prepared,
        RunPhase::Spawning,
        RunPhase::AtBarrier,
        RunPhase::Running,
        RunPhase::Stopping,
        RunPhase::Ended,
    ];
    for (phase, index) in phases.iter().zip(0..) {
        pinned(phase, index);
    }
    pinned(&Lifecycle::NodeStarted { node: node(), pid: 0 }, 0);
    pinned(
        &Lifecycle::NodeStopped {
            node: node(),
            clean: true,
        },
        1,
    );
    pinned(
        &Lifecycle::BarrierReached {
            exited_before_subscribe: vec![],
        },
        2,
    );
    pinned(
        &Lifecycle::Finished {
            failures: vec![],
            note: String::new(),
        },
        3,
    );
    pinned(&Lifecycle::LogsShipped, 4);
    pinned(&Lifecycle::LinkLost { silent_ms: 0 }, 5);
}

#[test]
fn log_lines() {
    pinned(&LogSource::Node(node()), 0);
    pinned(&LogSource::Machine, 1);
    pinned(&LogSource::Build, 2);
    for (stream, index) in [LogStream::Stdout, LogStream::Stderr, LogStream::Message].iter().zip(0..) {
        pinned(stream, index);
    }
    let levels = [
        LogLevel::Error,
        LogLevel::Warn,
        LogLevel::Info,
        LogLevel::Debug,
        LogLevel::Trace,
    ];
    for (level, index) in levels.iter().zip(0..) {
        pinned(level, index);
    }
    pinned(&LogItem::Lines(Packed::of_lines(&[])), 0);
    pinned(&LogItem::Gap { lines: 0, next_after: 0 }, 1);
    pinned(&LogItem::CaughtUp, 2);
    let lag = LogItem::Lag {
        lines: 0,
        milliseconds: 0,
    };
    pinned(&lag, 3);
    pinned(&LogItem::Fetching { machines: vec![] }, 5);
    let unfetched = LogItem::Unfetched {
        machine: name(),
        unreachable_since_unix_ms: None,
        newest_unix_ms: None,
    };
    pinned(&unfetched, 6);
    pinned(&LogItem::Passed { next_after: 0 }, 4);
}

#[test]
fn access_and_audit() {
    pinned(&InviteState::Open, 0);
    pinned(
        &InviteState::Used {
            at_unix_ms: 1,
            from: String::new(),
            serial: String::new(),
        },
        1,
    );
    pinned(
        &InviteState::Revoked {
            at_unix_ms: 1,
            by: String::new(),
        },
        2,
    );
    pinned(&InviteState::Expired, 3);
    pinned(
        &RevokeTarget::Holder {
            role: None,
            name: name(),
        },
        0,
    );
    pinned(&RevokeTarget::Serial(String::new()), 1);
    pinned(
        &AuditItem::Anchor {
            first_seq: 1,
            before: [0; 32],
        },
        0,
    );
}

#[test]
fn engine_socket() {
    let order = EngineOrder::Forget { dataflow: run() };
    pinned(
        &AgentFrame::Order {
            id: 0,
            order: order.clone(),
        },
        0,
    );
    pinned(&AgentFrame::Acked { seq: 0 }, 1);
    pinned(&EngineOrder::Spawn { dataflow: run() }, 1);
    let release = EngineOrder::Release {
        dataflow: run(),
        exited_before_subscribe: vec![],
    };
    pinned(&release, 2);
    let stop = EngineOrder::Stop {
        dataflow: run(),
        grace_ms: None,
        force: false,
    };
    pinned(&stop, 3);
    pinned(&order, 4);
    pinned(&EngineOrder::Shutdown { force: false }, 5);
    pinned(&EngineOrder::Inspect { dataflow: run() }, 6);
    assert_eq!(order.since(), ENGINE_VERSIONS.oldest);
    assert_eq!(EngineOrder::Inspect { dataflow: run() }.since(), Version(2));

    pinned(&EngineHello::Refusal(no()), 1);
    pinned(
        &EngineFrame::Reply {
            id: 0,
            result: Ok(EngineReply::Done),
        },
        0,
    );
    let event = EngineFrame::Event {
        seq: 1,
        at_unix_ms: 0,
        dataflow: None,
        what: EngineEvent::MessagesDropped { count: 0 },
    };
    pinned(&event, 1);
    pinned(&EngineFrame::Alive, 2);
    pinned(&EngineReply::Checked { outputs: vec![] }, 0);
    pinned(&EngineReply::Done, 1);
    pinned(&EngineReply::Facts(RunFacts::default()), 2);
    pinned(&Starts::Nothing, 0);
    pinned(&Starts::ShellCommand, 1);
    let (file, shell) = (String::new(), None);
    pinned(&Starts::Program { file, shell }, 2);
    pinned(&Starts::Python { script: String::new() }, 3);
    pinned(&Starts::Download, 4);
    pinned(&Starts::Operators(vec![]), 5);
    for (kind, index) in [OperatorKind::SharedLibrary, OperatorKind::Python, OperatorKind::Wasm]
        .iter()
        .zip(0..)
    {
        pinned(kind, index);
    }
    pinned(&EngineEvent::NodeStarted { node: node(), pid: 0 }, 0);
    pinned(
        &EngineEvent::NodeStopped {
            node: node(),
            clean: true,
        },
        1,
    );
    pinned(
        &EngineEvent::BarrierReached {
            exited_before_subscribe: vec![],
        },
        2,
    );
    pinned(&EngineEvent::Finished { failures: vec![] }, 3);
    let message = EngineEvent::Message {
        source: LogSource::Machine,
        level: LogLevel::Info,
        text: String::new(),
    };
    pinned(&message, 4);
    pinned(&EngineEvent::MessagesDropped { count: 0 }, 5);
    pinned(&EngineEvent::LinesLost { node: node(), lines: 0 }, 6);
}

/// Asserts the index under which a variant travels; all indexes are below 128, so it is the first byte.
#[track_caller]
fn pinned<T: Serialize>(value: &T, index: u8) {
    let bytes = postcard::to_stdvec(value).expect("it can be encoded");
    assert_eq!(bytes[0], index);
}

/// Who may ask, in words.
fn who(row: &VerbRow) -> String {
    if row.may_ask == RoleSet::NOBODY {
        return "the holder of an invite".to_owned();
    }
    row.may_ask.to_string()
}

fn no() -> Refusal {
    Refusal::new(RefusalCode::Denied, "")
}

fn run() -> DataflowId {
    DataflowId(Uuid::nil())
}

fn node() -> NodeId {
    "n".parse().expect("a good node id")
}

fn name() -> dora_remote_protocol::name::Name {
    "m".parse().expect("a good name")
}
