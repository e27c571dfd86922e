//! The network as it is: a coordinator in the cloud, a laptop, a robot behind NAT that nobody can dial, and a link that is cut.
//!
//! `DORA_REMOTE_LONG=1` cuts the link for 150 s instead of 20 s.

use dora_remote_tests::{
    cluster::Cluster,
    flows::{TICKER, TICKER_FLOW},
    lines::{assert_rising, assert_whole, numbers},
    netns::{CLOUD, CLOUD_LATER, ROUTER, ROUTER_LATER, TOWER, World},
    patience, python,
    run_cli::Running,
};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

#[test]
fn rust_pipeline_from_a_laptop_to_a_robot_behind_nat() {
    let Some(world) = World::new() else { return };
    pipeline(world, "rust-pipeline", ["source", "sink"], "reading");
}

#[test]
fn python_pipeline_from_a_laptop_to_a_robot_behind_nat() {
    if python::interpreter().is_none() {
        return;
    }
    let Some(world) = World::new() else { return };
    pipeline(world, "python-pipeline", ["camera", "logger"], "frame");
}

#[test]
fn a_cut_link_stalls_nothing_and_loses_nothing() {
    let Some((cluster, attached)) = ticking() else { return };
    let cli = cluster.cli();
    let long = std::env::var_os("DORA_REMOTE_LONG").is_some_and(|value| value == "1");
    let cut = Duration::from_secs(if long { 150 } else { 20 });
    let node = cluster.nodes();

    cluster.world().cut();
    let mut told = false;
    patience::for_a_while(cut, || {
        if let Some(flow) = cli.dataflow("tick").filter(|_| !told) {
            assert_eq!(flow["state"], "Running", "a cut is no reason to give it up: {flow}");
            told = flow["unreachable"]
                .as_array()
                .is_some_and(|machines| machines.iter().any(|m| m["machine"] == "robot"));
        }
    });
    assert!(told, "`list` never said that the robot is unreachable");
    let machine = cli.until_machine("robot", false);
    assert!(machine["last_heard"].is_string(), "{machine}");
    cluster.world().heal();

    cluster.until_connected(&["robot"]);
    let healed = patience::until("the dataflow as reachable again", || {
        cli.dataflow("tick")
            .filter(|flow| flow["unreachable"].as_array().is_some_and(Vec::is_empty))
    });
    assert_eq!(healed["state"], "Running");
    assert_eq!(
        cluster.nodes().iter().map(|process| process.pid).collect::<Vec<_>>(),
        node.iter().map(|process| process.pid).collect::<Vec<_>>(),
        "the node is the same process"
    );
    let ticks = attached.output_of("ticker").len();
    patience::until_true("lines in the attached terminal again", || {
        attached.output_of("ticker").len() > ticks + 20
    });
    cli.run(&["stop", "tick"]).exits_with(0);
    let outcome = attached.wait();
    let lines = outcome.exits_with(0).output_of("ticker");
    let ticks = numbers(&lines, "tick");
    assert_whole("ticks over a cut", &ticks, 1);

    // By its own clock the node never stood still. The bound is far below the cut, and above what a busy machine does.
    let times = numbers(&lines, "at");
    let stall = times
        .windows(2)
        .map(|pair| pair[1].saturating_sub(pair[0]))
        .max()
        .expect("several ticks");
    assert!(u128::from(stall) < cut.as_millis() / 4, "the node stood still for {stall} ms");
    let span = times.last().expect("ticks") - times[0];
    assert!(
        u128::from(span) > cut.as_millis(),
        "the cut lies within the {span} ms that were recorded"
    );
    cluster.no_node_is_left();
}

