//! What happens to the packets on their way: one queue in the order of their delivery, under the weather that is set.

use super::{Back, Random};
use std::{
    cmp::Ordering as Order,
    collections::BinaryHeap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Packets on their way at once. Full: the next one is dropped, and counted.
const MAX_UNDER_WAY: usize = 32_768;
/// How much later than its turn a packet comes that is overtaken.
const OVERTAKEN: Duration = Duration::from_millis(15);
/// Bytes of the IPv4 and UDP headers of one packet.
const HEADERS: u64 = 28;

/// What the line does to packets, alike in both directions. The default is fair weather: nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Time that every packet takes, one way.
    pub delay: Duration,
    /// Up to this much is added, a new draw for each packet; the order stays.
    pub jitter: Duration,
    /// Packets out of a thousand that are lost.
    pub lost: u32,
    /// Packets out of a thousand that come twice.
    pub doubled: u32,
    /// Packets out of a thousand that are overtaken by those behind them.
    pub overtaken: u32,
    /// Bytes per second and direction, headers included. None: no bound.
    pub rate: Option<u64>,
    /// Longest time that a packet waits for its turn under `rate`; those that would wait longer are dropped.
    pub queue: Duration,
    /// Bytes of the largest datagram that comes through, headers not included; larger ones are lost silently. None: no bound.
    pub largest: Option<usize>,
}

/// What went through one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Packets that were handed in.
    pub packets: u64,
    /// Their bytes, with IPv4 and UDP headers.
    pub bytes: u64,
    /// Packets of these that were dropped: by the weather, a cut, or a full queue.
    pub dropped: u64,
}

/// A packet and where it goes.
#[derive(Debug)]
pub(super) struct Parcel {
    bytes: Vec<u8>,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    /// To the coordinator.
    Up(Arc<Back>),
    /// To a peer.
    Down(SocketAddr),
}

#[derive(Debug)]
pub(super) struct Line {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Debug)]
struct State {
    under_way: BinaryHeap<UnderWay>,
    handed_in: u64,
    random: Random,
    weather: Weather,
    cut: bool,
    lanes: [Lane; 2],
}

/// One direction.
#[derive(Debug)]
struct Lane {
    /// When the last packet that kept its turn is delivered.
    last: Instant,
    /// When the wire is free.
    free: Instant,
    counts: Counts,
}

/// Ordered by its due time, the earliest as the greatest: a [`BinaryHeap`] gives the greatest first.
#[derive(Debug)]
struct UnderWay {
    due: Instant,
    number: u64,
    parcel: Parcel,
}

impl Parcel {
    pub(super) const fn up(bytes: Vec<u8>, back: Arc<Back>) -> Self {
        Self {
            bytes,
            way: Way::Up(back),
        }
    }

    pub(super) const fn down(bytes: Vec<u8>, peer: SocketAddr) -> Self {
        Self {
            bytes,
            way: Way::Down(peer),
        }
    }

    const fn lane(&self) -> usize {
        match self.way {
            Way::Up(_) => 0,
            Way::Down(_) => 1,
        }
    }

    fn twin(&self) -> Self {
        Self {
            bytes: self.bytes.clone(),
            way: self.way.clone(),
        }
    }

    /// Sends it. What cannot be sent is lost, as on any network.
    fn send(&self, front: &UdpSocket) {
        match &self.way {
            // A port that was given up meanwhile takes its packets with it.
            Way::Up(back) if back.over.load(Ordering::Relaxed) => {}
            Way::Up(back) => drop(back.socket.send(&self.bytes)),
            Way::Down(peer) => drop(front.send_to(&self.bytes, peer)),
        }
    }
}

