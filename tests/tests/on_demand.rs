//! `daemon --logs on-demand`: nothing of what nodes print crosses the link until somebody reads it, and then all of it does.

use dora_remote_tests::{
    cluster::Cluster,
    faults::{NODE, flow},
    lines::{assert_whole, numbers},
    patience, python,
    relay::{Relay, seed},
    run_cli::Cli,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Lines of 25 bytes that the node prints as fast as it can; 100 a second follow.
const FLOOD: u64 = 20_000;
/// Bytes of them, as the node has written them.
const FLOOD_BYTES: u64 = FLOOD * 25;

/// A coordinator, a machine `A` behind a relay that sends lines on demand, and a flood on it that nobody reads. With the bytes that
/// went through the relay before that.
fn flooded() -> Option<(Cluster, Relay, u64)> {
    python::interpreter()?;
    let mut cluster = Cluster::start(&[]);
    let relay = Relay::start(cluster.address(), seed());
    cluster.let_daemons_dial(&relay.address());
    cluster.let_daemons_have(&["--logs", "on-demand"]);
    cluster.add_machine("A", "");
    cluster.until_connected(&["A"]);
    assert_eq!(cluster.cli().until_machine("A", true)["logs"], "on-demand");
    let yaml = cluster.flow("tick", &[("dataflow.yml", &flow(FLOOD)), ("ticker.py", NODE)]);
    let before = bytes(&relay);
    cluster.cli().ok(&["start", &yaml, "--detach", "--name", "tick"]);
    Some((cluster, relay, before))
}

/// Bytes of lines that the coordinator has stored.
fn stored(cli: &Cli) -> u64 {
    cli.json(&["status"])["log_bytes"].as_u64().expect("a number")
}

/// Bytes that went through, both ways.
fn bytes(relay: &Relay) -> u64 {
    relay.counts().iter().map(|counts| counts.bytes).sum()
}

/// Waits until the node has written so many lines to its file on the machine.
fn until_written(cluster: &Cluster, lines: u64) {
    let folder = cluster.path("A");
    patience::until_true("lines in the file of the node", || {
        let mut files = vec![];
        find(&folder, "log_ticker", &mut files);
        let written: usize = files
            .iter()
            .map(|file| {
                fs::read(file)
                    .unwrap_or_default()
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count()
            })
            .sum();
        written as u64 >= lines
    });
}

fn find(folder: &Path, prefix: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            find(&path, prefix, found);
        } else if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.push(path);
        }
    }
}

/// Numbers of the lines that are read without following.
fn read(cli: &Cli) -> Vec<u64> {
    let outcome = cli.run(&["logs", "tick", "--node", "ticker", "--format", "json"]);
    outcome.exits_with(0).says(&["on demand", "`A`"]);
    numbers(&outcome.output_of("ticker"), "tick")
}

#[test]
fn a_link_is_quiet_while_nobody_reads_and_everything_is_there_once_somebody_does() {
    let Some((cluster, relay, before)) = flooded() else { return };
    let cli = cluster.cli();
    until_written(&cluster, FLOOD);
    let quiet = bytes(&relay) - before;
    assert!(quiet < FLOOD_BYTES / 10, "{quiet} bytes for nobody");
    assert_eq!(stored(&cli), 0, "packed lines may be small, but there is none");

    let first = read(&cli);
    assert!(
        first.len() as u64 >= FLOOD,
        "what existed when it was asked for: {}",
        first.len()
    );
    assert_whole("the flood", &first, 1);

    // Nobody reads any more. What is under way still comes.
    let mut kept = stored(&cli);
    patience::until_true("the end of the sending", || {
        stored(&cli) == std::mem::replace(&mut kept, stored(&cli))
    });
    let (before, written) = (bytes(&relay), first.len() as u64);
    until_written(&cluster, written + 600);
    let quiet = bytes(&relay) - before;
    assert!(quiet < 600 * 25 / 2, "{quiet} bytes for nobody");
    assert_eq!(stored(&cli), kept, "no line came for nobody");

    let second = read(&cli);
    assert!(second.len() >= first.len() + 600);
    assert_whole("the flood and what followed", &second, 1);
    cli.run(&["stop", "tick"]).exits_with(0);
    assert_whole("what an ended dataflow has left on its machine", &read(&cli), 1);
}

#[test]
fn followers_get_every_line_over_a_coordinator_and_an_agent_that_are_killed() {
    let Some((mut cluster, _relay, _)) = flooded() else { return };
    let cli = cluster.cli();
    let mut follower = cli.spawn(&["logs", "tick", "--follow", "--format", "json"]);
    follower.until_line(&format!("tick {} ", FLOOD + 50));
    cluster.kill_coordinator();
    until_written(&cluster, FLOOD + 300);
    cluster.start_coordinator();
    follower.until_line(&format!("tick {} ", FLOOD + 300));
    cluster.kill_daemon("A");
    until_written(&cluster, FLOOD + 600);
    cluster.start_daemon("A");
    follower.until_line(&format!("tick {} ", FLOOD + 600));
    cli.run(&["stop", "tick"]).exits_with(0);
    let followed = follower.wait();
    assert_whole(
        "what was followed",
        &numbers(&followed.exits_with(0).output_of("ticker"), "tick"),
        1,
    );
}

#[test]
fn a_machine_that_cannot_be_reached_is_named_with_the_age_of_the_copy() {
    let Some((cluster, relay, _)) = flooded() else { return };
    let cli = cluster.cli();
    until_written(&cluster, FLOOD);
    let known = read(&cli);
    relay.cut();
    cli.until_machine("A", false);
    let outcome = cli.run(&["logs", "tick", "--node", "ticker", "--format", "json"]);
    outcome
        .exits_with(8)
        .says(&["`A` cannot be reached", "the newest line here was written"]);
    let copy = numbers(&outcome.output_of("ticker"), "tick");
    assert!(copy.len() >= known.len());
    assert_whole("the copy", &copy, 1);
    let _ = relay.heal();
    cli.until_machine("A", true);
    assert!(read(&cli).len() > copy.len());
}
