//! A dataflow from start to end on one machine: what it prints, what `list` says at each step, and that nothing is left.

use dora_remote_tests::{
    cluster::Cluster,
    flows::{STUBBORN, STUBBORN_FLOW, TICKER, TICKER_FLOW},
    lines::{assert_rising, assert_whole, numbers},
    patience, processes, python,
};
use nix::sys::signal::Signal;
use serde_json::Value;

#[test]
fn rust_pipeline_attached_prints_everything_in_order_and_ends_with_its_result() {
    let cluster = Cluster::start(&["A"]);
    let flow = cluster.example("rust-pipeline");
    let run = cluster
        .cli()
        .run(&["start", &flow, "--attach", "--name", "rust", "--format", "json"]);
    run.exits_with(0);
    assert_eq!(numbers(&run.output_of("source"), "reading"), (1..=20).collect::<Vec<_>>());
    assert_rising("readings that arrived", &numbers(&run.output_of("sink"), "reading"));

    let feed = run.feed();
    let sequence: Vec<u64> = feed.iter().filter_map(|line| line["seq"].as_u64()).collect();
    assert!(sequence.is_sorted_by(|a, b| a < b), "log sequence numbers rise: {sequence:?}");
    let last = feed.last().expect("a result");
    assert_eq!((&last["type"], &last["result"]["success"]), (&"result".into(), &true.into()));

    let ended = cluster.cli().until_state("rust", "Finished");
    assert!(
        ended["nodes"]
            .as_array()
            .expect("nodes")
            .iter()
            .all(|node| node["state"] == "Stopped"),
        "{ended}"
    );
    cluster.no_node_is_left();

    // What was printed is still there for those who ask later.
    let later = cluster.cli().run(&["logs", "rust", "--node", "sink", "--format", "json"]);
    assert_eq!(later.exits_with(0).output_of("sink"), run.output_of("sink"));
    let tail = cluster
        .cli()
        .run(&["logs", "rust", "--node", "source", "--tail", "2", "--format", "json"]);
    assert_eq!(tail.output_of("source").last().map(String::as_str), Some("source: done"));
    assert_eq!(tail.output_of("source").len(), 2);
}