impl Line {
    pub(super) fn new(seed: u64) -> Self {
        let now = Instant::now();
        let lane = || Lane {
            last: now,
            free: now,
            counts: Counts::default(),
        };
        Self {
            state: Mutex::new(State {
                under_way: BinaryHeap::new(),
                handed_in: 0,
                random: Random::new(seed),
                weather: Weather::default(),
                cut: false,
                lanes: [lane(), lane()],
            }),
            more: Condvar::new(),
        }
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    pub(super) fn set_cut(&self, cut: bool) {
        let mut state = self.state();
        state.cut = cut;
        if cut {
            for gone in std::mem::take(&mut state.under_way) {
                state.lanes[gone.parcel.lane()].counts.dropped += 1;
            }
        }
    }

    pub(super) fn counts(&self) -> [Counts; 2] {
        self.state().lanes.each_ref().map(|lane| lane.counts)
    }

    pub(super) fn wake(&self) {
        self.more.notify_all();
    }

    /// Takes a packet on its way, or drops it.
    pub(super) fn take(&self, parcel: Parcel) {
        self.state().take(parcel, Instant::now());
        self.more.notify_one();
    }

    /// Delivers packets as they are due, until `over`.
    pub(super) fn deliver(&self, front: &UdpSocket, over: &AtomicBool) {
        let mut state = self.state();
        while !over.load(Ordering::Relaxed) {
            let now = Instant::now();
            let wait = match state.under_way.peek() {
                None => super::GLANCE,
                Some(next) => next.due.saturating_duration_since(now).min(super::GLANCE),
            };
            if !wait.is_zero() || state.under_way.is_empty() {
                let waited = self.more.wait_timeout(state, wait);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            if let Some(due) = state.under_way.pop() {
                drop(state);
                due.parcel.send(front);
                state = self.state();
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, parcel: Parcel, now: Instant) {
        let (lane, weather) = (parcel.lane(), self.weather);
        let bytes = HEADERS + parcel.bytes.len() as u64;
        self.lanes[lane].counts.packets += 1;
        self.lanes[lane].counts.bytes += bytes;
        let is_too_large = weather.largest.is_some_and(|largest| parcel.bytes.len() > largest);
        let is_lost = self.random.happens(weather.lost) || self.cut || is_too_large;
        if is_lost || self.under_way.len() >= MAX_UNDER_WAY {
            self.lanes[lane].counts.dropped += 1;
            return;
        }
        let Some(sent) = self.turn(lane, bytes, now) else {
            self.lanes[lane].counts.dropped += 1;
            return;
        };
        let mut due = sent + weather.delay + self.random.time(weather.jitter);
        if self.random.happens(weather.overtaken) {
            due += OVERTAKEN;
        } else {
            due = due.max(self.lanes[lane].last);
            self.lanes[lane].last = due;
        }
        if self.random.happens(weather.doubled) {
            self.push(due, parcel.twin());
        }
        self.push(due, parcel);
    }

    /// When a packet has left the wire; None when it would have to wait too long for its turn.
    fn turn(&mut self, lane: usize, bytes: u64, now: Instant) -> Option<Instant> {
        let Some(rate) = self.weather.rate else { return Some(now) };
        let begins = self.lanes[lane].free.max(now);
        if begins - now > self.weather.queue {
            return None;
        }
        self.lanes[lane].free = begins + Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate.max(1));
        Some(self.lanes[lane].free)
    }

    fn push(&mut self, due: Instant, parcel: Parcel) {
        self.handed_in += 1;
        self.under_way.push(UnderWay {
            due,
            number: self.handed_in,
            parcel,
        });
    }
}

impl Ord for UnderWay {
    fn cmp(&self, other: &Self) -> Order {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for UnderWay {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl PartialEq for UnderWay {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for UnderWay {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weather_delays_loses_doubles_overtakes_and_throttles_alike_for_one_seed() {
        let weather = Weather {
            delay: Duration::from_millis(3),
            jitter: Duration::from_millis(2),
            lost: 100,
            doubled: 100,
            overtaken: 200,
            rate: Some(100_000),
            queue: Duration::from_millis(80),
            largest: None,
        };
        let run = || {
            let line = Line::new(7);
            line.set_weather(weather);
            let now = Instant::now();
            let mut state = line.state();
            for number in 0..200_u8 {
                state.take(Parcel::down(vec![number; 72], SocketAddr::from(([127, 0, 0, 1], 9))), now);
            }
            let mut order = vec![];
            while let Some(next) = state.under_way.pop() {
                order.push((next.due - now, next.parcel.bytes[0]));
            }
            let dropped = state.lanes[1].counts.dropped;
            drop(state);
            (order, dropped)
        };
        let (order, dropped) = run();
        assert_eq!((order.clone(), dropped), run(), "one seed, one fate");
        let numbers: Vec<u8> = order.iter().map(|(_, number)| *number).collect();
        assert!(!numbers.is_sorted(), "some are overtaken");
        assert!(numbers.windows(2).any(|pair| pair[0] == pair[1]), "some come twice");
        // A packet of 100 bytes each millisecond; 81 fit before the queue is full.
        assert!((81..=140).contains(&numbers.len()), "{}", numbers.len());
        assert!(dropped >= 60, "the queue is full: {dropped}");
        assert!(order[0].0 >= Duration::from_millis(4), "delay, and the time on the wire");
    }
}
