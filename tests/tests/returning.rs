//! What a return finds: ends that nobody heard of, an agent without memory, a coordinator without memory.

use dora_remote_tests::{
    cluster::Cluster,
    flows::{TICKER, TICKER_FLOW},
    patience, processes, python,
    relay::{Relay, seed},
    run_cli::Cli,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;

/// A node that prints until it is told to crash: by a file, as nobody can reach it otherwise.
const FRAIL: &str = r#"
import os
import sys
from dora import Node

for event in Node():
    if event["type"] == "STOP":
        break
    print("frail: here", flush=True)
    if os.path.exists("crash"):
        print("frail: boom", file=sys.stderr, flush=True)
        sys.exit(3)
"#;

const FRAIL_FLOW: &str = "
nodes:
  - id: frail
    path: frail.py
    inputs: { tick: dora/timer/millis/100 }
";

fn events<'a>(feed: &'a [Value], kind: &str) -> Vec<&'a Value> {
    feed.iter().filter(|line| line["type"] == kind).collect()
}

/// A point in time: all have the same width, so that they compare as texts.
fn time(text: &Value) -> &str {
    text.as_str().expect("a time")
}

fn ticking(cluster: &Cluster) -> Cli {
    let cli = cluster.cli();
    let yaml = cluster.flow("tick", &[("dataflow.yml", TICKER_FLOW), ("ticker.py", TICKER)]);
    let start = [
        "start",
        &yaml,
        "--detach",
        "--name",
        "tick",
        "--on-link-loss",
        "stop-after=5m",
    ];
    cli.ok(&start);
    cli.until_state("tick", "Running");
    patience::until_true("its node", || cluster.nodes().len() == 1);
    cli
}

#[test]
fn a_node_that_crashes_in_a_cut_is_told_once_with_its_own_time_and_the_return_is_seen() {
    if python::interpreter().is_none() {
        return;
    }
    let mut cluster = Cluster::start(&[]);
    let relay = Relay::start(cluster.address(), seed());
    cluster.let_daemons_dial(&relay.address());
    cluster.add_machine("A", "");
    cluster.until_connected(&["A"]);
    let cli = cluster.cli();
    let yaml = cluster.flow("frail", &[("dataflow.yml", FRAIL_FLOW), ("frail.py", FRAIL)]);
    let mut attached = cli.spawn(&["start", &yaml, "--name", "frail", "--format", "json"]);
    attached.until_line("frail: here");

    relay.cut();
    let id = cli.dataflow("frail").expect("listed")["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    fs::write(cluster.path("A").join("runs").join(id).join("crash"), "").expect("the folder of the run");
    cluster.no_node_is_left();
    let lost = cli.until_machine("A", false);
    assert_eq!(lost["unreachable_since"], lost["last_heard"], "{lost}");
    let listed = cli.dataflow("frail").expect("listed");
    assert_eq!(
        (&listed["state"], &listed["unreachable"][0]["machine"]),
        (&"Running".into(), &"A".into())
    );
    attached.until_line("\"unreachable_since\":\"");
    let _ = relay.heal();

    let outcome = attached.wait();
    outcome
        .exits_with(9)
        .says(&["`A` cannot be reached", "`A` is back after", "frail: boom"]);
    let feed = outcome.feed();
    let failed: Vec<_> = events(&feed, "node")
        .into_iter()
        .filter(|node| node["state"] == "Failed")
        .collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    let reach = events(&feed, "reach");
    assert_eq!(reach.len(), 2, "lost and back: {reach:?}");
    let (lost_at, failed_at) = (time(&reach[0]["unreachable_since"]), time(&failed[0]["time"]));
    let back = cli.until_machine("A", true);
    let restored = &back["restored"];
    assert_eq!(restored["unreachable_since"], reach[0]["unreachable_since"], "{back}");
    // By the same clock, as all of this is one machine.
    assert!(
        failed_at < time(&restored["at"]) && lost_at < time(&restored["at"]),
        "{failed:?} {back}"
    );
    let ended = cli.until_state("frail", "Failed");
    assert!(
        time(&ended["ended"]) < time(&restored["at"]),
        "it ended when it did, not when that was heard: {ended}"
    );
}

#[test]
fn an_agent_without_memory_ends_what_it_no_longer_knows_and_the_dataflow_says_so() {
    if python::interpreter().is_none() {
        return;
    }
    let mut cluster = Cluster::start(&["A"]);
    let cli = ticking(&cluster);
    let engine = cluster.engine_pid("A");
    cluster.kill_daemon("A");
    fs::remove_dir_all(cluster.path("A")).expect("the state directory");
    cluster.start_daemon("A");
    let failed = cli.until_state("tick", "Failed");
    assert_eq!(failed["result"]["failures"][0]["cause"], "engine-lost", "{failed}");
    assert!(
        failed["result"]["note"]
            .as_str()
            .is_some_and(|note| note.contains("restarted without it")),
        "{failed}"
    );
    cluster.no_node_is_left();
    patience::until_true("the end of the former engine", || !processes::lives(engine));
    // And it is of use again.
    cluster.until_connected(&["A"]);
    cli.ok(&[
        "start",
        &cluster.path("laptop/tick/dataflow.yml").display().to_string(),
        "--detach",
        "--name",
        "again",
    ]);
    cli.until_state("again", "Running");
    cli.run(&["stop", "again"]).exits_with(0);
}

#[test]
fn a_coordinator_without_memory_finds_what_runs_and_can_stop_it() {
    if python::interpreter().is_none() {
        return;
    }
    let mut cluster = Cluster::start(&["A"]);
    let cli = ticking(&cluster);
    let (before, pid) = (cli.dataflow("tick").expect("listed"), cluster.nodes()[0].pid);
    cluster.kill_coordinator();
    for file in ["store.redb", "logs.redb"] {
        fs::remove_file(cluster.path("coordinator").join(file)).expect("a database");
    }
    cluster.start_coordinator();
    let found = cli.until_state("tick", "Running");
    assert_eq!(found["id"], before["id"]);
    assert_eq!(
        found["on_link_loss"], "stop-after=300s",
        "the machine knows its policy: {found}"
    );
    assert!(
        found["started_by"]
            .as_str()
            .is_some_and(|by| by.contains("found on a machine")),
        "{found}"
    );
    assert_eq!(cluster.nodes()[0].pid, pid, "the node is the same process");
    // What it prints from now on is here again.
    let mut logs = cli.spawn(&["logs", "tick", "--follow"]);
    logs.until_line("tick ");
    // An engine that is killed is noticed and told as with any other dataflow.
    processes::signal(cluster.engine_pid("A"), Signal::SIGKILL);
    let failed = cli.until_state("tick", "Failed");
    assert_eq!(failed["result"]["failures"][0]["cause"], "engine-lost", "{failed}");
    cluster.no_node_is_left();
}
