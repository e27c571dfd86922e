//! The network of a simulation: one bottleneck with a queue in each direction, distance, chance loss and jitter.

use super::MTU_OVERHEAD;
use std::time::Duration;

/// What the path is like; may change while a simulation runs.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    /// Bits in a second, towards the receivers.
    pub(crate) rate: f64,
    /// The longest a packet may wait in the queue towards the receivers; more are dropped.
    pub(crate) queue: Duration,
    /// One way, and the same in both directions.
    pub(crate) delay: Duration,
    /// Packets in a thousand that are lost by chance, in both directions.
    pub(crate) lost: u32,
    /// At most so much later, each packet by itself, in both directions.
    pub(crate) jitter: Duration,
    /// Whether late packets hold up those behind them, as a radio that repeats does, or are overtaken.
    pub(crate) in_order: bool,
    /// Bits in a second on the way back.
    pub(crate) back_rate: f64,
}

impl Path {
    /// A path with a wide way back, without loss or jitter.
    pub(crate) fn new(megabits: f64, round_trip_ms: u64, queue_ms: u64) -> Self {
        Self {
            rate: megabits * 1e6,
            queue: Duration::from_millis(queue_ms),
            delay: Duration::from_millis(round_trip_ms) / 2,
            lost: 0,
            jitter: Duration::ZERO,
            in_order: true,
            back_rate: megabits * 1e6,
        }
    }
}

/// One direction.
#[derive(Clone, Debug, Default)]
pub(super) struct Lane {
    free_at: Duration,
    latest: Duration,
}

impl Lane {
    /// When a packet arrives that is handed in now, with the time that it waits in the queue; None when it is lost.
    pub(super) fn pass(
        &mut self,
        path: &Path,
        rate: f64,
        bytes: usize,
        now: Duration,
        random: &mut Random,
    ) -> Option<(Duration, Duration)> {
        let begins = self.free_at.max(now);
        let waits = begins - now;
        if waits > path.queue {
            return None;
        }
        self.free_at = begins + Duration::from_secs_f64((bytes + MTU_OVERHEAD) as f64 * 8.0 / rate);
        if random.below(1000) < u64::from(path.lost) {
            return None;
        }
        let late = Duration::from_nanos(random.below(path.jitter.as_nanos() as u64 + 1));
        let mut arrives = self.free_at + path.delay + late;
        if path.in_order {
            arrives = arrives.max(self.latest);
            self.latest = arrives;
        }
        Some((arrives, waits))
    }
}

/// Chance that can be repeated: splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.number() >> 11) % end
    }
}
