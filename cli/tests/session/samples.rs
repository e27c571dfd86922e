//! What scripted coordinators tell of: one dataflow with one node on one robot, its events, its lines, and how it ends.

use dora_remote_protocol::{
    dataflow::{
        DataflowEvent, DataflowResult, DataflowState, DataflowSummary, FailureCause, LinkLoss, NodeFailure, NodeState,
        NodeStatus, PlacedNode,
    },
    ids::DataflowId,
    log_line::{LogItem, LogLine, LogSource, LogStream},
    machine::Restored,
    packed::Packed,
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The dataflow.
pub(crate) const ID: DataflowId = DataflowId(Uuid::from_u128(7));

/// A line of its node, one second after the one before.
pub(crate) fn line(seq: u64) -> LogLine {
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

/// Such lines as a coordinator sends them.
pub(crate) fn lines(seqs: impl Iterator<Item = u64>) -> LogItem {
    LogItem::Lines(Packed::of_lines(&seqs.map(line).collect::<Vec<_>>()))
}

/// The first event of a start: who runs what.
pub(crate) fn placed() -> DataflowEvent {
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

/// All events of a start that succeeds.
pub(crate) fn running() -> Vec<DataflowEvent> {
    vec![
        placed(),
        DataflowEvent::State(DataflowState::Preparing),
        DataflowEvent::State(DataflowState::Running),
    ]
}

/// The end of a dataflow that has done its work.
pub(crate) fn good() -> DataflowResult {
    DataflowResult {
        success: true,
        stopped: false,
        failures: Vec::new(),
        note: String::new(),
    }
}

/// The end of a dataflow whose node raised an exception.
pub(crate) fn failed() -> DataflowResult {
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

/// How it is listed, under that name and in that state; its robot cannot be reached.
pub(crate) fn summary(name: &str, state: DataflowState) -> DataflowSummary {
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
