//! Starts that cannot be: each has its own words and exit code, and nothing is half started.

use dora_remote_tests::{
    cluster::{Cluster, text},
    flows::{TICKER, TICKER_FLOW},
    python,
    run_cli::Outcome,
};
use std::{fs, os::unix::fs::symlink};

/// Exit codes as `dora-remote --help` lists them.
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;

#[test]
fn missing_node_file() {
    let cluster = Cluster::start(&["A"]);
    let flow = cluster.flow("f", &[("dataflow.yml", TICKER_FLOW)]);
    let run = refused(&cluster, &["start", &flow, "--name", "f"]);
    run.exits_with(FAILED).says(&["`ticker`", "ticker.py"]);
}

#[test]
fn broken_yaml_names_file_and_line() {
    let cluster = Cluster::start(&["A"]);
    let flow = cluster.flow("f", &[("dataflow.yml", "nodes:\n  - id: cam\n    path: [oops\n")]);
    refused(&cluster, &["start", &flow]).says(&["dataflow.yml", "line"]);
    let unknown_key = "nodes:\n  - id: cam\n    path: cam.py\n    inputs:\n      image: nobody/image\n";
    let flow = cluster.flow("g", &[("dataflow.yml", unknown_key), ("cam.py", "")]);
    refused(&cluster, &["start", &flow]).says(&["nobody"]);
    let absent = cluster.path("laptop/none.yml");
    let run = refused(&cluster, &["start", text(&absent)]);
    run.says(&["none.yml"]);
}

#[test]
fn unknown_machine_lists_those_that_are_known() {
    let cluster = Cluster::start(&["A", "B"]);
    let pinned = TICKER_FLOW.replace("path: ticker.py", "path: ticker.py\n    deploy: { machine: moon }");
    let flow = cluster.flow("f", &[("dataflow.yml", &pinned), ("ticker.py", TICKER)]);
    refused(&cluster, &["start", &flow])
        .exits_with(NOT_FOUND)
        .says(&["moon", "A", "B"]);
    let flow = cluster.flow("g", &[("dataflow.yml", TICKER_FLOW), ("ticker.py", TICKER)]);
    refused(&cluster, &["start", &flow, "--machine", "moon"])
        .exits_with(NOT_FOUND)
        .says(&["moon"]);
}

#[test]
fn label_that_nobody_has() {
    let mut cluster = Cluster::start(&["A"]);
    cluster.add_machine("C", "gpu=no,arm=left");
    cluster.until_connected(&["C"]);
    let labelled = TICKER_FLOW.replace("path: ticker.py", "path: ticker.py\n    deploy: { labels: { gpu: \"yes\" } }");
    let flow = cluster.flow("f", &[("dataflow.yml", &labelled), ("ticker.py", TICKER)]);
    refused(&cluster, &["start", &flow])
        .exits_with(NOT_FOUND)
        .says(&["gpu", "yes", "ticker"]);
}

#[test]
fn unpinned_node_and_several_machines() {
    if python::interpreter().is_none() {
        return;
    }
    let cluster = Cluster::start(&["A", "B"]);
    let flow = cluster.flow("f", &[("dataflow.yml", TICKER_FLOW), ("ticker.py", TICKER)]);
    refused(&cluster, &["start", &flow])
        .exits_with(USAGE)
        .says(&["A", "B", "--machine"]);
    // With the hint followed it works.
    let cli = cluster.cli();
    cli.ok(&["start", &flow, "--detach", "--name", "f", "--machine", "B"]);
    assert_eq!(cli.until_state("f", "Running")["nodes"][0]["machine"], "B");
    cli.run(&["stop", "f"]).exits_with(0);
}

#[test]
fn name_that_is_taken() {
    if python::interpreter().is_none() {
        return;
    }
    let cluster = Cluster::start(&["A"]);
    let cli = cluster.cli();
    let flow = cluster.flow("f", &[("dataflow.yml", TICKER_FLOW), ("ticker.py", TICKER)]);
    let id = cli.ok(&["start", &flow, "--detach", "--name", "tick"]).trim().to_owned();
    let run = cli.run(&["start", &flow, "--detach", "--name", "TICK"]);
    run.exits_with(FAILED).says(&["tick", &id]);
    assert_eq!(cluster.nodes().len(), 1);
    // Without `--name` the name is a wish.
    let folder_name = cluster.flow("tick", &[("dataflow.yml", TICKER_FLOW), ("ticker.py", TICKER)]);
    cli.ok(&["start", &folder_name, "--detach"]);
    cli.run(&["stop", "--all"]).exits_with(0);
    // And an ended one leaves its name free.
    cli.ok(&["start", &flow, "--detach", "--name", "tick"]);
    cli.run(&["stop", "tick"]).exits_with(0);
}

#[test]
fn unknown_dataflow() {
    let cluster = Cluster::start(&["A"]);
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    for name in ["nobody", id] {
        for verb in [&["stop", name][..], &["logs", name]] {
            cluster.cli().run(verb).exits_with(NOT_FOUND).says(&[name]);
        }
    }
}

#[test]
fn wrong_usage() {
    let cluster = Cluster::start(&[]);
    for words in [&["start"][..], &["frobnicate"], &["stop", "--grace-duration", "soon", "f"]] {
        cluster.cli().run(words).exits_with(USAGE);
    }
}

#[test]
fn no_machine_at_all() {
    let cluster = Cluster::start(&[]);
    let flow = cluster.flow("f", &[("dataflow.yml", TICKER_FLOW), ("ticker.py", TICKER)]);
    let run = refused(&cluster, &["start", &flow]);
    run.says(&["machine"]);
}

#[test]
fn bundle_with_a_link_out_of_its_folder_is_refused_before_it_is_sent() {
    let cluster = Cluster::start(&["A"]);
    let flow = cluster.flow("f", &[("dataflow.yml", TICKER_FLOW), ("ticker.py", TICKER)]);
    let folder = cluster.path("laptop/f");
    symlink("/etc/hostname", folder.join("secret")).expect("our own folder");
    refused(&cluster, &["start", &flow]).says(&["secret"]);
    fs::remove_file(folder.join("secret")).expect("our own folder");

    let outside = TICKER_FLOW.replace("path: ticker.py", "path: ../ticker.py");
    let flow = cluster.flow("g", &[("dataflow.yml", &outside)]);
    fs::write(cluster.path("laptop/ticker.py"), TICKER).expect("our own folder");
    refused(&cluster, &["start", &flow]).says(&["../ticker.py"]);
}

#[test]
fn coordinator_that_is_not_there_is_unreachable_within_seconds() {
    let cluster = Cluster::authority_only();
    let outcome = cluster.cli().run(&["list"]);
    outcome.exits_with(5).says(&[cluster.address()]);
    assert!(outcome.took.as_secs() < 30, "{:?}", outcome.took);
}

/// Runs a start that must be refused, and asserts that it left nothing: no node, no live dataflow.
#[track_caller]
fn refused(cluster: &Cluster, words: &[&str]) -> Outcome {
    let cli = cluster.cli();
    let outcome = cli.run(words);
    assert!(outcome.code != 0 && outcome.code < 128, "{outcome:?}");
    outcome.says(&["error: "]);
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    let list = cli.json(&["list"]);
    for flow in list["dataflows"].as_array().expect("dataflows") {
        assert_eq!(flow["state"], "Failed", "{flow}");
    }
    assert!(cluster.nodes().is_empty(), "{:?}", cluster.nodes());
    outcome
}
