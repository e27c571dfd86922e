//! Tests of the translation, on events as dora 1.1 writes them.

use super::*;
use serde_json::{Value, json};

const RUN: &str = "00000000-0000-0000-0000-0000000000aa";

fn machine() -> MachineName {
    "robot".parse().expect("a name")
}

fn event(value: Value) -> DaemonEvent {
    serde_json::from_value(value).expect("an event of dora")
}

fn log_event(node: Option<&str>, target: Option<&str>, message: &str) -> DaemonEvent {
    event(json!({"Log": {
        "build_id": null, "dataflow_id": RUN, "node_id": node, "daemon_id": null, "level": "INFO", "target": target,
        "module_path": null, "file": null, "line": null, "message": message, "timestamp": "2026-11-22T10:00:00Z", "fields": null
    }}))
}

fn run() -> DataflowId {
    RUN.parse().expect("an id")
}

fn node(id: &str) -> NodeId {
    id.parse().expect("an id")
}

#[test]
fn output_of_nodes_is_dropped_and_words_of_the_daemon_are_kept() {
    assert_eq!(translate(log_event(Some("camera"), None, "frame 7"), &machine()), []);
    assert_eq!(
        translate(log_event(Some("camera"), Some("my_module"), "frame 7"), &machine()),
        []
    );
    let heard = translate(
        log_event(Some("camera"), Some("spawner"), "spawning `python` in `/run`"),
        &machine(),
    );
    assert_eq!(
        heard,
        [Heard::Message {
            dataflow: Some(run()),
            source: LogSource::Machine,
            level: LogLevel::Info,
            text: "camera: spawning `python` in `/run`".to_owned()
        }]
    );
    assert!(matches!(
        translate(log_event(None, None, "finished"), &machine()).as_slice(),
        [Heard::Message { .. }]
    ));
}

#[test]
fn the_spawners_words_name_the_process() {
    let heard = translate(
        log_event(Some("camera"), Some("spawner"), "spawned node with pid 4711"),
        &machine(),
    );
    assert_eq!(
        heard,
        [Heard::Process {
            dataflow: run(),
            node: node("camera"),
            pid: 4711,
            sure: true
        }]
    );
}

#[test]
fn causes_come_before_their_consequences() {
    let at = |time: u64| json!({"time": time << 32, "id": vec![1_u8; 16]});
    let finished = event(
        json!({"AllNodesFinished": {"dataflow_id": RUN, "result": {"timestamp": at(9), "node_results": {
            "a": {"Err": {"timestamp": at(3), "cause": {"Cascading": {"caused_by_node": "d"}}, "exit_status": {"ExitCode": 1}}},
            "b": {"Err": {"timestamp": at(1), "cause": "GraceDuration", "exit_status": {"Signal": 9}}},
            "c": {"Ok": null},
            "d": {"Err": {"timestamp": at(2), "cause": {"Other": {"stderr": "Traceback\nValueError: 3\n"}}, "exit_status": {"ExitCode": 1}}},
            "e": {"Err": {"timestamp": at(4), "cause": {"FailedToSpawn": "preparing for spawn failed: failed to run\n\nCaused by:\n    0: no python\n    1: not found\n\nLocation:\n    x.rs:1"}, "exit_status": "Unknown"}}
        }}}}),
    );
    let heard = translate(finished, &machine());
    let [Heard::Finished { failures, .. }] = heard.as_slice() else {
        panic!("{heard:?}");
    };
    let order: Vec<_> = failures.iter().map(|failure| failure.node.as_str()).collect();
    assert_eq!(order, ["d", "e", "b", "a"]);
    assert_eq!(
        failures[0].cause,
        FailureCause::Own {
            stderr: "Traceback\nValueError: 3".to_owned()
        }
    );
    assert_eq!(failures[0].exit, "exit code 1");
    assert_eq!(
        failures[1].cause,
        FailureCause::FailedToSpawn {
            message: "preparing for spawn failed: failed to run: no python: not found".to_owned()
        }
    );
    assert_eq!(failures[1].exit, "not started");
    assert_eq!(failures[2].exit, "signal 9");
    assert_eq!(failures[3].cause, FailureCause::Cascading { caused_by: node("d") });
}

#[test]
fn texts_of_dora_become_one_line_and_tails_keep_their_end() {
    assert_eq!(tidy("went wrong\n\nLocation:\n  a.rs"), "went wrong");
    assert_eq!(
        tidy("went wrong\n\nCaused by:\n    no such file\n\nLocation:\n  a.rs"),
        "went wrong: no such file"
    );
    assert_eq!(tidy("went wrong\n\nA long explanation."), "went wrong");
    assert_eq!(tail("0123456789", 4), "6789");
    assert_eq!(tail("ü23", 3), "23");
}

#[test]
fn what_has_no_meaning_here_is_nothing() {
    assert_eq!(translate(event(json!({"Heartbeat": {"ft_stats": null}})), &machine()), []);
    assert_eq!(translate(event(json!("Exit")), &machine()), []);
}

#[test]
fn lines_that_could_not_be_written_are_counted() {
    let lost = |text: &str| translate(log_event(Some("camera"), Some("daemon"), text), &machine());
    let expected = |lines, why: &str| {
        [Heard::LinesLost {
            dataflow: run(),
            node: node("camera"),
            lines,
            why: why.to_owned(),
        }]
    };
    let why = "No space left on device (os error 28)";
    assert_eq!(lost(&format!("Could not write log to file: {why}")), expected(2, why));
    assert_eq!(lost(&format!("Could not flush log file: {why}")), expected(1, why));
}
