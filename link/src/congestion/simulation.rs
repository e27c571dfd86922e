//! A small event simulation: real connections, of quinn's own protocol machines, share one simulated path. Time is simulated
//! too, so that a minute of traffic takes a second, and does the same on a busy machine.

mod flow;
mod path;

pub(super) use path::{Path, Random};

use flow::End;
use path::Lane;
use quinn_proto::congestion::ControllerFactory;
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

/// Connections on one path.
pub(super) struct Simulation {
    /// May be changed between two runs.
    pub(super) path: Path,
    epoch: Instant,
    now: Duration,
    lanes: [Lane; 2],
    flows: Vec<[End; 2]>,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    sent: u64,
    random: Random,
    waits: Vec<Duration>,
    /// When urgent messages were given to their connection, by connection; then how long they took.
    urgent_since: Vec<VecDeque<Duration>>,
    urgent: Vec<Duration>,
}

/// What happened on the path during one run.
#[derive(Debug)]
pub(super) struct Figures {
    /// Share of the bottleneck that each flow has used with what its receiver has read.
    pub(super) shares: Vec<f64>,
    /// How long packets waited in the queue, from the shortest on.
    waits: Vec<Duration>,
    /// How long urgent messages took to arrive, likewise.
    urgent: Vec<Duration>,
}

impl Figures {
    /// How long so many of a hundred packets waited at most.
    pub(super) fn wait(&self, percent: usize) -> Duration {
        percentile(&self.waits, percent)
    }

    /// How long so many of a hundred urgent messages took at most.
    pub(super) fn urgent(&self, percent: usize) -> Duration {
        percentile(&self.urgent, percent)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for share in &self.shares {
            write!(f, "{share:.2} ")?;
        }
        let [half, most] = [50, 99].map(|percent| self.wait(percent).as_secs_f64() * 1000.0);
        write!(f, "of the link, queue {half:.1} ms p50, {most:.1} ms p99")?;
        if !self.urgent.is_empty() {
            let [half, most] = [50, 100].map(|percent| self.urgent(percent).as_secs_f64() * 1000.0);
            write!(f, ", urgent {half:.1} ms p50, at most {most:.1} ms")?;
        }
        Ok(())
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(at).copied().unwrap_or_default()
}

/// A datagram in the network: when it arrives, its number, for which end of which flow, and what is in it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    due: Duration,
    number: u64,
    flow: usize,
    end: usize,
    datagram: Vec<u8>,
}

impl Simulation {
    pub(super) fn new(path: Path, seed: u64) -> Self {
        Self {
            path,
            epoch: Instant::now(),
            now: Duration::ZERO,
            lanes: Default::default(),
            flows: Vec::new(),
            under_way: BinaryHeap::new(),
            sent: 0,
            random: Random(seed),
            waits: Vec::new(),
            urgent_since: Vec::new(),
            urgent: Vec::new(),
        }
    }

    /// Adds a connection whose sender always has something to send, and gives its number.
    pub(super) fn add(&mut self, factory: Arc<dyn ControllerFactory + Send + Sync>) -> usize {
        let number = self.flows.len();
        let in_flight = self.path.rate / 8.0 * (self.path.delay * 2 + self.path.queue).as_secs_f64();
        let window = 3.0 * in_flight + 1e6;
        let seed = u8::try_from(number).expect("a few");
        self.flows
            .push(flow::connect(factory, window as u32, seed, self.epoch + self.now));
        self.urgent_since.push(VecDeque::new());
        self.drive(number, 0);
        number
    }

    /// Lets a sender rest, or go on.
    pub(super) fn set_busy(&mut self, number: usize, busy: bool) {
        self.flows[number][0].busy = busy;
        self.drive(number, 0);
    }

    /// Lets a sender that rests say a few words.
    pub(super) fn say(&mut self, number: usize) {
        self.flows[number][0].words = Some(&[0; 300]);
        self.drive(number, 0);
    }

