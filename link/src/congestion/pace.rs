//! The pace of one connection: time, delays and losses in, a window out. Pure; who decides when to ask is quinn.

use super::measure::{Looks, Loss, Lowest, Pressed, Round, Samples};
use quinn::congestion::{Controller, Cubic, CubicConfig};
use quinn_proto::RttEstimator;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// State of one connection. Windows are bytes, delays are seconds; both as floats, whose arithmetic cannot panic.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    window: f64,
    mtu: f64,
    mode: Mode,
    /// The smallest mean of a round: what an empty path takes, with the jitter that it has.
    typical: Lowest,
    /// The smallest deviation within a round: what of the jitter is no queue.
    jitter: Lowest,
    round: Round,
    slow_start: Samples,
    /// Packets sent before this were sent before the last cut.
    cut_at: Option<Instant>,
    /// The largest window of late, in which there was no queue of somebody else.
    high: f64,
    /// The mean of the round before.
    last_mean: f64,
    /// The rounds above the target in a row.
    above: Pressed,
    /// When to look next at what the path is like without us.
    drain_at: Instant,
    /// Until when a rival that we no longer saw may come back.
    wary_until: Option<Instant>,
    looks: Looks,
    /// When we looked last.
    looked_at: Instant,
    losses: Loss,
}

#[derive(Clone, Debug)]
enum Mode {
    SlowStart,
    /// The window follows the delay.
    Delay,
    /// Another flow holds the queue full.
    Compete(Cubic),
    /// The window is small for a few rounds, to see the path without our own queue.
    Drain {
        rounds: u32,
        saved: f64,
        /// The window to come to, and how much of each byte that arrives is not sent anew until then: something goes out all
        /// the time, and what is urgent is never held up for long.
        aim: f64,
        withheld: f64,
        /// The delay before.
        delay: f64,
        rival: Option<Cubic>,
    },
}

impl Pace {
    /// Window of a new connection (RFC 9002 section 7.2).
    pub(super) const INITIAL_BYTES: u64 = 14_720;

    pub(super) fn new(now: Instant, mtu: f64) -> Self {
        Self {
            window: Self::INITIAL_BYTES as f64,
            mtu,
            mode: Mode::SlowStart,
            typical: Lowest::new(now),
            jitter: Lowest::new(now),
            round: Round::new(now),
            slow_start: Samples::default(),
            cut_at: None,
            high: Self::INITIAL_BYTES as f64,
            last_mean: f64::INFINITY,
            above: Pressed::default(),
            drain_at: now,
            wary_until: None,
            looks: Looks::default(),
            looked_at: now,
            losses: Loss::default(),
        }
    }

    /// A packet has arrived.
    pub(super) fn acknowledged(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        if let Mode::Compete(rival) | Mode::Drain { rival: Some(rival), .. } = &mut self.mode {
            rival.on_ack(now, sent, bytes, app_limited, rtt);
        }
        self.keep_up();
        self.acked(now, sent, bytes as f64, app_limited);
    }

    /// Packets were lost, or marked.
    pub(super) fn lost(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: u64) {
        if let Mode::Compete(rival) | Mode::Drain { rival: Some(rival), .. } = &mut self.mode {
            rival.on_congestion_event(now, sent, persistent, lost_bytes);
        }
        self.keep_up();
        if let Mode::Compete(rival) = &self.mode {
            // A good moment to look: two of our kind that take each other for rivals have lost at the same time. By chance, as
            // they may take turns otherwise.
            let since = now.saturating_duration_since(self.looked_at);
            if since > LOOK_AGAIN && since.subsec_micros().is_multiple_of(2) {
                let (delay, rival) = (self.round.mean().unwrap_or(1.0), rival.clone());
                self.drain(now, delay, Some(rival));
            }
        } else {
            self.congested(now, sent, persistent, lost_bytes as f64);
        }
    }

