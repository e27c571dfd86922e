//! Link-loss policies: what a machine stops by itself while nobody can reach it, and what goes on.

use dora_remote_tests::{
    cluster::Cluster,
    flows::{TICKER, TICKER_FLOW},
    patience, python,
    relay::{Relay, seed},
};
use serde_json::Value;

/// Two seconds above the least that is possible: loaded machines answer late.
const POLICY: &str = "stop-after=7s";

/// A coordinator, and one machine `A` behind a relay.
fn behind_a_relay() -> Option<(Cluster, Relay)> {
    python::interpreter()?;
    let mut cluster = Cluster::start(&[]);
    let relay = Relay::start(cluster.address(), seed());
    cluster.let_daemons_dial(&relay.address());
    cluster.add_machine("A", "");
    cluster.until_connected(&["A"]);
    Some((cluster, relay))
}

fn ticker(cluster: &Cluster, name: &str) -> String {
    cluster.flow(name, &[("dataflow.yml", TICKER_FLOW), ("ticker.py", TICKER)])
}

fn events<'a>(feed: &'a [Value], kind: &str) -> Vec<&'a Value> {
    feed.iter().filter(|line| line["type"] == kind).collect()
}

/// Says in the end how the dataflow stands, that its policy is the reason, and that this was told once.
fn assert_stopped_by_policy(cluster: &Cluster, name: &str) -> Value {
    let ended = cluster.cli().until_state(name, "Failed");
    assert_eq!(ended["on_link_loss"], POLICY);
    assert_eq!(ended["result"]["stopped"], false, "nobody asked for it: {ended}");
    let note = ended["result"]["note"].as_str().expect("a note");
    assert_eq!(note.matches("link-loss policy stopped it on `A`").count(), 1, "{ended}");
    let logs = cluster.cli().run(&["logs", name, "--format", "json"]).exits_with(0).feed();
    let told = |line: &&Value| {
        line["text"]
            .as_str()
            .is_some_and(|text| text.starts_with("stopped by its link-loss policy"))
    };
    assert_eq!(
        logs.iter().filter(told).count(),
        1,
        "a message of the machine, with its own time"
    );
    ended
}

#[test]
fn a_machine_that_nobody_can_reach_stops_what_its_policy_says_and_lets_the_rest_go_on() {
    let Some((cluster, relay)) = behind_a_relay() else { return };
    let cli = cluster.cli();
    let (ends, stays) = (ticker(&cluster, "ends"), ticker(&cluster, "stays"));
    cli.ok(&["start", &stays, "--detach", "--name", "stays"]);
    let mut attached = cli.spawn(&["start", &ends, "--name", "ends", "--on-link-loss", POLICY, "--format", "json"]);
    attached.until_line("tick 5 ");
    assert_eq!(cluster.nodes().len(), 2);

    relay.cut();
    patience::until_true("the end of one node, in the cut", || cluster.nodes().len() == 1);
    patience::until_true("the machine is listed as unreachable, and nobody knows better", || {
        let ends = cli.dataflow("ends").expect("listed");
        ends["state"] == "Running" && ends["unreachable"][0]["machine"] == "A"
    });
    let _ = relay.heal();

    let outcome = attached.wait();
    outcome.exits_with(9).says(&["link-loss policy", "`A`"]);
    let feed = outcome.feed();
    let told = events(&feed, "link-lost");
    assert_eq!(told.len(), 1, "{told:?}");
    let ended = assert_stopped_by_policy(&cluster, "ends");
    // By the machine's clock, which is also ours: the end lies behind the decision, and both before the return was noticed.
    assert!(told[0]["time"].as_str() <= ended["ended"].as_str(), "{told:?} {ended}");
    assert!(told[0]["silent_ms"].as_u64() >= Some(7_000), "{told:?}");

    let stays = cli.until_state("stays", "Running");
    assert_eq!(stays["on_link_loss"], "keep");
    assert_eq!(cluster.nodes().len(), 1, "the other one is the same process");
    cli.run(&["stop", "stays"]).exits_with(0);
    cluster.no_node_is_left();
}

#[test]
fn an_agent_that_was_killed_and_restarted_in_the_cut_still_does_it() {
    let Some((mut cluster, relay)) = behind_a_relay() else {
        return;
    };
    let cli = cluster.cli();
    let yaml = cluster.flow(
        "ends",
        &[
            ("dataflow.yml", TICKER_FLOW),
            ("ticker.py", TICKER),
            (".dora-remote.toml", &format!("on-link-loss = '{POLICY}'\n")),
        ],
    );
    cli.ok(&["start", &yaml, "--detach", "--name", "ends"]);
    assert_eq!(cli.until_state("ends", "Running")["on_link_loss"], POLICY);
    patience::until_true("its node", || cluster.nodes().len() == 1);

    relay.cut();
    cluster.kill_daemon("A");
    assert_eq!(cluster.nodes().len(), 1, "the node goes on without its agent");
    cluster.start_daemon("A");
    patience::until_true("the end of the node, in the cut", || cluster.nodes().is_empty());
    // A second life of the agent tells it, and does not do it again.
    cluster.kill_daemon("A");
    cluster.start_daemon("A");
    let _ = relay.heal();
    assert_stopped_by_policy(&cluster, "ends");
}

#[test]
fn what_is_left_on_other_machines_is_ended_once_the_machine_has_told_it() {
    let Some((mut cluster, relay)) = behind_a_relay() else {
        return;
    };
    let address = cluster.address().to_owned();
    cluster.let_daemons_dial(&address);
    cluster.add_machine("B", "");
    cluster.until_connected(&["A", "B"]);
    let cli = cluster.cli();
    let yaml = cluster.example("two-machines");
    let start = ["start", &yaml, "--name", "both", "--env", "COUNT=0", "--on-link-loss", POLICY];
    let mut attached = cli.spawn(&start);
    attached.until_line("wheel: tick 3");
    let all = cluster.nodes().len();

    relay.cut();
    patience::until_true("the end of the nodes of one machine", || {
        let left = cluster.nodes().len();
        left > 0 && left < all
    });
    assert_eq!(
        cli.dataflow("both").expect("listed")["state"],
        "Running",
        "nobody has heard of it"
    );
    let _ = relay.heal();
    attached.wait().exits_with(9).says(&["link-loss policy", "`A`"]);
    assert_stopped_by_policy(&cluster, "both");
    cluster.no_node_is_left();
}
