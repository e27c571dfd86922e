//! Dataflows, machines, log lines, invites and the audit.

use crate::{name, node, pinned, run};
use dora_remote_protocol::{
    access::{InviteState, RevokeTarget},
    audit::AuditItem,
    dataflow::{
        DataflowEvent, DataflowRef, DataflowResult, DataflowState, FailureCause, Files, LinkLoss, NameWish, NodeState, NodeStatus,
    },
    ids::{BundleHash, EngineId},
    log_line::{LogItem, LogLevel, LogSource, LogStream},
    machine::{EngineStatus, Lifecycle, LogShipping, Reach, RunPhase},
    packed::Packed,
};
use uuid::Uuid;

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
