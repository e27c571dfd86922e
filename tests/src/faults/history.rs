//! A node that has printed many lines, and what reading them costs those who carry them and those who do something else.

use super::{Consumer, Flood, Seen};
use crate::{cluster::Cluster, patience, processes};
use std::time::{Duration, Instant};

/// Name of the dataflow.
const FLOW: &str = "history";
/// Longest time until all lines are printed and stored, or read.
const PATIENCE: Duration = Duration::from_secs(600);

/// A coordinator with a long history of one node. Ends everything when it is dropped.
#[derive(Debug)]
pub struct History {
    cluster: Cluster,
    lines: u64,
}

/// One reading.
#[derive(Clone, Debug)]
pub struct Read {
    /// What came.
    pub seen: Seen,
    /// Time until the first line.
    pub first: Duration,
    /// Time until the end.
    pub took: Duration,
    /// Most memory of the command, in bytes.
    pub memory: u64,
    /// How much more memory the coordinator has held at once than ever before, in bytes.
    pub coordinator_grew: u64,
    /// Processor time of the coordinator, in seconds.
    pub coordinator_time: f64,
    /// How long each `list` took meanwhile.
    pub lists: Vec<Duration>,
}

impl History {
    /// Lets a node print `lines`, and waits until they are stored.
    ///
    /// # Panics
    /// When something does not come up, or the lines do not come.
    #[must_use]
    pub fn of(lines: u64) -> Self {
        let cluster = Cluster::start(&["robot"]);
        let flood = Flood::of_lines(&cluster, FLOW, lines);
        flood.go();
        patience::until_within(PATIENCE, "the last line of the node", || {
            (flood.printed() >= lines).then_some(())
        });
        let last = format!("tick {lines:07}");
        patience::until("the last line in the store", || {
            let shown = cluster.cli().ok(&["logs", FLOW, "--node", "flood", "--tail", "1"]);
            shown.contains(&last).then_some(())
        });
        Self { cluster, lines }
    }

    /// Lines that the node has printed.
    #[must_use]
    pub const fn lines(&self) -> u64 {
        self.lines
    }

    /// When the node began, and the time of its last line, in RFC 3339.
    #[must_use]
    pub fn times(&self) -> (String, String) {
        let cli = self.cluster.cli();
        let flow = cli.dataflow(FLOW).expect("the flow is listed");
        let line = cli.ok(&["logs", FLOW, "--node", "flood", "--tail", "1", "--format", "json"]);
        let line: serde_json::Value = serde_json::from_str(line.trim()).expect("one line of JSON");
        let text = |value: &serde_json::Value| value.as_str().expect("a time").to_owned();
        (text(&flow["running_since"]), text(&line["time"]))
    }

    /// How long `list` takes while nobody reads.
    #[must_use]
    pub fn list(&self) -> Duration {
        let began = Instant::now();
        self.cluster.cli().ok(&["list"]);
        began.elapsed()
    }

    /// Reads with these options, and lists dataflows all the while.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn read(&self, options: &[&str]) -> Read {
        let coordinator = self.cluster.coordinator_pid();
        let look = || (processes::peak_memory(coordinator), processes::cpu_seconds(coordinator));
        let (memory_before, time_before) = look();
        let began = Instant::now();
        let mut reader = Consumer::spawn(&self.cluster.cli(), &[&["logs", FLOW], options].concat());
        let (mut memory, mut lists) = (0, Vec::new());
        let status = reader.finish(PATIENCE, |pid| {
            memory = memory.max(processes::peak_memory(pid));
            lists.push(self.list());
        });
        let took = began.elapsed();
        assert!(status.success(), "{options:?}: {status}");
        let (memory_after, time_after) = look();
        let seen = reader.seen();
        Read {
            seen,
            first: seen.first_at.map_or(took, |at| at.duration_since(began)),
            took,
            memory,
            coordinator_grew: memory_after - memory_before,
            coordinator_time: time_after - time_before,
            lists,
        }
    }
}
