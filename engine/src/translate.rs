//! From dora's events to what the engine keeps and tells: pure, one event in, plain facts out.
//!
//! Output of nodes is dropped here: the files that dora writes are its source. Messages of dora's daemon and spawner exist only as
//! events and are passed on.

use dora_message::{
    common::{LogLevel as DoraLevel, LogLevelOrStdout, LogMessage, NodeError, NodeErrorCause, NodeExitStatus},
    daemon_to_coordinator::{DaemonEvent, DataflowDaemonResult},
    id::NodeId as DoraNodeId,
};
use dora_remote_protocol::{
    dataflow::{FailureCause, NodeFailure},
    ids::{DataflowId, NodeId},
    limits::MAX_TEXT_BYTES,
    log_line::{LogLevel, LogSource},
    name::MachineName,
    refusal::cut,
};

/// Log targets that dora's daemon and spawner use. A node can forge them; the effect is one more message, never a lost line.
const DORA_TARGETS: &[&str] = &["daemon", "daemon::spawner", "daemon::pending", "spawner", "dora daemon"];
/// How dora's spawner names the process it made; there is no event for it.
const PID_MARK: &str = "spawned node with pid ";
/// How dora's daemon says that the process of a node ended badly, right before it says that the node stopped.
const FAILURE_MARKS: &[&str] = &[
    "exited with code ",
    "exited because of signal ",
    "node was killed by dora",
    "failed to spawn node",
    "I/O error while reading exit status",
    "unknown exit status",
];
/// How dora says that lines of a node did not get into its file, and how many that are. Its file writes behind its back: a line
/// that cannot be written is found out with the next one, which is then not written either. Once the node has ended there is no next.
const LOSS_MARKS: &[(&str, u64)] = &[("Could not write log to file: ", 2), ("Could not flush log file: ", 1)];
/// Bytes of error text in all failures of one run together: the event must fit into one frame.
const FAILURE_TEXT_BYTES: usize = 1 << 20;

/// One fact that dora's daemon let us know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The daemon has come up.
    Up,
    /// All processes of a run exist, or one could not be made.
    SpawnSettled {
        dataflow: DataflowId,
        result: Result<(), String>,
    },
    /// A node has this process. `sure` when it was just made, not merely seen.
    Process {
        dataflow: DataflowId,
        node: NodeId,
        pid: u32,
        sure: bool,
    },
    /// The process of a node ended badly; the node may be restarted.
    ProcessFailed { dataflow: DataflowId, node: NodeId },
    /// A node ended for good. Dora also calls it `clean` when a node without inputs crashes.
    NodeStopped {
        dataflow: DataflowId,
        node: NodeId,
        clean: bool,
    },
    /// All local nodes of a run are ready.
    BarrierReached { dataflow: DataflowId, exited: Vec<NodeId> },
    /// All local nodes of a run ended.
    Finished {
        dataflow: DataflowId,
        failures: Vec<NodeFailure>,
    },
    /// Lines of a node could not be written to its file.
    LinesLost {
        dataflow: DataflowId,
        node: NodeId,
        lines: u64,
        why: String,
    },
    /// Words of the daemon.
    Message {
        dataflow: Option<DataflowId>,
        source: LogSource,
        level: LogLevel,
        text: String,
    },
}

/// Says what an event of the daemon means.
pub(crate) fn translate(event: DaemonEvent, machine: &MachineName) -> Vec<Heard> {
    match event {
        DaemonEvent::StatusReport { .. } => vec![Heard::Up],
        DaemonEvent::SpawnResult { dataflow_id, result } => vec![Heard::SpawnSettled {
            dataflow: DataflowId(dataflow_id),
            result: result.map_err(|text| tidy(&text)),
        }],
        DaemonEvent::AllNodesReady {
            dataflow_id,
            exited_before_subscribe,
        } => vec![Heard::BarrierReached {
            dataflow: DataflowId(dataflow_id),
            exited: exited_before_subscribe.iter().filter_map(node_id).collect(),
        }],
        DaemonEvent::AllNodesFinished { dataflow_id, result } => vec![Heard::Finished {
            dataflow: DataflowId(dataflow_id),
            failures: failures(result, machine),
        }],
        DaemonEvent::NodeStopped {
            dataflow_id,
            node_id: node,
            clean_stop,
        } => node_id(&node)
            .map(|node| Heard::NodeStopped {
                dataflow: DataflowId(dataflow_id),
                node,
                clean: clean_stop,
            })
            .into_iter()
            .collect(),
        DaemonEvent::NodeMetrics {
            dataflow_id, metrics, ..
        } => metrics
            .iter()
            .filter_map(|(node, metrics)| {
                Some(Heard::Process {
                    dataflow: DataflowId(dataflow_id),
                    node: node_id(node)?,
                    pid: metrics.pid,
                    sure: false,
                })
            })
            .collect(),
        DaemonEvent::Log(message) => log(message),
        // Builds, topics and parameters are not ordered from here; heartbeats and endpoints have no meaning inside one process. The
        // enum also grows with dora.
        _ => Vec::new(),
    }
}

