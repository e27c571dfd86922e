//! One coordinator, a robot and a laptop behind relays, a flow that runs, and its follower: the place where faults happen.

use super::{Follower, NODE, Return, Tally, flow};
use crate::{cluster::Cluster, patience, processes, python, relay::Relay, run_cli::Cli};
use std::time::{Duration, Instant};

/// Name of the machine.
const ROBOT: &str = "robot";
/// Name of the dataflow.
const FLOW: &str = "tick";
/// Longest time until everything has come back after a fault, and for the last lines of a flood.
const CONVERGENCE: Duration = Duration::from_secs(120);

/// See the module. Ends everything when it is dropped.
#[derive(Debug)]
pub struct Stand {
    // The follower first: a cluster that ends with an error shows its logs.
    follower: Follower,
    /// Coordinator and robot.
    pub cluster: Cluster,
    /// Between the robot and the coordinator.
    pub robot: Relay,
    /// Between the laptop and the coordinator.
    pub laptop: Relay,
    pids: Vec<u32>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the follower saw.
    pub followed: Tally,
    /// What the coordinator has stored.
    pub stored: Tally,
    /// Exit code of the follower.
    pub code: Option<i32>,
    /// Its stderr.
    pub stderr: String,
}

impl Stand {
    /// Starts everything, and waits until the follower has seen `head` lines. None, said loudly, when there is no Python with dora.
    ///
    /// # Panics
    /// When something does not come up.
    #[must_use]
    pub fn start(flood: u64, head: u64) -> Option<Self> {
        python::interpreter()?;
        let mut cluster = Cluster::start(&[]);
        let robot = Relay::start("robot", cluster.address());
        let laptop = Relay::start("laptop", cluster.address());
        cluster.let_daemons_dial(&robot.address());
        cluster.add_machine(ROBOT, "");
        cluster.until_connected(&[ROBOT]);
        let yaml = cluster.flow("tick", &[("dataflow.yml", &flow(flood)), ("ticker.py", NODE)]);
        let through = cluster.cli().with_address(&laptop.address());
        let follower = Follower::spawn(&through, &["start", &yaml, "--attach", "--name", FLOW]);
        let mut stand = Self {
            follower,
            cluster,
            robot,
            laptop,
            pids: vec![],
        };
        assert!(
            stand.follower.until(CONVERGENCE, |seen| seen.last() >= head),
            "the follower sees no line: {}",
            stand.follower.complaints()
        );
        stand.pids = stand.node_pids();
        assert_eq!(stand.pids.len(), 1, "one node");
        Some(stand)
    }

    /// Somebody on the laptop, through its relay.
    #[must_use]
    pub fn cli(&self) -> Cli {
        self.cluster.cli().with_address(&self.laptop.address())
    }

    /// What the follower has seen so far.
    #[must_use]
    pub fn followed(&self) -> Tally {
        self.follower.tally()
    }

    /// Lets time pass in a fault.
    ///
    /// # Panics
    /// When the node dies meanwhile.
    pub fn wait(&self, time: Duration) {
        patience::for_a_while(time, || {
            assert!(self.pids.iter().all(|pid| processes::lives(*pid)), "the node died");
        });
    }

    /// The fault is over: measures the return from now on.
    pub fn healed(&self) {
        self.follower.mark(Instant::now());
    }

    /// Waits until a line came that was printed after [`Self::healed`], and says how soon.
    ///
    /// # Panics
    /// When it never comes, when the follower ended, or when the node is another process.
    #[track_caller]
    pub fn until_live(&mut self) -> Return {
        let came = self.follower.until(CONVERGENCE, |seen| seen.returned().live.is_some());
        let seen = self.follower.tally();
        assert!(
            came,
            "no line came back; the last one is {}, the follower {} and said:\n{}",
            seen.last(),
            if self.follower.runs() { "runs" } else { "has ended" },
            self.follower.complaints()
        );
        assert_eq!(self.node_pids(), self.pids, "the node is the same process");
        seen.returned()
    }

    /// Waits until the follower has seen line `number`.
    ///
    /// # Panics
    /// When it never does.
    #[track_caller]
    pub fn until_line(&mut self, number: u64) {
        let came = self.follower.until(CONVERGENCE, |seen| seen.last() >= number);
        assert!(came, "line {number} does not come: {}", self.follower.complaints());
    }

    /// Lets fifty more lines come, stops the flow, and reads what was stored.
    ///
    /// # Panics
    /// When the flow or the follower does not end.
    #[track_caller]
    pub fn finish(mut self) -> Report {
        self.until_line(self.follower.last() + 50);
        let cli = self.cluster.cli();
        cli.run(&["stop", FLOW]).exits_with(0);
        let (followed, code, stderr) = self.follower.finish(CONVERGENCE);
        let stored = Follower::spawn(&cli, &["logs", FLOW]);
        let (stored, _, _) = stored.finish(CONVERGENCE);
        self.cluster.no_node_is_left();
        Report {
            followed,
            stored,
            code,
            stderr,
        }
    }

    fn node_pids(&self) -> Vec<u32> {
        self.cluster.nodes().iter().map(|process| process.pid).collect()
    }
}

impl Report {
    /// What is wrong with it, or empty.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = vec![];
        for (who, seen) in [("the follower", &self.followed), ("the store", &self.stored)] {
            for (count, what) in [
                (seen.lost(), "lost"),
                (seen.doubled, "doubled"),
                (seen.disordered, "out of order"),
                (seen.gaps, "gaps"),
            ] {
                if count > 0 {
                    faults.push(format!("{who}: {count} {what} ({})", seen.holes()));
                }
            }
            if seen.done.is_none() {
                faults.push(format!(
                    "{who}: the last line of the node is missing; the last number is {}",
                    seen.last()
                ));
            }
        }
        if self.code != Some(0) {
            faults.push(format!("the follower ended with {:?}", self.code));
        }
        if !faults.is_empty() {
            faults.push(format!("stderr of the follower:\n{}", self.stderr));
        }
        faults
    }

    /// Asserts that every line came once and in order, to the follower and to the store.
    ///
    /// # Panics
    /// When one did not.
    #[track_caller]
    pub fn assert_whole(&self) {
        let faults = self.faults();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}
