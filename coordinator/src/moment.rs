//! One moment on both clocks: the steady one for waits, the wall clock for what people and records see.
//!
//! Pure code gets its moments as arguments; only the shells around it call [`Moment::now`].

use dora_remote_certs::Clock;
use std::time::{Instant, SystemTime};

/// One moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// On the steady clock.
    pub(crate) steady: Instant,
    /// On the wall clock, in milliseconds since the Unix epoch.
    pub(crate) unix_ms: u64,
}

impl Moment {
    /// This moment, by that wall clock.
    pub(crate) fn of(clock: &dyn Clock) -> Self {
        Self {
            steady: Instant::now(),
            unix_ms: unix_ms(clock.now()),
        }
    }

    /// This moment.
    pub(crate) fn now() -> Self {
        Self {
            steady: Instant::now(),
            unix_ms: unix_ms(SystemTime::now()),
        }
    }
}

/// A time of the wall clock in milliseconds since the Unix epoch; 0 for times before it.
pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
