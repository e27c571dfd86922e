//! A disk that somebody else fills up: on the robot, and on the coordinator's host.

use dora_remote_tests::{
    cluster::Cluster,
    patience,
    run_cli::{Outcome, Running},
    small_disk::{SmallDisk, in_own_mounts},
};
use serde_json::Value;
use std::{fs, path::PathBuf};

/// A node that prints numbered lines until a file appears. Beside the cluster's small disks it notes how many it has printed and the
/// longest time in milliseconds that one line took.
const PRINTER: &str = r#"
import os, sys, time
from dora import Node

notes, end = sys.argv[1], sys.argv[2]
node, number, worst, last = Node(), 0, 0.0, time.monotonic()
while not os.path.exists(end):
    number += 1
    print(f"line {number}", flush=True)
    now = time.monotonic()
    worst, last = max(worst, now - last), now
    if number % 20 == 0:
        with open(notes + ".new", "w") as file:
            file.write(f"{number} {worst * 1000:.0f}")
        os.replace(notes + ".new", notes)
    time.sleep(0.003)
    last = time.monotonic()
with open(notes, "w") as file:
    file.write(f"{number} {worst * 1000:.0f}")
"#;

/// One running [`PRINTER`].
struct Printer {
    notes: PathBuf,
    end: PathBuf,
}

impl Printer {
    fn start(cluster: &Cluster) -> Self {
        let printer = Self {
            notes: cluster.path("notes"),
            end: cluster.path("end"),
        };
        let yaml = format!(
            "nodes:\n  - id: printer\n    path: printer.py\n    args: {} {}\n",
            printer.notes.display(),
            printer.end.display()
        );
        let flow = cluster.flow("printing", &[("dataflow.yml", &yaml), ("printer.py", PRINTER)]);
        cluster.cli().ok(&["start", &flow, "--detach", "--name", "printing"]);
        printer.until_printed(200);
        printer
    }

    /// How many lines it has printed, and the longest time of one in milliseconds.
    fn noted(&self) -> (u64, u64) {
        let text = fs::read_to_string(&self.notes).unwrap_or_default();
        let mut words = text.split(' ').map(|word| word.parse().unwrap_or(0));
        (words.next().unwrap_or(0), words.next().unwrap_or(0))
    }

    fn until_printed(&self, lines: u64) {
        patience::until_true("the node to go on printing", || self.noted().0 >= lines);
    }

    fn until_printed_more(&self, lines: u64) {
        self.until_printed(self.noted().0 + lines);
    }

    fn end(&self) {
        fs::write(&self.end, "").expect("our own folder");
    }
}

/// Numbers of the lines of the node, and the lines of each gap.
fn lines_and_gaps(outcome: &Outcome) -> (Vec<u64>, Vec<u64>) {
    let lines = outcome.output_of("printer");
    let numbers = dora_remote_tests::lines::numbers(&lines, "line");
    let gap = |item: &Value| (item["type"] == "gap").then(|| item["lines"].as_u64().expect("a count"));
    (numbers, outcome.feed().iter().filter_map(gap).collect())
}

fn until_followed(follower: &Running, beyond: u64) {
    patience::until_true("new lines at the follower", || {
        let numbers = dora_remote_tests::lines::numbers(&follower.output_of("printer"), "line");
        numbers.last().is_some_and(|last| *last > beyond)
    });
}

#[test]
fn a_full_disk_of_the_robot_costs_one_counted_gap_and_stops_nothing() {
    if !in_own_mounts("a_full_disk_of_the_robot_costs_one_counted_gap_and_stops_nothing") {
        return;
    }
    let mut cluster = Cluster::authority_only();
    let disk = SmallDisk::mount(&cluster.path("robot"), 48);
    cluster.start_coordinator();
    cluster.add_machine("robot", "");
    cluster.until_connected(&["robot"]);
    let cli = cluster.cli();
    let printer = Printer::start(&cluster);
    let mut follower = cli.spawn(&["logs", "printing", "--follow", "--format", "json"]);
    until_followed(&follower, 200);
    let engine = cluster.engine_pid("robot");

    disk.fill();
    follower.until_line("its output cannot be written, and lines are lost");
    printer.until_printed_more(500);
    assert_eq!(cli.until_state("printing", "Running")["name"], "printing");
    let other = cluster.flow("other", &[("dataflow.yml", "nodes:\n  - {id: a, path: /bin/true}\n")]);
    cli.run(&["start", &other, "--detach"]).says(&["MiB free", "kept free"]);
    patience::until_true("the status to show the full disk", || {
        let disk = &cli.json(&["status"])["disks"]["robot"];
        disk["free_bytes"] == 0 && disk["log_bytes"].as_u64() > Some(0)
    });

    // An agent that dies now finds room for its own records.
    cluster.kill_daemon("robot");
    printer.until_printed_more(200);
    cluster.start_daemon("robot");
    cluster.until_connected(&["robot"]);
    printer.until_printed_more(200);
    assert_eq!(cluster.engine_pid("robot"), engine);

    let at_full = printer.noted().0;
    disk.free();
    until_followed(&follower, at_full);
    printer.until_printed_more(200);
    printer.end();
    let outcome = follower.wait();
    cli.until_state("printing", "Finished");
    let (printed, slowest) = printer.noted();
    for outcome in [outcome, cli.run(&["logs", "printing", "--format", "json"])] {
        let (numbers, gaps) = lines_and_gaps(&outcome);
        dora_remote_tests::lines::assert_rising("lines around the gap", &numbers);
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        assert!(gaps[0] >= 900, "{gaps:?}");
        assert_eq!(numbers.len() as u64 + gaps[0], printed, "{gaps:?}");
    }
    assert!(slowest < 5_000, "a node was held up for {slowest} ms");
}

#[test]
fn a_full_disk_of_the_coordinator_loses_nothing() {
    if !in_own_mounts("a_full_disk_of_the_coordinator_loses_nothing") {
        return;
    }
    let mut cluster = Cluster::authority_only();
    let disk = SmallDisk::mount(&cluster.path("coordinator"), 64);
    cluster.start_coordinator();
    cluster.add_machine("robot", "");
    cluster.until_connected(&["robot"]);
    let cli = cluster.cli();
    let printer = Printer::start(&cluster);
    let follower = cli.spawn(&["logs", "printing", "--follow", "--format", "json"]);
    until_followed(&follower, 200);

    disk.fill();
    printer.until_printed_more(1_000);
    assert_eq!(cli.until_state("printing", "Running")["name"], "printing");
    let at_full = printer.noted().0;
    disk.free();
    until_followed(&follower, at_full);
    printer.end();
    let outcome = follower.wait();
    cli.until_state("printing", "Finished");
    let (printed, _) = printer.noted();
    let (numbers, gaps) = lines_and_gaps(&outcome);
    assert!(gaps.is_empty(), "{gaps:?}");
    dora_remote_tests::lines::assert_whole("lines over a full disk", &numbers, 1);
    assert_eq!(numbers.len() as u64, printed);
}
