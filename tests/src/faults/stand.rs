//! One coordinator, a robot and a laptop behind relays, a flow that runs, and its follower: the place where faults happen.

use super::{Follower, NODE, Return, Tally, flow};
use crate::{
    cluster::Cluster,
    patience, processes, python,
    relay::{Relay, seed},
};
use std::time::{Duration, Instant};

/// Name of the machine.
pub(super) const ROBOT: &str = "robot";
/// Name of the dataflow.
const FLOW: &str = "tick";
/// Longest time until everything has come back after a fault, and for the last lines of a flood.
const CONVERGENCE: Duration = Duration::from_secs(120);

/// See the module. Ends everything when it is dropped.
#[derive(Debug)]
pub struct Stand {
    // Followers first: they end before what they follow.
    pub(super) followers: Vec<Follower>,
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
    /// What each follower saw, its exit code and its stderr. The first one has started the flow.
    pub followers: Vec<(Tally, Option<i32>, String)>,
    /// What the coordinator has stored.
    pub stored: Tally,
}

impl Stand {
    /// Starts everything, and waits until the follower has seen `head` lines. None, said loudly, when there is no Python with dora.
    ///
    /// # Panics
    /// When something does not come up.
    #[must_use]
    #[expect(clippy::print_stderr, reason = "a failure can only be repeated with its seed")]
    pub fn start(flood: u64, head: u64) -> Option<Self> {
        let seed = seed();
        eprintln!("relays: DORA_REMOTE_RELAY_SEED={seed}");
        Self::with_seed(flood, head, seed)
    }

    /// As [`Self::start`], with a given seed of the relays.
    ///
    /// # Panics
    /// When something does not come up.
    #[must_use]
    pub fn with_seed(flood: u64, head: u64, seed: u64) -> Option<Self> {
        python::interpreter()?;
        let mut cluster = Cluster::start(&[]);
        let robot = Relay::start(cluster.address(), seed);
        let laptop = Relay::start(cluster.address(), !seed);
        cluster.let_daemons_dial(&robot.address());
        cluster.add_machine(ROBOT, "");
        cluster.until_connected(&[ROBOT]);
        let yaml = cluster.flow("tick", &[("dataflow.yml", &flow(flood)), ("ticker.py", NODE)]);
        let through = cluster.cli().with_address(&laptop.address());
        let follower = Follower::spawn(&through, &["start", &yaml, "--attach", "--name", FLOW]);
        let mut stand = Self {
            followers: vec![follower],
            cluster,
            robot,
            laptop,
            pids: vec![],
        };
        stand.until_line(head);
        stand.followers[0].forget_pause();
        stand.pids = stand.node_pids();
        assert_eq!(stand.pids.len(), 1, "one node");
        Some(stand)
    }

    /// Lets another one follow, from the first line, by `logs --follow` on the laptop.
    pub fn add_follower(&mut self) {
        let cli = self.cluster.cli().with_address(&self.laptop.address());
        self.followers.push(Follower::spawn(&cli, &["logs", FLOW, "--follow"]));
    }

    /// What each follower has seen so far.
    #[must_use]
    pub fn followed(&self) -> Vec<Tally> {
        self.followers.iter().map(Follower::tally).collect()
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
        let now = Instant::now();
        for follower in &self.followers {
            follower.mark(now);
        }
    }

    /// Waits until each follower shows a line that was printed after [`Self::healed`], and says how soon the last one did.
    ///
    /// # Errors
    /// What is wrong when such a line never comes, a follower has ended, or the node is another process.
    pub fn converged(&mut self) -> Result<Return, String> {
        let mut slowest = Return::default();
        for follower in &mut self.followers {
            let came = follower.until(CONVERGENCE, |seen| seen.returned().live.is_some());
            let seen = follower.tally();
            if !came {
                return Err(format!(
                    "no line came back; the last one is {}, the follower {} and said:\n{}",
                    seen.last(),
                    if follower.runs() { "runs" } else { "has ended" },
                    follower.complaints()
                ));
            }
            let returned = seen.returned();
            slowest = Return {
                first: slowest.first.max(returned.first),
                live: slowest.live.max(returned.live),
            };
        }
        let pids = self.node_pids();
        if pids == self.pids {
            Ok(slowest)
        } else {
            Err(format!("the node is another process: {pids:?} instead of {:?}", self.pids))
        }
    }

    /// As [`Self::converged`].
    ///
    /// # Panics
    /// Where that is an error.
    #[track_caller]
    pub fn until_live(&mut self) -> Return {
        self.converged().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Waits until each follower has seen line `number`.
    ///
    /// # Panics
    /// When one never does.
    #[track_caller]
    pub fn until_line(&mut self, number: u64) {
        for follower in &mut self.followers {
            let came = follower.until(CONVERGENCE, |seen| seen.last() >= number);
            assert!(came, "line {number} does not come: {}", follower.complaints());
        }
    }

    /// Lets fifty more lines come, stops the flow, and reads what was stored.
    ///
    /// # Panics
    /// When the flow or a follower does not end.
    #[track_caller]
    pub fn finish(mut self) -> Report {
        let last = self.followers.iter().map(Follower::last).max().unwrap_or_default();
        self.until_line(last + 50);
        self.end()
    }

    /// Stops the flow as it is, and reads what was stored.
    ///
    /// # Panics
    /// When the flow or a follower does not end.
    #[track_caller]
    pub fn end(mut self) -> Report {
        let cli = self.cluster.cli();
        cli.run(&["stop", FLOW]).exits_with(0);
        let followers = self
            .followers
            .drain(..)
            .map(|follower| follower.finish(CONVERGENCE))
            .collect();
        let (stored, _, _) = Follower::spawn(&cli, &["logs", FLOW]).finish(CONVERGENCE);
        self.cluster.no_node_is_left();
        Report { followers, stored }
    }

    fn node_pids(&self) -> Vec<u32> {
        self.cluster.nodes().iter().map(|process| process.pid).collect()
    }
}

impl Report {
    /// What the first follower saw.
    #[must_use]
    pub fn first(&self) -> &Tally {
        &self.followers[0].0
    }

    /// Everything that was seen: by each follower, and in the store.
    pub fn seen(&self) -> impl Iterator<Item = &Tally> {
        self.followers.iter().map(|(seen, ..)| seen).chain([&self.stored])
    }

    /// What is wrong with it, or empty.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = of_lines("the store", &self.stored);
        for (number, (seen, code, stderr)) in (1..).zip(&self.followers) {
            let who = format!("follower {number}");
            let mut own = of_lines(&who, seen);
            if *code != Some(0) {
                own.push(format!("{who} ended with {code:?}"));
            }
            if !own.is_empty() {
                own.push(format!("stderr of {who}:\n{stderr}"));
            }
            faults.extend(own);
        }
        faults
    }

    /// Asserts that every line came once and in order, to the followers and to the store.
    ///
    /// # Panics
    /// When one did not.
    #[track_caller]
    pub fn assert_whole(&self) {
        let faults = self.faults();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}

fn of_lines(who: &str, seen: &Tally) -> Vec<String> {
    let mut faults = vec![];
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
    faults
}
