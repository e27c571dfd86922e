//! How a dataflow ended, told to people and turned into an exit code.

use crate::{exit::Exit, output::Printer};
use dora_remote_protocol::{
    dataflow::{DataflowResult, FailureCause, NodeFailure},
    name::DataflowName,
};

/// Lines of a failed node's standard error that people are shown; the log has the rest.
const SHOWN_LINES: usize = 10;

/// Tells people how a dataflow ended.
pub fn tell(printer: &Printer, name: &DataflowName, result: &DataflowResult) {
    let stopped = if result.stopped { " after it was asked to stop" } else { "" };
    if result.success {
        printer.note(&format!("`{name}` finished{stopped}"));
    } else {
        printer.warn(&format!("`{name}` failed{stopped}"));
    }
    for failure in &result.failures {
        printer.warn(&text(failure));
    }
    if !result.note.is_empty() {
        printer.note(&result.note);
    }
}

/// The exit code of a command that followed a dataflow to its end.
#[must_use]
pub const fn exit(result: &DataflowResult) -> Exit {
    if result.success { Exit::Ok } else { Exit::DataflowFailed }
}

fn text(failure: &NodeFailure) -> String {
    let NodeFailure { node, machine, exit, .. } = failure;
    let how = if exit.is_empty() {
        String::new()
    } else {
        format!(" ({exit})")
    };
    let on = format!("node `{node}` on `{machine}`");
    match &failure.cause {
        FailureCause::GraceDuration => format!("{on} did not end in time and was killed{how}"),
        FailureCause::Cascading { caused_by } => format!("{on} failed because `{caused_by}` had failed{how}"),
        FailureCause::FailedToSpawn { message } => format!("{on} could not be started: {message}"),
        FailureCause::EngineLost { message } => format!("{on} was lost: {message}"),
        FailureCause::Own { stderr } => {
            let lines: Vec<_> = stderr.trim_end().lines().collect();
            let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            if shown.is_empty() {
                format!("{on} failed{how}")
            } else {
                format!("{on} failed{how}:\n    {}", shown.join("\n    "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_node_is_told_with_the_end_of_its_words() {
        let stderr: String = (0..20).map(|n| format!("line {n}\n")).collect();
        let failure = NodeFailure {
            node: "cam".parse().expect("a node"),
            machine: "arm".parse().expect("a machine"),
            cause: FailureCause::Own { stderr },
            exit: "exit code 3".to_owned(),
        };
        let text = text(&failure);
        assert!(
            text.starts_with("node `cam` on `arm` failed (exit code 3):\n    line 10\n"),
            "{text}"
        );
        assert!(text.ends_with("line 19"), "{text}");
    }
}
