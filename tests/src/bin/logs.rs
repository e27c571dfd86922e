//! What a follower on a bad link costs a node that prints as fast as it can, for `scripts/bench logs`.
//!
//! Usage: `logs RUNS`. One node prints lines of 25 bytes all the while; by turns nobody follows, and one follower does over a link of
//! 100 ms and 2 % loss. Prints the node's own rate with and without, the follower's, the bytes on both links and the processor time of
//! each process. Ends with 1 when a target is missed.

#![expect(clippy::print_stdout, reason = "the result of a measurement")]

use anyhow::{Context, Result, ensure};
use dora_remote_tests::{
    cluster::Cluster,
    faults::{Consumer, Flood},
    patience, processes, python,
    relay::{Counts, Relay, Weather, seed},
};
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

/// Length of one turn, and of the time before it in which nothing is measured.
const TURN: Duration = Duration::from_secs(8);
const SETTLE: Duration = Duration::from_secs(2);
/// Least share of the node's rate that is left with a follower; least rate of the follower; most bytes of one line on a link.
const LEAST_RATIO: f64 = 0.95;
const LEAST_RATE: f64 = 20_000.0;
const MOST_BYTES: f64 = 12.0;
/// Longest pause of the node's own printing.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// What one turn was like.
#[derive(Debug)]
struct Turn {
    seconds: f64,
    /// Lines that the node has printed.
    lines: f64,
    /// Lines that the follower has shown.
    followed: f64,
    pause: Duration,
    /// Bytes on the robot's and on the follower's link.
    bytes: [f64; 2],
    /// Seconds of processor time, as in [`Place::pids`].
    times: Vec<(&'static str, f64)>,
}

struct Place {
    cluster: Cluster,
    flood: Flood,
    robot: Relay,
    laptop: Relay,
}

fn main() -> Result<ExitCode> {
    let usage = "usage: logs RUNS";
    let runs: usize = std::env::args().nth(1).context(usage)?.parse().context(usage)?;
    ensure!(runs > 0 && std::env::args().count() == 2, usage);
    python::interpreter().context("the bench needs a Python with dora-rs: DORA_REMOTE_TEST_PYTHON")?;
    let seed = seed();
    let mut cluster = Cluster::start(&[]);
    let (robot, laptop) = (Relay::start(cluster.address(), seed), Relay::start(cluster.address(), !seed));
    laptop.set_weather(Weather {
        delay: Duration::from_millis(50),
        lost: 20,
        ..Weather::default()
    });
    cluster.let_daemons_dial(&robot.address());
    cluster.add_machine("robot", "");
    cluster.until_connected(&["robot"]);
    let flood = Flood::start(&cluster, "flood");
    patience::until_true("the flood", || flood.printed() > 20_000);
    let mut place = Place {
        cluster,
        flood,
        robot,
        laptop,
    };
    let (mut alone, mut followed) = (Vec::new(), Vec::new());
    let mut whole = true;
    for run in 1..=runs {
        alone.push(place.turn(None));
        let cli = place.cluster.cli().with_address(&place.laptop.address());
        let mut follower = Consumer::spawn(&cli, &["logs", "flood", "--follow", "--tail", "0"]);
        patience::until_true("the follower's first lines", || follower.seen().lines > 1_000);
        followed.push(place.turn(Some(&follower)));
        follower.end();
        let seen = follower.seen();
        whole &= seen.is_whole();
        let (one, other) = (alone.last().context("a turn")?, followed.last().context("a turn")?);
        println!(
            "run {run}: node alone {:6.0} lines/s, followed {:6.0}, ratio {:.3}; follower {:6.0} lines/s, {} lost or doubled",
            one.rate(),
            other.rate(),
            other.rate() / one.rate(),
            other.followed / other.seconds,
            seen.wrong,
        );
    }
    place.cluster.cli().run(&["stop", "flood", "--force"]).exits_with(0);
    Ok(conclude(&alone, &followed, whole))
}

impl Place {
    /// Processes that are measured.
    fn pids(&self, follower: Option<&Consumer>) -> Vec<(&'static str, u32)> {
        let node = self.cluster.nodes().first().map_or(0, |node| node.pid);
        let mut pids = vec![
            ("node", node),
            ("engine", self.cluster.engine_pid("robot")),
            ("agent", self.cluster.daemon_pid("robot")),
            ("coordinator", self.cluster.coordinator_pid()),
            ("this bench, relays included", std::process::id()),
        ];
        pids.extend(follower.map(|follower| ("follower", follower.pid())));
        pids
    }