    /// The largest packet is another.
    pub(super) fn set_mtu(&mut self, new_mtu: u16) {
        self.mtu = f64::from(new_mtu);
        if let Mode::Compete(rival) | Mode::Drain { rival: Some(rival), .. } = &mut self.mode {
            rival.on_mtu_update(new_mtu);
        }
        self.window = self.window.max(self.min_window());
    }

    /// Bytes that may be under way.
    pub(super) fn bytes(&self) -> u64 {
        self.window as u64
    }

    fn min_window(&self) -> f64 {
        MIN_PACKETS * self.mtu
    }

    /// What an empty path takes.
    fn empty(&self) -> f64 {
        self.typical.seconds().unwrap_or(0.1)
    }

    /// The delay that we allow ourselves: never less than three packets' time above the empty path, or a slow link would starve,
    /// nor than its jitter.
    fn wanted(&self) -> f64 {
        self.wanted_with(self.window)
    }

    fn wanted_with(&self, window: f64) -> f64 {
        let empty = self.empty();
        let three_packets = empty * 3.0 * self.mtu / window.max(self.mtu);
        let jitter = JITTER_SHARE * self.jitter.seconds().unwrap_or(0.0);
        empty + TARGET_FLOOR.max(empty * TARGET_SHARE).max(three_packets).max(jitter)
    }

    fn rival(&self) -> Option<&Cubic> {
        match &self.mode {
            Mode::Compete(rival) | Mode::Drain { rival: Some(rival), .. } => Some(rival),
            Mode::SlowStart | Mode::Delay | Mode::Drain { rival: None, .. } => None,
        }
    }

    fn acked(&mut self, now: Instant, sent: Instant, bytes: f64, app_limited: bool) {
        let sample = now.saturating_duration_since(sent).as_secs_f64();
        self.losses.acked(bytes);
        self.round.see(sample, app_limited);
        if matches!(self.mode, Mode::SlowStart) {
            if self.typical.seconds().is_some() && self.slow_start.all_above(sample, self.wanted()) {
                // The samples lag by one round trip, in which the window has doubled.
                self.window = (self.window / 2.0).max(self.min_window());
                self.drain(now, sample, None);
                return;
            }
            if !app_limited {
                self.window = (self.window + bytes).min(MAX_WINDOW);
            }
        }
        if let Mode::Drain { aim, withheld, .. } = self.mode {
            self.window = (self.window - withheld * bytes).max(aim.min(self.window));
        }
        if sent >= self.round.start {
            self.end_round(now);
        }
    }

    fn end_round(&mut self, now: Instant) {
        let round = std::mem::replace(&mut self.round, Round::new(now));
        self.losses.age();
        let Some(mean) = round.mean() else { return };
        if round.samples >= ENOUGH_SAMPLES {
            let forgets = self.rival().is_none();
            self.typical.see(now, mean, forgets);
            self.jitter.see(now, round.deviation(), forgets);
        }
        if mean <= self.empty() * 1.01 {
            self.drain_at = later(now, REMEASURE);
        }
        match &mut self.mode {
            Mode::SlowStart => return,
            // Who has nothing to send makes no queue, and learns nothing of the path: few acknowledgements, and late ones.
            Mode::Delay if round.app_limited => {}
            Mode::Delay => self.follow_delay(now, mean, round.smallest),
            Mode::Compete(_) => {}
            Mode::Drain { rounds, .. } if *rounds > 1 => *rounds -= 1,
            // A few packets are seldom typical.
            Mode::Drain { rival: Some(_), .. } => self.drained(now, round.smallest),
            Mode::Drain { rival: None, .. } => self.drained(now, mean),
        }
        // While a queue is there that we have not made, or we make none, it would tell nothing.
        if now >= self.drain_at && self.above.rounds <= 1 && !round.app_limited {
            match std::mem::replace(&mut self.mode, Mode::Delay) {
                Mode::Delay => self.drain(now, mean, None),
                Mode::Compete(rival) => self.drain(now, mean, Some(rival)),
                other => self.mode = other,
            }
        }
        self.window = self.window.clamp(self.min_window(), MAX_WINDOW);
    }

