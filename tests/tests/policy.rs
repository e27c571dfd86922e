//! What the owner of a machine lets others start on it: refused by the machine itself, or run.

use dora_remote_tests::{
    cluster::{Cluster, text},
    flows::{TICKER, TICKER_FLOW},
    python,
    run_cli::{Cli, Outcome},
};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

/// Exit codes as `dora-remote --help` lists them.
const USAGE: i32 = 2;
const DENIED: i32 = 4;

/// A node on machine A that is as harmless as can be.
const ON_A: &str = "
  - id: ticker
    path: ticker.py
    inputs: { tick: dora/timer/millis/100 }
    deploy: { machine: A }
";

#[test]
fn forbidden_nodes_are_refused_by_their_machine_and_nothing_runs_anywhere() {
    if python::interpreter().is_none() {
        return;
    }
    let mut cluster = Cluster::start(&["A"]);
    cluster.set_policy("R", "[run]\nexecutables = ['bundle']\npython = true\n");
    cluster.add_machine("R", "");
    cluster.until_connected(&["R"]);
    assert!(cluster.daemon_log("A").contains("this machine has no policy"));
    assert!(cluster.daemon_log("R").contains("executables: bundle, python"));
    let cli = cluster.cli();

    let on_r = |path: &str| format!("  - id: x\n    path: {path}\n    deploy: {{ machine: R }}\n");
    for (flow, what) in [
        // One node on each machine: A must not start its own either.
        (
            format!("nodes:{ON_A}{}", on_r("/bin/sh\n    args: -c 'sleep 600'")),
            "its executable /",
        ),
        (format!("nodes:\n{}", on_r("run.sh")), "it is a script for `/bin/sh`"),
        (
            format!("nodes:\n{}", on_r("https://127.0.0.1:1/x")),
            "it is downloaded from a URL",
        ),
        (
            format!("nodes:\n{}    build: make\n", on_r("ticker.py")),
            "it has a `build:` command",
        ),
        (
            format!("env: {{ LD_PRELOAD: /tmp/x.so }}\nnodes:\n{}", on_r("ticker.py")),
            "it sets the variable `LD_PRELOAD`",
        ),
        (
            format!("nodes:\n{}    env: {{ PYTHONPATH: /tmp }}\n", on_r("ticker.py")),
            "it sets the variable `PYTHONPATH`",
        ),
    ] {
        let flow = cluster.flow(
            "f",
            &[("dataflow.yml", &flow), ("ticker.py", TICKER), ("run.sh", "#!/bin/sh\n")],
        );
        let script = cluster.path("laptop/f/run.sh");
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("our own file");
        let outcome = forbidden(&cluster, &cli, &["start", &flow]);
        outcome.says(&["machine `R` forbids", what, "the policy on the machine decides that"]);
    }

    // What is allowed runs, on both together.
    let flow = format!(
        "nodes:{ON_A}{}    inputs: {{ tick: dora/timer/millis/100 }}\n",
        on_r("ticker.py")
    );
    let flow = cluster.flow("g", &[("dataflow.yml", &flow), ("ticker.py", TICKER)]);
    cli.ok(&["start", &flow, "--detach", "--name", "g"]);
    cli.until_state("g", "Running");
    assert_eq!(cluster.nodes().len(), 2);
    cli.run(&["stop", "g"]).exits_with(0);
    cluster.no_node_is_left();
}

#[test]
fn a_machine_says_who_may_start_and_from_which_directory() {
    if python::interpreter().is_none() {
        return;
    }
    let mut cluster = Cluster::start(&[]);
    let root = cluster.path("programs");
    fs::create_dir(&root).expect("our own folder");
    fs::write(root.join("ticker.py"), TICKER).expect("our own folder");
    fs::write(cluster.path("other.py"), TICKER).expect("our own folder");
    symlink(cluster.path("other.py"), root.join("link.py")).expect("our own folder");
    let policy = format!(
        "[start]\nnames = ['operator/olga']\n[run]\nexecutables = ['{}']\npython = true\n",
        root.display()
    );
    cluster.set_policy("R", &policy);
    cluster.add_machine("R", "");
    cluster.until_connected(&["R"]);
    let olga = cluster.cli().with_identity(&cluster.issue("operator", "olga", &[]));
    let start = |cli: &Cli, path: &str| {
        let flow = cluster.flow("f", &[("dataflow.yml", &TICKER_FLOW.replace("ticker.py", path))]);
        cli.run(&["start", &flow, "--working-dir", text(&root), "--detach", "--name", "f"])
    };

    let outcome = start(&cluster.cli(), "ticker.py");
    outcome
        .exits_with(DENIED)
        .says(&["machine `R` forbids `admin/", "`start.names`"]);
    for path in ["link.py", "../other.py", text(&cluster.path("other.py"))] {
        let outcome = start(&olga, path);
        let real = cluster.path("other.py");
        outcome.exits_with(DENIED).says(&["node `ticker`: its script ", text(&real)]);
    }
    assert!(cluster.nodes().is_empty(), "{:?}", cluster.nodes());
    start(&olga, "ticker.py").exits_with(0);
    olga.until_state("f", "Running");
    olga.run(&["stop", "f"]).exits_with(0);
    cluster.no_node_is_left();
}

#[test]
fn a_daemon_does_not_start_without_the_policy_that_it_was_told_of() {
    let cluster = Cluster::authority_only();
    let identity = cluster.issue("daemon", "R", &[]);
    let cli = cluster.cli().with_identity(&identity);
    let (path, state) = (cluster.path("policy.toml"), cluster.path("R"));
    let daemon = || cli.run(&["daemon", "--state", text(&state), "--policy", text(&path)]);
    daemon().exits_with(USAGE).says(&["policy.toml", "No such file"]);
    fs::write(&path, "[run]\nshell = false\nbogus = true\n").expect("our own folder");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("our own file");
    daemon().exits_with(USAGE).says(&["policy.toml:3: ", "bogus"]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("our own file");
    daemon().exits_with(USAGE).says(&["policy.toml", "mode 666"]);
    assert!(!state.exists(), "nothing was begun");
}

/// Runs a start that its machine must refuse, and asserts that it left nothing.
#[track_caller]
fn forbidden(cluster: &Cluster, cli: &Cli, words: &[&str]) -> Outcome {
    let outcome = cli.run(words);
    outcome.exits_with(DENIED);
    for flow in cli.json(&["list"])["dataflows"].as_array().expect("dataflows") {
        assert_eq!(flow["state"], "Failed", "{flow}");
    }
    assert!(cluster.nodes().is_empty(), "{:?}", cluster.nodes());
    outcome
}
