//! What a controller measures: delays by round, the lowest of late, and how much is lost. All of it in constant memory.

use std::time::{Duration, Instant};

/// The lowest of the last 20 to 40 seconds: long enough to span a queue, short enough to follow a new route.
#[derive(Clone, Debug)]
pub(super) struct Lowest {
    current: f64,
    previous: f64,
    since: Instant,
}

impl Lowest {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            current: f64::INFINITY,
            previous: f64::INFINITY,
            since: now,
        }
    }

    /// `forgets`: whether time passes, or all is kept for now.
    pub(super) fn see(&mut self, now: Instant, sample: f64, forgets: bool) {
        if forgets && now.saturating_duration_since(self.since) > EPOCH {
            self.previous = self.current;
            self.current = f64::INFINITY;
            self.since = now;
        }
        self.current = self.current.min(sample);
    }

    /// Forgets all before.
    pub(super) fn reset(&mut self, now: Instant, sample: f64) {
        *self = Self::new(now);
        self.current = sample;
    }

    /// None before the first sample.
    pub(super) fn seconds(&self) -> Option<f64> {
        let lowest = self.current.min(self.previous);
        lowest.is_finite().then_some(lowest)
    }
}

/// The samples of one round trip.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) start: Instant,
    pub(super) samples: u32,
    pub(super) app_limited: bool,
    pub(super) smallest: f64,
    sum: f64,
    /// How far samples lay from the mean of those before.
    strayed: f64,
}

impl Round {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            start: now,
            samples: 0,
            app_limited: false,
            smallest: f64::INFINITY,
            sum: 0.0,
            strayed: 0.0,
        }
    }

    pub(super) fn see(&mut self, sample: f64, app_limited: bool) {
        if let Some(mean) = self.mean() {
            self.strayed += (sample - mean).abs();
        }
        self.samples = self.samples.saturating_add(1);
        self.sum += sample;
        self.smallest = self.smallest.min(sample);
        self.app_limited |= app_limited;
    }

    /// None without a sample that took time.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.sum > 0.0).then(|| self.sum / f64::from(self.samples))
    }

    pub(super) fn deviation(&self) -> f64 {
        self.strayed / f64::from(self.samples.max(2) - 1)
    }
}

/// Eight samples at a time, so that one late packet does not end slow start.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    count: u32,
    smallest: Option<f64>,
}

impl Samples {
    pub(super) fn all_above(&mut self, sample: f64, bound: f64) -> bool {
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

/// The smallest samples of rounds in a row that were above the target. The first few, in which our own queue drains, tell nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Pressed {
    pub(super) rounds: u32,
    first: f64,
    bounds: Option<(f64, f64)>,
}

impl Pressed {
    pub(super) fn see(&mut self, delay: f64) {
        self.rounds = self.rounds.saturating_add(1);
        if self.rounds == 1 {
            self.first = delay;
        }
        if self.rounds > OWN_QUEUE_ROUNDS {
            let (low, high) = self.bounds.unwrap_or((delay, delay));
            self.bounds = Some((low.min(delay), high.max(delay)));
        }
    }

    /// Whether the delay has not moved: so it does in no queue that somebody else fills.
    pub(super) fn are_level(&self) -> bool {
        self.bounds.is_some_and(|(low, high)| same(low, high))
    }

    /// Whether the delay has risen all the same.
    pub(super) fn rises(&self, delay: f64) -> bool {
        delay >= self.first * RISE
    }
}

/// What was seen of the path without us, again and again.
#[derive(Clone, Debug, Default)]
pub(super) struct Looks {
    last: f64,
    count: u32,
}

impl Looks {
    /// How many in a row, this one included, were alike.
    pub(super) fn like(&mut self, delay: f64) -> u32 {
        self.count = if same(self.last, delay) {
            self.count.saturating_add(1)
        } else {
            1
        };
        self.last = delay;
        self.count
    }
}

/// Whether two delays differ by no more than chance.
fn same(one: f64, other: f64) -> bool {
    (one - other).abs() <= (one.min(other) * 0.02).max(0.001)
}

/// Bytes delivered and lost lately; older rounds count less and less.
#[derive(Clone, Debug, Default)]
pub(super) struct Loss {
    acked: f64,
    lost: f64,
}

impl Loss {
    pub(super) fn acked(&mut self, bytes: f64) {
        self.acked += bytes;
    }

    pub(super) fn lost(&mut self, bytes: f64) {
        self.lost += bytes;
    }

    pub(super) fn age(&mut self) {
        self.acked *= 0.75;
        self.lost *= 0.75;
    }

    /// A packet or two prove nothing.
    pub(super) fn is_heavy(&self, mtu: f64) -> bool {
        self.lost > 2.5 * mtu && self.lost > HEAVY_LOSS * (self.acked + self.lost)
    }
}

/// Half of the time over which the lowest is remembered.
const EPOCH: Duration = Duration::from_secs(20);
/// Rounds above the target in which our own queue drains.
const OWN_QUEUE_ROUNDS: u32 = 3;
/// What the delay is at least multiplied by where it has risen: above what packets of our own make it differ.
const RISE: f64 = 1.05;
/// Share of lost bytes up to which loss without delay is taken for a bad radio link.
const HEAVY_LOSS: f64 = 0.1;