fn log(message: LogMessage) -> Vec<Heard> {
    let dataflow = message.dataflow_id.map(DataflowId);
    let node = message.node_id.as_ref().and_then(node_id);
    let level = level(&message.level);
    if message.build_id.is_some() {
        return vec![Heard::Message {
            dataflow,
            source: LogSource::Build,
            level,
            text: cut(message.message),
        }];
    }
    let target = message.target.as_deref().unwrap_or_default();
    if node.is_some() && !DORA_TARGETS.contains(&target) {
        return Vec::new();
    }
    let text = tidy(&message.message);
    let mut heard = Vec::new();
    if let (Some(dataflow), Some(node)) = (dataflow, node.clone()) {
        if target == "spawner"
            && let Some(pid) = text.strip_prefix(PID_MARK).and_then(|pid| pid.parse().ok())
        {
            let sure = true;
            return vec![Heard::Process {
                dataflow,
                node,
                pid,
                sure,
            }];
        }
        if target == "daemon"
            && let Some((why, lines)) = LOSS_MARKS
                .iter()
                .find_map(|(mark, lines)| Some((text.strip_prefix(mark)?, *lines)))
        {
            let why = why.to_owned();
            return vec![Heard::LinesLost {
                dataflow,
                node,
                lines,
                why,
            }];
        }
        if target == "daemon" && level == LogLevel::Error && FAILURE_MARKS.iter().any(|mark| text.starts_with(mark)) {
            heard.push(Heard::ProcessFailed { dataflow, node });
        }
    }
    heard.push(Heard::Message {
        dataflow,
        source: LogSource::Machine,
        level,
        text: node.map_or_else(|| text.clone(), |node| cut(format!("{node}: {text}"))),
    });
    heard
}

/// Failures in the order of their causes: what went wrong by itself first, then what was killed, then what fell with others.
fn failures(result: DataflowDaemonResult, machine: &MachineName) -> Vec<NodeFailure> {
    let mut failed: Vec<(DoraNodeId, NodeError)> = result
        .node_results
        .into_iter()
        .filter_map(|(node, result)| Some((node, result.err()?)))
        .collect();
    failed.sort_by_key(|(_, error)| {
        let rank = match &error.cause {
            NodeErrorCause::FailedToSpawn(_) | NodeErrorCause::Other { .. } => 0,
            NodeErrorCause::GraceDuration => 1,
            NodeErrorCause::Cascading { .. } => 2,
        };
        (rank, error.timestamp)
    });
    let each = (FAILURE_TEXT_BYTES / failed.len().max(1)).min(MAX_TEXT_BYTES);
    failed
        .into_iter()
        .filter_map(|(node, error)| {
            Some(NodeFailure {
                node: node_id(&node)?,
                machine: machine.clone(),
                exit: exit(&error),
                cause: cause(error.cause, each),
            })
        })
        .collect()
}

fn cause(cause: NodeErrorCause, max: usize) -> FailureCause {
    match cause {
        NodeErrorCause::GraceDuration => FailureCause::GraceDuration,
        NodeErrorCause::Cascading { caused_by_node } => node_id(&caused_by_node).map_or_else(
            || FailureCause::Own { stderr: String::new() },
            |caused_by| FailureCause::Cascading { caused_by },
        ),
        NodeErrorCause::FailedToSpawn(text) => FailureCause::FailedToSpawn {
            message: tail(&tidy(&text), max).to_owned(),
        },
        NodeErrorCause::Other { stderr } => FailureCause::Own {
            stderr: tail(stderr.trim_end(), max).to_owned(),
        },
    }
}

fn exit(error: &NodeError) -> String {
    if matches!(error.cause, NodeErrorCause::FailedToSpawn(_)) {
        return "not started".to_owned();
    }
    match &error.exit_status {
        NodeExitStatus::Success => "exit code 0".to_owned(),
        NodeExitStatus::ExitCode(code) => format!("exit code {code}"),
        NodeExitStatus::Signal(signal) => format!("signal {signal}"),
        NodeExitStatus::IoError(text) => format!("unknown: {}", tidy(text)),
        NodeExitStatus::Unknown => "unknown".to_owned(),
    }
}

/// Dora prints its errors with causes on lines of their own and with places in its source. People get one line of causes.
pub(crate) fn tidy(text: &str) -> String {
    let end = ["\n\nLocation:", "\n\nStack backtrace:", "\n\nBacktrace:"]
        .iter()
        .filter_map(|mark| text.find(mark))
        .min()
        .unwrap_or(text.len());
    let (head, causes) = text[..end].split_once("\n\nCaused by:\n").unwrap_or((&text[..end], ""));
    let mut line = head.split("\n\n").next().unwrap_or_default().trim_end().to_owned();
    for cause in causes.lines().map(str::trim).filter(|cause| !cause.is_empty()) {
        let numbered = cause
            .split_once(": ")
            .filter(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit()));
        line.push_str(": ");
        line.push_str(numbered.map_or(cause, |(_, text)| text));
    }
    cut(line)
}

/// The last `max` bytes, from a character's edge on: the end of an error output says what went wrong.
fn tail(text: &str, max: usize) -> &str {
    let mut start = text.len().saturating_sub(max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

fn level(level: &LogLevelOrStdout) -> LogLevel {
    match level {
        LogLevelOrStdout::LogLevel(DoraLevel::Error) => LogLevel::Error,
        LogLevelOrStdout::LogLevel(DoraLevel::Warn) => LogLevel::Warn,
        LogLevelOrStdout::LogLevel(DoraLevel::Info) | LogLevelOrStdout::Stdout => LogLevel::Info,
        LogLevelOrStdout::LogLevel(DoraLevel::Debug) => LogLevel::Debug,
        LogLevelOrStdout::LogLevel(DoraLevel::Trace) => LogLevel::Trace,
    }
}

/// Ids were compared with the order when the run was checked, so that one which is no id here belongs to no run.
fn node_id(node: &DoraNodeId) -> Option<NodeId> {
    node.to_string().parse().ok()
}

#[cfg(test)]
#[path = "translate/tests.rs"]
mod tests;