#[test]
fn a_nat_that_forgets_and_one_that_moves_cost_nothing() {
    let Some((cluster, attached)) = ticking() else { return };
    let cli = cluster.cli();
    let node = cluster.nodes()[0].pid;
    let address = || {
        cli.until_machine("robot", true)["address"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let first = address();

    cluster.world().rebind_ports();
    let second = patience::until("the robot at another port", || Some(address()).filter(|now| *now != first));
    assert!(second.contains(ROUTER), "{second}");
    let ticks = attached.output_of("ticker").len();
    patience::until_true("lines through the other port", || {
        attached.output_of("ticker").len() > ticks + 20
    });

    cluster.world().rebind_address();
    let third = patience::until("the robot at another address", || {
        Some(address()).filter(|now| *now != second)
    });
    assert!(third.contains(ROUTER_LATER), "{third}");
    let ticks = attached.output_of("ticker").len();
    patience::until_true("lines through the other address", || {
        attached.output_of("ticker").len() > ticks + 20
    });

    assert_eq!(cluster.nodes()[0].pid, node, "the node is the same process");
    cli.run(&["stop", "tick"]).exits_with(0);
    let lines = attached.wait().exits_with(0).output_of("ticker");
    assert_whole("ticks over two rebinds", &numbers(&lines, "tick"), 1);
    cluster.no_node_is_left();
}

#[test]
fn a_coordinator_that_moves_is_found_by_its_name() {
    let Some(world) = World::new() else { return };
    let mut cluster = Cluster::in_world(world);
    cluster.set_hosts(&format!("{CLOUD} coordinator.test\n"));
    cluster.let_daemons_dial("coordinator.test:6013");
    cluster.stop_daemon("robot");
    cluster.start_daemon("robot");
    let joined = |cluster: &Cluster, address: &str| {
        let log = cluster.daemon_log("robot");
        log.lines()
            .any(|line| line.contains(" joined ") && line.contains(address) && line.contains("coordinator"))
    };
    cluster.until_connected(&["robot"]);
    let agent = cluster.daemon_pid("robot");

    cluster.move_cloud();
    let cli = cluster.cli();
    cli.until_machine("robot", false);
    assert!(!joined(&cluster, CLOUD_LATER), "nobody has told it");
    cluster.set_hosts(&format!("{CLOUD_LATER} coordinator.test\n"));
    patience::until_true("the robot at the new address", || joined(&cluster, CLOUD_LATER));
    cli.until_machine("robot", true);
    assert_eq!(cluster.daemon_pid("robot"), agent, "it came back by itself");
}

#[test]
#[expect(clippy::print_stderr, reason = "the result of a measurement")]
fn from_wifi_to_a_mobile_network_and_a_laptop_that_moves() {
    let Some((cluster, attached)) = ticking() else { return };
    let cli = cluster.cli();
    let node = cluster.nodes()[0].pid;
    let live_again = |what: &str| {
        let (began, ticks) = (Instant::now(), attached.output_of("ticker").len());
        patience::until_true("lines again", || attached.output_of("ticker").len() > ticks);
        eprintln!("{what}: lines again after {} ms", began.elapsed().as_millis());
        patience::until_true("more lines", || attached.output_of("ticker").len() > ticks + 20);
    };

    // The node prints on while there is no network at all.
    cluster.world().robot_leaves();
    patience::for_a_while(Duration::from_secs(2), || assert!(dora_remote_tests::processes::lives(node)));
    cluster.world().robot_to_mobile();
    live_again("robot from Wi-Fi to a mobile network");
    let seen = patience::until("the robot in the mobile network", || {
        let seen = cli.until_machine("robot", true)["address"].as_str()?.to_owned();
        seen.contains(TOWER).then_some(seen)
    });
    assert!(
        cluster.daemon_log("robot").contains("another network"),
        "the change was told and not waited for; it is seen as {seen}"
    );

    cluster.world().move_laptop();
    live_again("laptop with another address");

    assert_eq!(cluster.nodes()[0].pid, node, "the node is the same process");
    cli.run(&["stop", "tick"]).exits_with(0);
    let lines = attached.wait().exits_with(0).output_of("ticker");
    assert_whole("ticks over two networks", &numbers(&lines, "tick"), 1);
    cluster.no_node_is_left();
}

/// A robot behind NAT that ticks, and a laptop that is attached to it. None, said loudly, where that is not possible.
fn ticking() -> Option<(Cluster, Running)> {
    python::interpreter()?;
    let cluster = Cluster::in_world(World::new()?);
    let flow = cluster.flow("tick", &[("dataflow.yml", TICKER_FLOW), ("ticker.py", TICKER)]);
    let mut attached = cluster
        .cli()
        .spawn(&["start", &flow, "--attach", "--name", "tick", "--format", "json"]);
    attached.until_line("tick 5 ");
    Some((cluster, attached))
}

fn pipeline(world: World, example: &str, [first, last]: [&str; 2], word: &str) {
    let cluster = Cluster::in_world(world);
    let cli = cluster.cli();
    let machine = cli.until_machine("robot", true);
    assert!(
        machine["address"].as_str().is_some_and(|address| address.contains(ROUTER)),
        "the coordinator sees the router, not the robot: {machine}"
    );
    let flow = cluster.example(example);

    // Attached, to its own end.
    let run = cli.run(&["start", &flow, "--attach", "--name", "short", "--format", "json"]);
    run.exits_with(0);
    assert_eq!(numbers(&run.output_of(first), word), (1..=20).collect::<Vec<_>>());
    assert_rising("numbers that arrived", &numbers(&run.output_of(last), word));
    let ended = cli.until_state("short", "Finished");
    assert_eq!(ended["result"]["success"], true);

    // Without an end, until it is stopped.
    let mut attached = cli.spawn(&[
        "start", &flow, "--attach", "--name", "endless", "--env", "COUNT=0", "--format", "json",
    ]);
    attached.until_line(&format!("{first}: {word} 10 "));
    let running = cli.until_state("endless", "Running");
    assert!(
        running["nodes"]
            .as_array()
            .expect("nodes")
            .iter()
            .all(|node| node["machine"] == "robot"),
        "{running}"
    );
    let nodes = cluster.nodes();
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    let laptop = cluster.path("laptop");
    for node in &nodes {
        let folder = fs::read_link(Path::new("/proc").join(node.pid.to_string()).join("cwd")).expect("a living node");
        assert!(
            !folder.starts_with(&laptop),
            "the robot has its own copy, not {}",
            folder.display()
        );
    }
    cli.run(&["stop", "endless"]).exits_with(0);
    let outcome = attached.wait();
    assert_whole(
        "numbers until the stop",
        &numbers(&outcome.exits_with(0).output_of(first), word),
        1,
    );
    let ended = cli.until_state("endless", "Finished");
    assert_eq!(ended["result"]["stopped"], true);
    cluster.no_node_is_left();
}
