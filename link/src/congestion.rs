//! How fast to send: a controller that holds the queue in the network short, so that a command never waits behind our own
//! logs, whatever the buffers on the way.
//!
//! The standing delay settles at a target above the smallest round trip seen. Loss below a few percent without a rise in
//! delay (radio) is not taken as congestion. Beside flows that fill the queue regardless, it competes as NewReno does.
//! Nothing here may panic: a panic in a controller would hang its connection.

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;
use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

/// Makes the controllers of an endpoint's connections.
#[derive(Debug)]
pub(crate) struct DelayTarget;

impl ControllerFactory for DelayTarget {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(DelayController::new(now, f64::from(current_mtu)))
    }
}

/// State of one connection. Windows are bytes, delays are seconds; both as floats, whose arithmetic cannot panic.
#[derive(Clone, Debug)]
struct DelayController {
    window: f64,
    mtu: f64,
    mode: Mode,
    base: BaseDelay,
    round: Round,
    slow_start: Samples,
    /// Packets sent before this were sent before the last cut.
    cut_at: Option<Instant>,
    /// Rounds above the target in a row, and the window at the first of them.
    above: Option<(u32, f64)>,
    /// Rounds at the target in a row while competing.
    calm_rounds: u32,
    lost: Loss,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    SlowStart,
    /// The window follows the delay.
    Delay,
    /// Another flow holds the queue full; the window grows until loss.
    Compete,
    /// The window is small for two round trips, to see the path without our own queue.
    Drain {
        saved: f64,
        until: Instant,
        competing: bool,
    },
}

impl DelayController {
    fn new(now: Instant, mtu: f64) -> Self {
        Self {
            window: INITIAL_WINDOW,
            mtu,
            mode: Mode::SlowStart,
            base: BaseDelay::new(now),
            round: Round::new(now),
            slow_start: Samples::default(),
            cut_at: None,
            above: None,
            calm_rounds: 0,
            lost: Loss::default(),
        }
    }

    fn min_window(&self) -> f64 {
        MIN_PACKETS * self.mtu
    }

    /// The standing delay that we allow ourselves; never less than three packets' time, or a slow link would starve.
    fn target(&self) -> f64 {
        let base = self.base.seconds();
        let three_packets = base * 3.0 * self.mtu / self.window.max(self.mtu);
        TARGET_FLOOR.max(base * TARGET_SHARE).max(three_packets)
    }

    fn acked(&mut self, now: Instant, sent: Instant, bytes: f64, app_limited: bool) {
        let sample = now.saturating_duration_since(sent).as_secs_f64();
        self.base.see(now, sample);
        self.lost.acked(bytes);
        self.round.smallest = self.round.smallest.min(sample);
        self.round.app_limited |= app_limited;
        if self.mode == Mode::SlowStart {
            if self.slow_start.all_above(sample, self.base.seconds() + self.target()) {
                // The samples lag by one round trip, in which the window has doubled.
                self.window = (self.window / 2.0).max(self.min_window());
                self.mode = Mode::Delay;
                self.base.refreshed = now;
                self.round = Round::new(now);
                return;
            }
            if !app_limited {
                self.window = (self.window + bytes).min(MAX_WINDOW);
            }
        }
        if sent >= self.round.start {
            self.end_round(now);
        }
    }

    fn end_round(&mut self, now: Instant) {
        let Round {
            smallest, app_limited, ..
        } = std::mem::replace(&mut self.round, Round::new(now));
        self.lost.age();
        if !smallest.is_finite() || smallest <= 0.0 {
            return;
        }
        let wanted = self.base.seconds() + self.target();
        match self.mode {
            Mode::SlowStart => return,
            Mode::Delay => self.follow_delay(wanted / smallest, app_limited),
            Mode::Compete => self.compete(smallest <= wanted, app_limited),
            Mode::Drain { saved, until, competing } => {
                if now < until {
                    return;
                }
                self.window = saved;
                self.base.refreshed = now;
                // If the queue went away with us, it was ours alone.
                let stay = competing && smallest > wanted;
                self.enter(if stay { Mode::Compete } else { Mode::Delay });
            }
        }
        if now.saturating_duration_since(self.base.refreshed) > REMEASURE {
            let share = (self.base.seconds() / smallest * 0.85).clamp(0.05, 1.0);
            let until = now
                .checked_add(Duration::from_secs_f64((smallest * 2.0).min(10.0)))
                .unwrap_or(now);
            self.mode = Mode::Drain {
                saved: self.window,
                until,
                competing: self.mode == Mode::Compete,
            };
            self.window *= share;
        }
        self.window = self.window.clamp(self.min_window(), MAX_WINDOW);
    }

    fn follow_delay(&mut self, ratio: f64, app_limited: bool) {
        let ratio = ratio.clamp(0.5, 2.0);
        if ratio < 1.0 || !app_limited {
            self.window *= 0.5 + 0.5 * ratio;
        }
        if ratio > COMPETED_RATIO {
            self.above = None;
            return;
        }
        let (rounds, from) = self.above.unwrap_or((0, self.window));
        self.above = Some((rounds + 1, from));
        // We have given way for long, and the queue is as long as before: it is not ours.
        if rounds >= GIVEN_WAY_ROUNDS && self.window < from / 2.0 {
            self.window = from;
            self.enter(Mode::Compete);
        }
    }

