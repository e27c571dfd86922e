//! Dataflows over two machines: placed as pinned, started together, and undone together.

use dora_remote_tests::{
    cluster::{Cluster, text},
    lines::numbers,
    python,
};
use serde_json::Value;
use std::collections::BTreeMap;

#[test]
fn pinned_nodes_run_where_they_are_pinned_and_start_together() {
    if python::interpreter().is_none() {
        return;
    }
    let cluster = Cluster::start(&["A", "B"]);
    let cli = cluster.cli();
    let flow = cluster.example("two-machines");
    let run = cli.run(&["start", &flow, "--attach", "--name", "both", "--format", "json"]);
    run.exits_with(0);
    let placed: BTreeMap<String, String> = run
        .feed()
        .iter()
        .find(|line| line["type"] == "placed")
        .and_then(|line| line["nodes"].as_array().cloned())
        .expect("where the nodes were placed")
        .iter()
        .map(|node| (string(&node["id"]), string(&node["machine"])))
        .collect();
    let pinned = [("odometer-a", "A"), ("odometer-b", "B"), ("wheel-a", "A"), ("wheel-b", "B")];
    assert_eq!(
        placed,
        pinned
            .iter()
            .map(|(node, machine)| ((*node).to_owned(), (*machine).to_owned()))
            .collect()
    );
    for line in run
        .feed()
        .iter()
        .filter(|line| line["type"] == "log" && line["source"] == "node")
    {
        assert_eq!(
            line["machine"].as_str(),
            placed.get(&string(&line["node"])).map(String::as_str),
            "{line}"
        );
    }
    for node in ["wheel-a", "wheel-b"] {
        assert_eq!(numbers(&run.output_of(node), "tick"), (1..=20).collect::<Vec<_>>(), "{node}");
    }
    // Together: no wheel began before both were made. Both clocks are this machine's.
    let times = ["wheel-a", "wheel-b"].map(|node| numbers(&run.output_of(node), "at"));
    let [[made_a, begun_a], [made_b, begun_b]] = times.each_ref().map(|times| [times[0], times[1]]);
    assert!(begun_a.min(begun_b) >= made_a.max(made_b), "made and begun: {times:?}");
    cli.until_state("both", "Finished");
    cluster.no_node_is_left();
}

#[test]
fn one_machine_that_cannot_spawn_stops_the_other_and_says_which_and_why() {
    if python::interpreter().is_none() {
        return;
    }
    let cluster = Cluster::start(&["A", "B"]);
    let cli = cluster.cli();
    // It exists and is executable, so the check passes; the kernel refuses to run it.
    let flow = "
nodes:
  - id: good
    path: good.py
    deploy: { machine: A }
    inputs: { tick: dora/timer/millis/100 }
  - id: bad
    path: bad
    deploy: { machine: B }
    inputs: { tick: dora/timer/millis/100 }
";
    let good = "from dora import Node\nfor event in Node():\n    pass\n";
    let yml = cluster.flow(
        "half",
        &[
            ("dataflow.yml", flow),
            ("good.py", good),
            ("bad", "\u{7f}ELF is all I have\n"),
        ],
    );
    make_executable(std::path::Path::new(&yml).with_file_name("bad").as_path());
    let run = cli.run(&["start", &yml, "--attach", "--name", "half"]);
    run.exits_with(9).says(&["`B`", "`bad`"]);
    let failed = cli.until_state("half", "Failed");
    assert!(failed["running_since"].is_null(), "it never ran: {failed}");
    cluster.no_node_is_left();
}

#[test]
fn a_file_that_one_machine_lacks_is_found_before_anything_is_spawned_anywhere() {
    if python::interpreter().is_none() {
        return;
    }
    let cluster = Cluster::start(&["A", "B"]);
    let flow = "
nodes:
  - id: good
    path: good.py
    deploy: { machine: A }
    inputs: { tick: dora/timer/millis/100 }
  - id: absent
    path: absent.py
    deploy: { machine: B }
    inputs: { tick: dora/timer/millis/100 }
";
    let good = "print('good was here', flush=True)\nfrom dora import Node\nfor event in Node():\n    pass\n";
    let yml = cluster.flow("half", &[("dataflow.yml", flow), ("good.py", good)]);
    // The directory is on the machines already, so only they can tell what is in it.
    let folder = std::path::Path::new(&yml).parent().expect("a folder").to_owned();
    let words = ["start", &yml, "--attach", "--name", "half", "--working-dir", text(&folder)];
    let run = cluster.cli().run(&words);
    assert!(run.code != 0, "{run:?}");
    run.says(&["`B`", "`absent`", "absent.py"]);
    assert!(!run.stdout.contains("good was here"), "a node was spawned: {}", run.stdout);
    assert!(cluster.nodes().is_empty());
}

#[test]
fn a_stop_ends_the_nodes_of_both_machines() {
    if python::interpreter().is_none() {
        return;
    }
    let cluster = Cluster::start(&["A", "B"]);
    let cli = cluster.cli();
    let flow = cluster.example("two-machines");
    let mut attached = cli.spawn(&["start", &flow, "--attach", "--name", "both", "--env", "COUNT=0"]);
    attached.until_line("wheel: tick 3");
    assert_eq!(cluster.nodes().len(), 4);
    cli.run(&["stop", "both"]).exits_with(0);
    attached.wait().exits_with(0);
    assert_eq!(cli.until_state("both", "Finished")["result"]["stopped"], true);
    cluster.no_node_is_left();
}

fn string(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn make_executable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("our own file");
}
