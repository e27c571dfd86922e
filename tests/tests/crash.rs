//! Crashes: coordinator, agent and engine killed with SIGKILL while a dataflow runs. Work belongs to the machine, not to a connection.

use dora_remote_tests::{
    cluster::Cluster,
    flows::{STUBBORN, STUBBORN_FLOW, TICKER, TICKER_FLOW},
    lines::{assert_whole, numbers},
    patience,
    patience::DEADLINE,
    processes, python,
    run_cli::Cli,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::{Duration, Instant};

#[test]
fn coordinator_killed_and_restarted_finds_everything_as_it_was() {
    if python::interpreter().is_none() {
        return;
    }
    let mut cluster = Cluster::start(&["A"]);
    let cli = cluster.cli();
    let flow = cluster.flow("tick", &[("dataflow.yml", TICKER_FLOW), ("ticker.py", TICKER)]);
    let id = cli.ok(&["start", &flow, "--detach", "--name", "tick"]).trim().to_owned();
    let before = with_pids(&cli, "tick");
    let mut logs = cli.spawn(&["logs", "tick", "-f"]);
    logs.until_line("tick 5 ");
    drop(logs);

    cluster.kill_coordinator();
    cluster.start_coordinator();
    let began = Instant::now();
    cluster.until_connected(&["A"]);
    // Redials go out once a second and a lost peer is noticed at once; far beyond that, something waits for a timeout.
    assert!(began.elapsed() < DEADLINE / 3, "the daemon needed {:?}", began.elapsed());

    let after = cli.until_state("tick", "Running");
    assert_eq!(after["id"], id.as_str());
    assert_eq!(
        pids(&with_pids(&cli, "tick")),
        pids(&before),
        "the nodes are the same processes"
    );
    cli.run(&["stop", "tick"]).exits_with(0);
    let logs = cli.run(&["logs", "tick", "--format", "json"]);
    let ticks = numbers(&logs.exits_with(0).output_of("ticker"), "tick");
    assert!(ticks.len() >= 5);
    assert_whole("ticks over a restart of the coordinator", &ticks, 1);
    cluster.no_node_is_left();
}

#[test]
fn agent_killed_and_restarted_adopts_engine_and_nodes_and_loses_no_line() {
    if python::interpreter().is_none() {
        return;
    }
    let mut cluster = Cluster::start(&["A"]);
    let cli = cluster.cli();
    let flow = cluster.flow("tick", &[("dataflow.yml", TICKER_FLOW), ("ticker.py", TICKER)]);
    cli.ok(&["start", &flow, "--detach", "--name", "tick"]);
    let before = with_pids(&cli, "tick");
    let engine = cluster.engine_pid("A");
    let mut logs = cli.spawn(&["logs", "tick", "-f", "--format", "json"]);
    logs.until_line("tick 5 ");

    cluster.kill_daemon("A");
    // The node goes on printing while nobody collects it.
    patience::until_true("ten ticks without an agent", || {
        let mut files = vec![];
        find(&cluster.path("A"), "log_ticker.jsonl", &mut files);
        let lines: usize = files
            .iter()
            .map(|file| std::fs::read_to_string(file).unwrap_or_default().lines().count())
            .sum();
        lines >= 20
    });
    cluster.start_daemon("A");
    cluster.until_connected(&["A"]);
    assert_eq!(cluster.engine_pid("A"), engine, "the engine was adopted");
    assert_eq!(
        pids(&with_pids(&cli, "tick")),
        pids(&before),
        "the nodes are the same processes"
    );

    logs.until_line("tick 30 ");
    cli.run(&["stop", "tick"]).exits_with(0);
    let followed = logs.wait();
    assert_whole(
        "ticks that the follower saw",
        &numbers(&followed.output_of("ticker"), "tick"),
        1,
    );
    let stored = cli.run(&["logs", "tick", "--format", "json"]);
    let ticks = numbers(&stored.exits_with(0).output_of("ticker"), "tick");
    assert!(ticks.len() >= 30);
    assert_whole("ticks that were stored", &ticks, 1);
    cluster.no_node_is_left();
}

#[test]
fn engine_killed_fails_the_dataflow_says_why_and_leaves_no_orphan() {
    if python::interpreter().is_none() {
        return;
    }
    let cluster = Cluster::start(&["A"]);
    let cli = cluster.cli();
    let files = [
        ("dataflow.yml", STUBBORN_FLOW),
        ("ticker.py", TICKER),
        ("stubborn.py", STUBBORN),
    ];
    let flow = cluster.flow("mule", &files);
    let mut attached = cli.spawn(&["start", &flow, "--attach", "--name", "mule", "--format", "json"]);
    attached.until_line("stubborn: up");
    let engine = cluster.engine_pid("A");
    processes::signal(engine, Signal::SIGKILL);

    let outcome = attached.wait();
    outcome.exits_with(9).says(&["engine"]);
    let failed = cli.until_state("mule", "Failed");
    let causes: Vec<&Value> = failed["result"]["failures"].as_array().expect("failures").iter().collect();
    assert!(causes.iter().any(|failure| failure["cause"] == "engine-lost"), "{failed}");
    assert!(
        failed["result"].to_string().contains("signal 9"),
        "it says how the engine ended: {failed}"
    );
    cluster.no_node_is_left();

    // The machine has a new engine, and is of use again.
    patience::until_true("a new engine", || {
        let machine = cli.until_machine("A", true);
        machine["engine"] == "up" && machine["engine_pid"] != u64::from(engine)
    });
    let flow = cluster.flow("tick", &[("dataflow.yml", TICKER_FLOW), ("ticker.py", TICKER)]);
    cli.ok(&["start", &flow, "--detach", "--name", "tick"]);
    cli.until_state("tick", "Running");
    cli.run(&["stop", "tick"]).exits_with(0);
}

#[test]
fn a_dataflow_that_ended_while_the_coordinator_was_dead_is_known_to_have_ended() {
    if python::interpreter().is_none() {
        return;
    }
    let mut cluster = Cluster::start(&["A"]);
    let cli = cluster.cli();
    let flow = cluster.example("python-pipeline");
    cli.ok(&["start", &flow, "--detach", "--name", "eyes"]);
    cli.until_state("eyes", "Running");
    cluster.kill_coordinator();
    patience::until_within(Duration::from_secs(90), "the end of the nodes", || {
        cluster.nodes().is_empty().then_some(())
    });
    cluster.start_coordinator();
    let ended = cli.until_state("eyes", "Finished");
    assert_eq!(ended["result"]["success"], true, "{ended}");
    let logs = cli.run(&["logs", "eyes", "--node", "camera", "--format", "json"]);
    assert_eq!(
        numbers(&logs.exits_with(0).output_of("camera"), "frame"),
        (1..=20).collect::<Vec<_>>()
    );
}

/// Waits until every node has a pid, and returns the dataflow.
fn with_pids(cli: &Cli, name: &str) -> Value {
    patience::until("a pid for each node", || {
        let flow = cli.dataflow(name)?;
        let nodes = flow["nodes"].as_array()?;
        (flow["state"] == "Running" && nodes.iter().all(|node| node["pid"].is_u64())).then(|| flow.clone())
    })
}

fn pids(flow: &Value) -> Vec<(String, u64)> {
    let nodes = flow["nodes"].as_array().expect("nodes").iter();
    let pid = |node: &Value| (node["id"].to_string(), node["pid"].as_u64().expect("a pid"));
    nodes.map(pid).collect()
}

fn find(folder: &std::path::Path, name: &str, found: &mut Vec<std::path::PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            find(&path, name, found);
        } else if path.ends_with(name) {
            found.push(path);
        }
    }
}
