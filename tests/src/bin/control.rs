//! What a command costs while logs fill a line, for `scripts/bench control`: 10 Mbit/s each way, a round trip of 100 ms, and a queue
//! of 500 ms that drops what does not fit.
//!
//! Usage: `control [SECONDS]`, of each measurement. Two lines, one after the other, each with a real node that prints more than fits,
//! which cannot be compressed: that of a follower, which asks on the connection on which it follows, and that of the robot, which
//! ships its logs and answers orders on one connection. Prints times as multiples of those while nothing is said, in the same run, and
//! ends with 1 when one is above its bound.

use anyhow::{Context, Result, bail, ensure};
use dora_remote_certs::Credentials;
use dora_remote_link::{CloseCode, DialKind, Dialer, Peer, Speaker};
use dora_remote_protocol::{
    audit::ListWitnesses,
    cli_to_coordinator::{ListDataflows, ReadLogs},
    dataflow::DataflowRef,
    ids::{BootId, InstanceId},
    request::Request,
};
use dora_remote_tests::{
    cluster::Cluster,
    python,
    relay::{Relay, Weather, seed},
};
use std::{
    fmt::Write,
    io::Write as _,
    process::ExitCode,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// The line.
const LINE: Weather = Weather {
    delay: Duration::from_millis(50),
    jitter: Duration::ZERO,
    lost: 0,
    doubled: 0,
    overtaken: 0,
    rate: Some(1_250_000),
    queue: Duration::from_millis(500),
    largest: None,
};
/// Bounds of the times, as multiples of the median of an idle line.
const MOST_P50: f64 = 1.15;
const MOST_P99: f64 = 1.3;
/// Time at p99 on the idle line, as a multiple of its median, beyond which the machine is too busy.
const QUIET: f64 = 1.2;
/// Least share of the line that counts as filled.
const FILLED: f64 = 0.8;
/// Time from one question to the next; each has its own time, so that a slow one delays no other.
const PAUSE: Duration = Duration::from_millis(50);
/// Time in which the flood finds its pace.
const WARM_UP: Duration = Duration::from_secs(8);
/// Longest time that an answer may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Nodes: the logs of one are shipped one batch after the other, which does not fill a line of this length.
const NODES: usize = 6;

/// Prints a third of a megabyte of noise a second in lines of 4 KB, until it is stopped.
const NODE: &str = r#"
import base64
import os
import threading
import time
from dora import Node

node, stopped = Node(), threading.Event()


def write():
    due = time.monotonic()
    while not stopped.is_set():
        print(base64.b85encode(os.urandom(3200)).decode(), flush=True)
        due += 0.012
        time.sleep(max(0, due - time.monotonic()))


writer = threading.Thread(target=write)
writer.start()
for event in node:
    if event["type"] == "STOP":
        break
stopped.set()
writer.join()
"#;

fn flow() -> String {
    let node = |number| format!("  - {{ id: noise{number}, path: noise.py, inputs: {{ tick: dora/timer/millis/1000 }} }}\n");
    format!("nodes:\n{}", (0..NODES).map(node).collect::<String>())
}

fn main() -> Result<ExitCode> {
    let seconds = std::env::args().nth(1).map_or(Ok(15), |word| word.parse());
    let span = Duration::from_secs(seconds.context("usage: control [SECONDS]")?);
    ensure!((1..=600).contains(&span.as_secs()), "SECONDS: from 1 to 600");
    if python::interpreter().is_none() {
        bail!("a node needs a Python with dora-rs");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut missed = String::new();
    for which in [Filled::OfFollower, Filled::OfRobot] {
        let stand = Stand::start(which)?;
        missed += &runtime.block_on(stand.measure(span))?;
    }
    if missed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    write!(std::io::stderr(), "{missed}")?;
    Ok(ExitCode::FAILURE)
}

/// Whose line is filled.
#[derive(Clone, Copy, PartialEq)]
enum Filled {
    OfFollower,
    OfRobot,
}

/// A coordinator, a robot, and someone who asks, of whom one is behind the line.
struct Stand {
    which: Filled,
    cluster: Cluster,
    relay: Relay,
    flow: String,
}

impl Stand {
    fn start(which: Filled) -> Result<Self> {
        let mut cluster = Cluster::start(&[]);
        let relay = Relay::start(cluster.address(), seed());
        if which == Filled::OfRobot {
            cluster.let_daemons_dial(&relay.address());
        }
        cluster.add_machine("robot", "");
        cluster.until_connected(&["robot"]);
        let flow = cluster.flow("noise", &[("dataflow.yml", &flow()), ("noise.py", NODE)]);
        // What is sent once is no part of it.
        relay.set_weather(LINE);
        Ok(Self {
            which,
            cluster,
            relay,
            flow,
        })
    }

    /// Measures, says what came of it, and gives what was missed.
    async fn measure(&self, span: Duration) -> Result<String> {
        let credentials = Credentials::load(&self.cluster.path("authority/admin"))?;
        let address = match self.which {
            Filled::OfFollower => self.relay.address(),
            Filled::OfRobot => self.cluster.address().to_owned(),
        };
        let peer = Dialer::new(&credentials, speaker(), DialKind::Follow)?
            .dial(&address.parse()?)
            .await?;
        self.times(&peer, Duration::from_secs(1)).await?;
        let idle = self.times(&peer, span / 2).await?;
        self.cluster.cli().ok(&["start", &self.flow, "--name", "noise", "--detach"]);
        let follower = (self.which == Filled::OfFollower).then(|| follow(peer.clone()));
        self.times(&peer, WARM_UP).await?;
        let (before, began) = (self.relay.counts(), Instant::now());
        let busy = self.times(&peer, span).await?;
        let (after, took) = (self.relay.counts(), began.elapsed());
        if follower.is_some_and(|follower| follower.is_finished()) {
            bail!("the follower has ended");
        }
        self.cluster.cli().ok(&["stop", "noise", "--force"]);
        peer.close_and_flush(CloseCode::Done, "").await;

        let lane = usize::from(self.which == Filled::OfFollower);
        let line = LINE.rate.unwrap_or(1) as f64 * took.as_secs_f64();
        let filled = (after[lane].bytes - before[lane].bytes) as f64 / line;
        let name = match self.which {
            Filled::OfFollower => "`list` on the connection of a follower",
            Filled::OfRobot => "an order to a robot that ships logs",
        };
        let trip = percentile(&idle, 50);
        let ratios = [50, 99].map(|percent| percentile(&busy, percent) / trip);
        writeln!(
            std::io::stdout(),
            "{name}: idle {:.1} ms (p99 {:.1}), n = {}; with logs at {:.0} % of the line {:.2} x at p50, {:.2} x at p99, n = {}",
            trip * 1000.0,
            percentile(&idle, 99) * 1000.0,
            idle.len(),
            filled * 100.0,
            ratios[0],
            ratios[1],
            busy.len()
        )?;
        let mut missed = String::new();
        for (ratio, most, which) in [(ratios[0], MOST_P50, "p50"), (ratios[1], MOST_P99, "p99")] {
            if ratio > most {
                writeln!(
                    missed,
                    "bench: {name}: {ratio:.2} round trips at {which}, and at most {most} was promised"
                )?;
            }
        }
        let unrest = percentile(&idle, 99) / trip;
        if unrest > QUIET {
            writeln!(
                missed,
                "bench: {name}: {unrest:.2} round trips at p99 while nothing was said; this machine is too busy to tell"
            )?;
        }
        if filled < FILLED {
            writeln!(missed, "bench: {name}: the line was not filled, so that nothing is proven")?;
        }
        Ok(missed)
    }

    /// Asks again and again, and gives how long each answer took, in seconds.
    async fn times(&self, peer: &Peer, span: Duration) -> Result<Vec<f64>> {
        match self.which {
            Filled::OfFollower => ask(peer, &ListDataflows {}, span).await,
            Filled::OfRobot => ask(peer, &ListWitnesses {}, span).await,
        }
    }
}

async fn ask<R: Request + Clone + Send + Sync + 'static>(peer: &Peer, request: &R, span: Duration) -> Result<Vec<f64>>
where
    R::Reply: Send,
{
    let began = Instant::now();
    let mut ticks = tokio::time::interval(PAUSE);
    let mut asked = Vec::new();
    while began.elapsed() < span {
        ticks.tick().await;
        let (peer, request) = (peer.clone(), request.clone());
        asked.push(tokio::spawn(async move {
            let from = Instant::now();
            peer.call(&request, DEADLINE).await?;
            anyhow::Ok(from.elapsed().as_secs_f64())
        }));
    }
    let mut times = Vec::new();
    for answer in asked {
        times.push(answer.await??);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// Follows on this connection, and throws away what comes.
fn follow(peer: Peer) -> JoinHandle<Result<()>> {
    tokio::spawn(async move {
        let mut request = ReadLogs::of(DataflowRef::Name("noise".to_owned()));
        request.follow = true;
        let mut feed = peer.feed(&request, None).await?;
        while feed.next().await?.is_some() {}
        Ok(())
    })
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted
        .get(sorted.len().saturating_sub(1) * percent / 100)
        .copied()
        .unwrap_or(f64::NAN)
}

fn speaker() -> Speaker {
    Speaker {
        build: "control".to_owned(),
        features: Vec::new(),
        instance: InstanceId(Uuid::new_v4()),
        boot: BootId(Uuid::new_v4()),
    }
}
