//! How long to wait before the next try: full jitter under a cap, so that a herd of peers does not dial in step.
//!
//! Pure: randomness is an argument; [`draw`] is the one place that makes some.

use std::time::Duration;

/// Bounds of the waits between tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Upper bound of the first wait.
    pub first: Duration,
    /// Upper bound of every wait.
    pub cap: Duration,
}

impl Backoff {
    /// The wait before try number `tries` (the first repetition is 0): evenly drawn from nothing up to `first * 2^tries`,
    /// at most up to `cap`. `draw` is any number, all values equally likely.
    #[must_use]
    pub fn wait(&self, tries: u32, draw: u64) -> Duration {
        let ceiling = 2_u32
            .checked_pow(tries)
            .and_then(|factor| self.first.checked_mul(factor))
            .map_or(self.cap, |grown| grown.min(self.cap));
        full_jitter(ceiling, draw)
    }
}

/// A wait evenly drawn from nothing up to `ceiling`, in whole nanoseconds.
#[must_use]
pub fn full_jitter(ceiling: Duration, draw: u64) -> Duration {
    let nanoseconds = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
    // The upper half of the 128-bit product maps all draws evenly onto the range without a division.
    let part = (u128::from(nanoseconds) * u128::from(draw)) >> 64;
    Duration::from_nanos(u64::try_from(part).unwrap_or(nanoseconds))
}

/// A random number for [`Backoff::wait`] and the like.
#[must_use]
pub fn draw() -> u64 {
    let mut bytes = [0; 8];
    // A generator that fails leaves 0, which is the shortest wait: never a hang.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_secs(1),
        cap: Duration::from_secs(15),
    };

    #[test]
    fn waits_lie_between_nothing_and_the_doubled_bound() {
        for (tries, most) in [(0, 1), (1, 2), (2, 4), (3, 8), (4, 15), (31, 15), (32, 15), (u32::MAX, 15)] {
            assert_eq!(BACKOFF.wait(tries, 0), Duration::ZERO);
            let longest = BACKOFF.wait(tries, u64::MAX);
            let most = Duration::from_secs(most);
            assert!(
                longest < most && longest > most - Duration::from_micros(1),
                "{tries}: {longest:?}"
            );
        }
    }

    #[test]
    fn half_of_the_draws_give_half_of_the_bound() {
        assert_eq!(full_jitter(Duration::from_secs(8), 1 << 63), Duration::from_secs(4));
    }
}