#[test]
fn python_pipeline_detached_is_listed_truly_at_each_step() {
    if python::interpreter().is_none() {
        return;
    }
    let cluster = Cluster::start(&["A"]);
    let cli = cluster.cli();
    assert_eq!(
        cli.json(&["list"])["dataflows"],
        Value::Array(vec![]),
        "nothing was started yet"
    );

    let flow = cluster.example("python-pipeline");
    let id = cli
        .ok(&["start", &flow, "--detach", "--name", "eyes", "--env", "COUNT=0"])
        .trim()
        .to_owned();
    let running = cli.until_state("eyes", "Running");
    assert_eq!(running["id"], id.as_str(), "stdout of a detached start is the id");
    let nodes = running["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.len(), 3);
    for node in nodes {
        assert_eq!((&node["machine"], &node["state"]), (&"A".into(), &"Running".into()));
    }
    let pids = patience::until("a pid for each node", || {
        let flow = cli.dataflow("eyes")?;
        let pids: Vec<u64> = flow["nodes"]
            .as_array()?
            .iter()
            .filter_map(|node| node["pid"].as_u64())
            .collect();
        (pids.len() == 3).then_some(pids)
    });
    for pid in &pids {
        assert!(
            processes::lives(u32::try_from(*pid).expect("a pid")),
            "pid {pid} of the list lives"
        );
    }
    let machine = cli.until_machine("A", true);
    assert!(machine["mtu"].as_u64() >= Some(1200), "{machine}");
    assert_eq!(machine["dataflows"][0], id.as_str());

    let mut logs = cli.spawn(&["logs", "eyes", "-f", "--format", "json"]);
    logs.until_line("camera: frame 5 ");
    cli.run(&["stop", "eyes"]).exits_with(0);
    let logs = logs.wait();
    assert_whole("frames that were sent", &numbers(&logs.output_of("camera"), "frame"), 1);
    assert_rising("frames that arrived", &numbers(&logs.output_of("logger"), "frame"));

    let ended = cli.until_state("eyes", "Finished");
    assert_eq!(ended["result"]["stopped"], true);
    assert!(ended["ended"].is_string() && ended["running_since"].is_string(), "{ended}");
    for pid in pids {
        assert!(
            !processes::lives(u32::try_from(pid).expect("a pid")),
            "pid {pid} lives after the stop was answered"
        );
    }
    cluster.no_node_is_left();
}

#[test]
fn interrupting_an_attached_start_asks_for_the_stop() {
    if python::interpreter().is_none() {
        return;
    }
    let cluster = Cluster::start(&["A"]);
    let flow = cluster.flow("tick", &[("dataflow.yml", TICKER_FLOW), ("ticker.py", TICKER)]);
    let mut attached = cluster
        .cli()
        .spawn(&["start", &flow, "--attach", "--name", "tick", "--format", "json"]);
    attached.until_line("tick 3 ");
    attached.signal(Signal::SIGINT);
    let outcome = attached.wait();
    assert!(outcome.code == 0 || outcome.code == 130, "{outcome:?}");
    assert!(
        outcome.output_of("ticker").contains(&"ticker: stop".to_owned()),
        "the node heard of it: {}",
        outcome.stdout
    );
    let ended = cluster.cli().until_state("tick", "Finished");
    assert_eq!(ended["result"]["stopped"], true);
    cluster.no_node_is_left();
}

#[test]
fn a_stubborn_node_is_gone_after_the_stop() {
    if python::interpreter().is_none() {
        return;
    }
    let cluster = Cluster::start(&["A"]);
    let files = [
        ("dataflow.yml", STUBBORN_FLOW),
        ("ticker.py", TICKER),
        ("stubborn.py", STUBBORN),
    ];
    let flow = cluster.flow("stubborn", &files);
    let cli = cluster.cli();
    cli.ok(&["start", &flow, "--detach", "--name", "mule"]);
    let mut logs = cli.spawn(&["logs", "mule", "-f"]);
    logs.until_line("stubborn: up");
    let stopped = cli.run(&["stop", "mule", "--grace-duration", "1s"]);
    // Killed after its grace: the stop is done, and the dataflow says that it was not obeyed.
    assert!(stopped.code == 0 || stopped.code == 9, "{stopped:?}");
    cluster.no_node_is_left();
    patience::until("its end in the list", || {
        cli.dataflow("mule")
            .filter(|flow| flow["state"] == "Finished" || flow["state"] == "Failed")
    });
}

#[test]
fn a_node_that_fails_makes_the_dataflow_fail_with_its_last_words() {
    if python::interpreter().is_none() {
        return;
    }
    let cluster = Cluster::start(&["A"]);
    let files = [
        (
            "dataflow.yml",
            "nodes:\n  - id: broken\n    path: broken.py\n    inputs:\n      tick: dora/timer/millis/100\n",
        ),
        (
            "broken.py",
            "from dora import Node\nnode = Node()\nnode.next()\nraise SystemExit('the gripper is on fire')\n",
        ),
    ];
    let flow = cluster.flow("broken", &files);
    let run = cluster.cli().run(&["start", &flow, "--attach", "--name", "broken"]);
    run.exits_with(9).says(&["broken"]);
    let everything = format!("{}{}", run.stdout, run.stderr);
    assert!(everything.contains("the gripper is on fire"), "{everything}");
    let failed = cluster.cli().until_state("broken", "Failed");
    assert_eq!(failed["result"]["failures"][0]["node"], "broken", "{failed}");
    cluster.no_node_is_left();
}

#[test]
fn stop_all_stops_all() {
    if python::interpreter().is_none() {
        return;
    }
    let cluster = Cluster::start(&["A"]);
    let cli = cluster.cli();
    let flow = cluster.flow("tick", &[("dataflow.yml", TICKER_FLOW), ("ticker.py", TICKER)]);
    for name in ["one", "two"] {
        cli.ok(&["start", &flow, "--detach", "--name", name]);
        cli.until_state(name, "Running");
    }
    cli.run(&["stop", "--all"]).exits_with(0);
    for name in ["one", "two"] {
        cli.until_state(name, "Finished");
    }
    cluster.no_node_is_left();
}