    /// Lets a sender say something that goes before all else.
    pub(super) fn say_urgently(&mut self, number: usize) {
        self.flows[number][0].urgent += 1;
        self.urgent_since[number].push_back(self.now);
        self.drive(number, 0);
    }

    /// Lets time pass, in which each sender says something urgent `gap` after the last.
    pub(super) fn run_with_urgent(&mut self, span: Duration, gap: Duration) -> Figures {
        let end = self.now + span;
        let (mut waits, mut urgent, mut read) = (Vec::new(), Vec::new(), vec![0.0; self.flows.len()]);
        while self.now < end {
            for number in 0..self.flows.len() {
                self.say_urgently(number);
            }
            let figures = self.run(gap);
            waits.extend(figures.waits);
            urgent.extend(figures.urgent);
            for (sum, share) in read.iter_mut().zip(figures.shares) {
                *sum += share * gap.as_secs_f64() / span.as_secs_f64();
            }
        }
        waits.sort_unstable();
        urgent.sort_unstable();
        Figures {
            shares: read,
            waits,
            urgent,
        }
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, span: Duration) -> Figures {
        let until = self.now + span;
        let before: Vec<_> = self.flows.iter().map(|[_, receiver]| receiver.received).collect();
        self.waits.clear();
        while let Some((due, next)) = self.next().filter(|(due, _)| *due <= until) {
            self.now = self.now.max(due);
            match next {
                None => {
                    let Some(Reverse(arrived)) = self.under_way.pop() else { break };
                    let now = self.epoch + self.now;
                    self.flows[arrived.flow][arrived.end].take(&arrived.datagram, now);
                    self.drive(arrived.flow, arrived.end);
                }
                Some((flow, end)) => {
                    self.flows[flow][end].wake(self.epoch + self.now);
                    self.drive(flow, end);
                }
            }
        }
        self.now = until;
        let capacity = self.path.rate / 8.0 * span.as_secs_f64();
        let read = |([_, receiver], before): (&[End; 2], u64)| (receiver.received - before) as f64 / capacity;
        let mut waits = std::mem::take(&mut self.waits);
        waits.sort_unstable();
        let mut urgent = std::mem::take(&mut self.urgent);
        urgent.sort_unstable();
        Figures {
            shares: self.flows.iter().zip(before).map(read).collect(),
            waits,
            urgent,
        }
    }

    /// When what comes next comes: a timer of an end, or, without one, the arrival of a datagram.
    fn next(&mut self) -> Option<(Duration, Option<(usize, usize)>)> {
        let mut next = self.under_way.peek().map(|Reverse(first)| (first.due, None));
        for (flow, ends) in self.flows.iter_mut().enumerate() {
            for (end, state) in ends.iter_mut().enumerate() {
                let due = state.wakes_at().map(|due| due.saturating_duration_since(self.epoch));
                if let Some(due) = due.filter(|due| next.is_none_or(|(first, _)| *due < first)) {
                    next = Some((due, Some((flow, end))));
                }
            }
        }
        next
    }

    /// Lets an end act, and puts what it sends on its way.
    fn drive(&mut self, flow: usize, end: usize) {
        let rate = [self.path.rate, self.path.back_rate][end];
        let sent = self.flows[flow][end].drive(self.epoch + self.now);
        if end == 1 {
            for _ in 0..std::mem::take(&mut self.flows[flow][end].urgent) {
                let since = self.urgent_since[flow].pop_front();
                self.urgent.extend(since.map(|since| self.now - since));
            }
        }
        for datagram in sent {
            let passed = self.lanes[end].pass(&self.path, rate, datagram.len(), self.now, &mut self.random);
            let Some((due, waits)) = passed else { continue };
            if end == 0 {
                self.waits.push(waits);
            }
            self.sent += 1;
            self.under_way.push(Reverse(UnderWay {
                due,
                number: self.sent,
                flow,
                end: 1 - end,
                datagram,
            }));
        }
    }
}

/// Bytes of the headers of IPv4 and UDP.
const MTU_OVERHEAD: usize = 28;