    fn follow_delay(&mut self, now: Instant, mean: f64, smallest: f64) {
        // One late round may be the doing of a busy machine.
        let last = std::mem::replace(&mut self.last_mean, mean);
        let ratio = (self.wanted() / mean.min(last)).clamp(0.5, 2.0);
        self.window *= 0.5 + 0.5 * ratio;
        self.high = (self.high * (1.0 - mean / HIGH_FADES).max(0.0)).max(self.window);
        if ratio >= NEARLY {
            self.above = Pressed::default();
            return;
        }
        self.above.see(smallest);
        let least = (self.high * GIVEN_WAY).max(self.min_window());
        let given_way = self.above.rounds >= GIVEN_WAY_ROUNDS && self.window <= least;
        let returned =
            self.wary_until.is_some_and(|until| now < until) && self.above.rounds >= WARY_ROUNDS && self.above.rises(smallest);
        if !given_way && !returned {
            return;
        }
        // We have given way, and there is a queue still: it is not ours.
        if self.above.are_level() {
            self.adopt(now, mean);
        } else {
            self.compete(now, mean);
        }
    }

    /// The path is another, and takes longer than before.
    fn adopt(&mut self, now: Instant, mean: f64) {
        self.window = self.high * (mean / self.empty()).clamp(1.0, 2.0);
        self.typical.reset(now, mean);
        self.above = Pressed::default();
        self.mode = Mode::Delay;
    }

    /// Takes part in filling the queue, from where we had been before giving way.
    fn compete(&mut self, now: Instant, mean: f64) {
        let mut config = CubicConfig::default();
        config.initial_window(self.high as u64);
        let mut rival = Cubic::new(Arc::new(config), now, self.mtu as u16);
        rival.on_congestion_event(now, now, false, 0);
        self.mode = Mode::Compete(rival);
        self.keep_up();
        self.drain_at = later(now, Duration::from_secs_f64((FIRST_LOOK_ROUNDS * mean).min(10.0)));
        self.looks = Looks::default();
        self.looked_at = now;
        self.above = Pressed::default();
    }

    /// Does as the rival would, if there is one.
    fn keep_up(&mut self) {
        if let Mode::Compete(rival) = &self.mode {
            self.window = (rival.window() as f64).clamp(self.min_window(), MAX_WINDOW);
        }
    }

    /// Empties our own share of the queue.
    fn drain(&mut self, now: Instant, delay: f64, rival: Option<Cubic>) {
        let saved = self.window;
        // Beside a rival nobody knows how much of the queue is ours.
        let left = if rival.is_some() {
            0.0
        } else {
            DRAINED * self.empty() / delay
        };
        let aim = (saved * left.min(DRAINED_AT_MOST)).max(self.min_window());
        self.round = Round::new(now);
        self.mode = Mode::Drain {
            rounds: DRAIN_ROUNDS,
            saved,
            aim,
            withheld: 1.0 - aim / saved,
            delay,
            rival,
        };
    }

    /// The path without our queue has been seen.
    fn drained(&mut self, now: Instant, seen: f64) {
        let Mode::Drain { saved, delay, rival, .. } = std::mem::replace(&mut self.mode, Mode::Delay) else {
            return;
        };
        self.looked_at = now;
        self.drain_at = later(
            now,
            REMEASURE.max(Duration::from_secs_f64((REMEASURE_ROUNDS * delay).min(60.0))),
        );
        self.above = Pressed::default();
        // Before, so much was under way for so long: from that follows how long a packet takes.
        let wanted = self.wanted_with(saved * self.empty() / delay);
        match rival {
            // No queue that somebody else fills is as long each time.
            Some(_) if seen > wanted && self.looks.like(seen) >= SAME_LOOKS => {
                self.high = saved / 2.0;
                self.adopt(now, seen);
            }
            Some(rival) if seen > wanted => {
                self.mode = Mode::Compete(rival);
                self.keep_up();
            }
            None if seen > wanted => self.window = saved,
            // If the queue went away with us, it was ours alone; or the rival pauses.
            Some(_) | None => {
                let queue = wanted - self.empty();
                self.window = saved * ((seen + queue) / delay).min(1.0);
                self.high = self.window;
                self.wary_until = rival.map(|_| later(now, REMEASURE));
            }
        }
    }

