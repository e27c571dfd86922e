//! Chance that can be repeated: xorshift64* from a seed that is printed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A seed: `DORA_REMOTE_RELAY_SEED`, else one from the clock.
///
/// # Panics
/// When the variable is no number.
#[must_use]
pub fn seed() -> u64 {
    match std::env::var("DORA_REMOTE_RELAY_SEED") {
        Ok(text) => text.parse().expect("DORA_REMOTE_RELAY_SEED: a number"),
        Err(_) => {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::from(since.subsec_nanos()) ^ since.as_secs()
        }
    }
}

/// A generator of numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of a seed. Seeds that are close give numbers that are not.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub const fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`, which is not zero.
    pub const fn below(&mut self, end: u64) -> u64 {
        (self.number() >> 11) % end
    }

    /// True in `per_mille` of a thousand cases.
    pub fn happens(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.below(1000) < u64::from(per_mille)
    }

    /// A time from zero to `most`.
    pub fn time(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.below(most + 1))
    }
}