    fn turn(&mut self, follower: Option<&Consumer>) -> Turn {
        patience::for_a_while(SETTLE, || {});
        let pids = self.pids(follower);
        let look = |place: &Self| {
            let times: Vec<f64> = pids.iter().map(|(_, pid)| processes::cpu_seconds(*pid)).collect();
            let bytes = [place.robot.counts(), place.laptop.counts()].map(total);
            let shown = follower.map_or(0, |follower| follower.seen().lines);
            (Instant::now(), place.flood.printed(), shown, bytes, times)
        };
        let (began, printed, shown, bytes, times) = look(self);
        patience::for_a_while(TURN, || {});
        let end = look(self);
        let since = |before: u64, after: u64| (after - before) as f64;
        Turn {
            seconds: end.0.duration_since(began).as_secs_f64(),
            lines: since(printed, end.1),
            followed: since(shown, end.2),
            pause: self.flood.longest_pause(printed, end.1),
            bytes: [0, 1].map(|link| since(bytes[link], end.3[link])),
            times: pids
                .iter()
                .zip(times.iter().zip(&end.4))
                .map(|((name, _), (before, after))| (*name, after - before))
                .collect(),
        }
    }
}

impl Turn {
    fn rate(&self) -> f64 {
        self.lines / self.seconds
    }
}

fn total(lanes: [Counts; 2]) -> u64 {
    lanes.iter().map(|lane| lane.bytes).sum()
}

fn conclude(alone: &[Turn], followed: &[Turn], whole: bool) -> ExitCode {
    let sum = |turns: &[Turn], of: fn(&Turn) -> f64| turns.iter().map(of).sum::<f64>();
    let rate = |turns: &[Turn], of: fn(&Turn) -> f64| sum(turns, of) / sum(turns, |turn| turn.seconds);
    let (node_alone, node_followed) = (rate(alone, |turn| turn.lines), rate(followed, |turn| turn.lines));
    let follower = rate(followed, |turn| turn.followed);
    let robot_bytes = sum(followed, |turn| turn.bytes[0]) / sum(followed, |turn| turn.lines);
    let follower_bytes = sum(followed, |turn| turn.bytes[1]) / sum(followed, |turn| turn.followed);
    for (name, turns) in [("nobody follows", alone), ("one follows", followed)] {
        let (seconds, lines) = (sum(turns, |turn| turn.seconds), sum(turns, |turn| turn.lines));
        println!("processor time while {name}, of {seconds:.0} s and {lines:.0} lines:");
        for (at, (process, _)) in turns[0].times.iter().enumerate() {
            let time: f64 = turns.iter().map(|turn| turn.times[at].1).sum();
            println!("    {process:<28}{time:7.2} s   {:6.2} us a line", 1e6 * time / lines);
        }
    }
    let pause = |turns: &[Turn]| turns.iter().map(|turn| turn.pause).max().unwrap_or_default();
    let targets = [
        ("node, nobody follows, lines/s", node_alone, true, ""),
        ("node, one follows, lines/s", node_followed, true, ""),
        (
            "follower, 100 ms, 2 % lost, lines/s",
            follower,
            follower >= LEAST_RATE,
            "at least 20000",
        ),
        (
            "node followed / alone",
            node_followed / node_alone,
            node_followed >= LEAST_RATIO * node_alone,
            "at least 0.95",
        ),
        (
            "bytes a line, robot's link",
            robot_bytes,
            robot_bytes <= MOST_BYTES,
            "at most 12",
        ),
        (
            "bytes a line, follower's link",
            follower_bytes,
            follower_bytes <= MOST_BYTES,
            "at most 12",
        ),
        (
            "longest pause alone, s",
            pause(alone).as_secs_f64(),
            pause(alone) <= LONGEST_PAUSE,
            "at most 0.5",
        ),
        (
            "longest pause followed, s",
            pause(followed).as_secs_f64(),
            pause(followed) <= LONGEST_PAUSE,
            "at most 0.5",
        ),
        (
            "follower got every line once, in order",
            f64::from(u8::from(whole)),
            whole,
            "1",
        ),
    ];
    let mut code = ExitCode::SUCCESS;
    for (what, value, is_met, target) in targets {
        let verdict = if is_met { "" } else { "   MISSED" };
        println!("{what:<42}{value:10.3}   {target}{verdict}");
        if !is_met {
            code = ExitCode::FAILURE;
        }
    }
    code
}