    fn congested(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: f64) {
        self.losses.lost(lost_bytes);
        if self.cut_at.is_some_and(|cut| sent <= cut) && !persistent {
            return;
        }
        // ECN marks come with no lost bytes and are always believed.
        let queue = self.wanted() + (self.wanted() - self.empty());
        let delayed = self.round.mean().is_some_and(|mean| mean > queue);
        let believed = persistent || lost_bytes == 0.0 || delayed || self.losses.is_heavy(self.mtu);
        if !believed {
            return;
        }
        self.cut_at = Some(now);
        self.losses = Loss::default();
        if persistent {
            // Nothing came through for long; what the path is like now is found out anew.
            self.window = self.min_window();
            self.high = self.window;
            self.mode = Mode::SlowStart;
            self.above = Pressed::default();
            self.round = Round::new(now);
            return;
        }
        match &mut self.mode {
            Mode::SlowStart => self.mode = Mode::Delay,
            Mode::Drain { saved, .. } => {
                *saved = (*saved * LOSS_CUT).max(MIN_PACKETS * self.mtu);
                return;
            }
            Mode::Delay | Mode::Compete(_) => {}
        }
        self.window = (self.window * LOSS_CUT).max(self.min_window());
    }
}

fn later(now: Instant, span: Duration) -> Instant {
    now.checked_add(span).unwrap_or(now)
}

/// Smallest window in packets.
const MIN_PACKETS: f64 = 4.0;
/// Largest window in bytes; far above what the send window lets in flight.
const MAX_WINDOW: f64 = (1_u64 << 30) as f64;
/// Standing delay as a share of the empty path's, and its floor in seconds.
const TARGET_SHARE: f64 = 0.05;
const TARGET_FLOOR: f64 = 0.003;
/// Standing delay as a multiple of the jitter.
const JITTER_SHARE: f64 = 2.0;
/// Samples of a round that tells what the path takes.
const ENOUGH_SAMPLES: u32 = 4;
/// What a cut leaves of the window.
const LOSS_CUT: f64 = 0.7;
/// Share of the delay from which on the target counts as met.
const NEARLY: f64 = 0.97;
/// Rounds above the target in a row after which, and the share of the window below which, we have given way.
const GIVEN_WAY_ROUNDS: u32 = 8;
const GIVEN_WAY: f64 = 0.5;
/// Seconds in which the largest window is forgotten.
const HIGH_FADES: f64 = 60.0;
/// Rounds of competing after which we look first whether there is a rival.
const FIRST_LOOK_ROUNDS: f64 = 6.0;
/// Time after which the empty path is measured again.
const REMEASURE: Duration = Duration::from_secs(10);
const REMEASURE_ROUNDS: f64 = 10.0;
/// Rounds of giving way after which a rival that was there lately is taken to be back.
const WARY_ROUNDS: u32 = 3;
/// Shortest time between two looks.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// Looks in a row at the same delay after which it is the path's.
const SAME_LOOKS: u32 = 3;
/// How many rounds that takes, and how much of the path is filled meanwhile.
const DRAIN_ROUNDS: u32 = 2;
const DRAINED: f64 = 0.85;
const DRAINED_AT_MOST: f64 = 0.6;

#[cfg(test)]
mod tests;