    fn compete(&mut self, calm: bool, app_limited: bool) {
        self.calm_rounds = if calm { self.calm_rounds + 1 } else { 0 };
        if self.calm_rounds >= CALM_ROUNDS {
            self.enter(Mode::Delay);
        } else if !app_limited {
            self.window += self.mtu;
        }
    }

    fn enter(&mut self, mode: Mode) {
        self.mode = mode;
        self.above = None;
        self.calm_rounds = 0;
    }

    fn congested(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: f64) {
        self.lost.lost(lost_bytes);
        if self.cut_at.is_some_and(|cut| sent <= cut) && !persistent {
            return;
        }
        // ECN marks come with no lost bytes and are always believed.
        let delayed = self.round.smallest.is_finite() && self.round.smallest > self.base.seconds() + self.target();
        let believed = persistent || lost_bytes == 0.0 || delayed || self.lost.is_heavy(self.mtu);
        if !believed {
            return;
        }
        self.cut_at = Some(now);
        match self.mode {
            Mode::SlowStart => self.enter(Mode::Delay),
            Mode::Drain { saved, competing, .. } => {
                self.window = saved;
                self.enter(if competing { Mode::Compete } else { Mode::Delay });
            }
            Mode::Delay | Mode::Compete => {}
        }
        let cut = if persistent {
            self.min_window()
        } else {
            self.window * LOSS_CUT
        };
        self.window = cut.max(self.min_window());
        self.lost = Loss::default();
    }
}

impl Controller for DelayController {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, _rtt: &RttEstimator) {
        self.acked(now, sent, bytes as f64, app_limited);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.congested(now, sent, is_persistent_congestion, lost_bytes as f64);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = f64::from(new_mtu);
        self.window = self.window.max(self.min_window());
    }

    fn window(&self) -> u64 {
        self.window as u64
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_WINDOW as u64
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// The smallest delay of the last 20 to 40 seconds: long enough to span a queue, short enough to follow a new route.
#[derive(Clone, Debug)]
struct BaseDelay {
    current: f64,
    previous: f64,
    since: Instant,
    /// When a sample was last as small as the base.
    refreshed: Instant,
}

impl BaseDelay {
    fn new(now: Instant) -> Self {
        Self {
            current: f64::INFINITY,
            previous: f64::INFINITY,
            since: now,
            refreshed: now,
        }
    }

    fn see(&mut self, now: Instant, sample: f64) {
        if now.saturating_duration_since(self.since) > BASE_EPOCH {
            self.previous = self.current;
            self.current = f64::INFINITY;
            self.since = now;
        }
        self.current = self.current.min(sample);
        if sample <= self.seconds() * 1.02 {
            self.refreshed = now;
        }
    }

    fn seconds(&self) -> f64 {
        let smallest = self.current.min(self.previous);
        if smallest.is_finite() { smallest } else { 0.1 }
    }
}

#[derive(Clone, Debug)]
struct Round {
    start: Instant,
    smallest: f64,
    app_limited: bool,
}

impl Round {
    fn new(now: Instant) -> Self {
        Self {
            start: now,
            smallest: f64::INFINITY,
            app_limited: false,
        }
    }
}

/// Eight samples at a time, so that one late packet does not end slow start.
#[derive(Clone, Debug, Default)]
struct Samples {
    count: u32,
    smallest: Option<f64>,
}

impl Samples {
    fn all_above(&mut self, sample: f64, bound: f64) -> bool {
        let smallest = self.smallest.map_or(sample, |smallest| smallest.min(sample));
        self.count += 1;
        self.smallest = Some(smallest);
        if self.count < 8 {
            return false;
        }
        *self = Self::default();
        smallest > bound
    }
}

/// Bytes delivered and lost lately; older rounds count less and less.
#[derive(Clone, Debug, Default)]
struct Loss {
    acked: f64,
    lost: f64,
}

impl Loss {
    fn acked(&mut self, bytes: f64) {
        self.acked += bytes;
    }

    fn lost(&mut self, bytes: f64) {
        self.lost += bytes;
    }

    fn age(&mut self) {
        self.acked *= 0.75;
        self.lost *= 0.75;
    }

    /// A packet or two prove nothing.
    fn is_heavy(&self, mtu: f64) -> bool {
        self.lost > 2.5 * mtu && self.lost > HEAVY_LOSS * (self.acked + self.lost)
    }
}

/// Window of a new connection in bytes (RFC 9002 section 7.2).
const INITIAL_WINDOW: f64 = 14_720.0;
/// Smallest window in packets.
const MIN_PACKETS: f64 = 4.0;
/// Largest window in bytes; far above what the send window lets in flight.
const MAX_WINDOW: f64 = (1_u64 << 30) as f64;
/// Standing delay as a share of the base delay, and its floor in seconds.
const TARGET_SHARE: f64 = 0.05;
const TARGET_FLOOR: f64 = 0.003;
/// What a cut leaves of the window.
const LOSS_CUT: f64 = 0.7;
/// Share of lost bytes up to which loss without delay is taken for a bad radio link.
const HEAVY_LOSS: f64 = 0.05;
/// Target over delay below which a round counts as one in which somebody else holds the queue.
const COMPETED_RATIO: f64 = 0.9;
/// Rounds that we give way before we compete.
const GIVEN_WAY_ROUNDS: u32 = 12;
/// Rounds at the target after which we stop competing.
const CALM_ROUNDS: u32 = 4;
/// Half of the time over which the base delay is remembered.
const BASE_EPOCH: Duration = Duration::from_secs(20);
/// Age of the base delay at which it is measured again with an empty queue.
const REMEASURE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
