//! A clock that never tells a time before one that is known to have passed: for boards that boot in 1970.
//!
//! The floor is the later of the build time and the last time that a verified coordinator has told. It never follows the
//! clock of the machine, so that a clock that is ahead leaves no trace once it is set right. Keeps no file of its own.

use crate::clock::Clock;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Tells the later of the inner clock's time and the floor.
///
/// Shared by reference: what one task advances, every verifier sees at its next question.
#[derive(Debug)]
pub struct FloorClock {
    inner: Arc<dyn Clock>,
    /// Milliseconds since the Unix epoch. Only ever rises.
    floor: AtomicU64,
    unattended: bool,
}

impl FloorClock {
    /// A clock over `inner` that starts at the later of `build_time` and `last_good`, the value of [`Self::floor`] that the
    /// caller has kept from an earlier life.
    #[must_use]
    pub fn new(inner: Arc<dyn Clock>, build_time: SystemTime, last_good: Option<SystemTime>) -> Self {
        let floor = unix_ms(build_time).max(last_good.map_or(0, unix_ms));
        Self {
            inner,
            floor: AtomicU64::new(floor),
            unattended: false,
        }
    }

    /// The same clock for a machine at which nobody sits: it may lag even where it is not behind its floor, as on a board
    /// whose clock starts somewhere between the build and today.
    #[must_use]
    pub fn unattended(mut self) -> Self {
        self.unattended = true;
        self
    }

    /// Raises the floor to `verified`, a time that a coordinator has told *after* its certificate was verified; an earlier
    /// time than the floor changes nothing. Rounded down to the millisecond.
    ///
    /// Gives the floor when it has risen: the caller keeps it, and hands it to [`Self::new`] in the next life.
    pub fn advance(&self, verified: SystemTime) -> Option<SystemTime> {
        let verified = unix_ms(verified);
        let before = self.floor.fetch_max(verified, Ordering::Relaxed);
        (verified > before).then(|| at(verified))
    }

    /// The time before which this clock tells none.
    #[must_use]
    pub fn floor(&self) -> SystemTime {
        at(self.floor.load(Ordering::Relaxed))
    }

    /// How far the inner clock is behind the floor; `None` when it is not. Worth a warning.
    #[must_use]
    pub fn behind(&self) -> Option<Duration> {
        let behind = self.floor().duration_since(self.inner.now()).ok()?;
        (!behind.is_zero()).then_some(behind)
    }
}

impl Clock for FloorClock {
    fn now(&self) -> SystemTime {
        self.inner.now().max(self.floor())
    }

    /// Behind its floor the inner clock is wrong for certain; see [`Self::unattended`] for the rest.
    fn may_lag(&self) -> bool {
        self.unattended || self.behind().is_some()
    }
}

/// Milliseconds since the Unix epoch, rounded down; times before it count as it.
fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The instant that many milliseconds after the Unix epoch. It came from one, so this machine can express it.
fn at(unix_ms: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, PoisonError};

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    const HOUR: Duration = Duration::from_secs(3600);

    #[derive(Debug)]
    struct Settable(Mutex<SystemTime>);

    impl Settable {
        fn set(&self, at: SystemTime) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
        }
    }

    impl Clock for Settable {
        fn now(&self) -> SystemTime {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    fn built() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn clock(now: SystemTime, last_good: Option<SystemTime>) -> (Arc<Settable>, FloorClock) {
        let inner = Arc::new(Settable(Mutex::new(now)));
        let floor = FloorClock::new(inner.clone(), built(), last_good);
        (inner, floor)
    }

    #[test]
    fn a_board_that_boots_in_1970_lives_at_the_build_time() {
        let (inner, clock) = clock(UNIX_EPOCH, None);
        assert_eq!(clock.now(), built());
        assert_eq!(clock.behind(), Some(Duration::from_secs(1_800_000_000)));
        inner.set(UNIX_EPOCH - HOUR);
        assert_eq!(clock.now(), built(), "even before the epoch");
        inner.set(built() + HOUR);
        assert_eq!((clock.now(), clock.behind()), (built() + HOUR, None));
    }

    #[test]
    fn only_a_clock_that_is_behind_or_unattended_may_lag() {
        let (inner, clock) = clock(UNIX_EPOCH, None);
        assert!(clock.may_lag());
        inner.set(built());
        assert!(!clock.may_lag());
        assert!(clock.unattended().may_lag());
    }

    #[test]
    fn the_last_good_time_of_an_earlier_life_counts_unless_the_build_is_newer() {
        assert_eq!(clock(UNIX_EPOCH, Some(built() + YEAR)).1.now(), built() + YEAR);
        assert_eq!(clock(UNIX_EPOCH, Some(built() - YEAR)).1.now(), built());
    }

    #[test]
    fn a_clock_that_is_a_year_ahead_leaves_no_trace() {
        let (inner, clock) = clock(built() + YEAR, None);
        assert_eq!(clock.now(), built() + YEAR);
        assert_eq!(clock.advance(built() + HOUR), Some(built() + HOUR));
        inner.set(built() + HOUR * 2);
        assert_eq!((clock.now(), clock.floor()), (built() + HOUR * 2, built() + HOUR));
    }

    #[test]
    fn a_clock_that_jumps_back_stops_at_the_last_good_time() {
        let (inner, clock) = clock(built() + HOUR * 2, None);
        assert_eq!(clock.advance(built() + HOUR), Some(built() + HOUR));
        inner.set(built() - YEAR);
        assert_eq!(clock.now(), built() + HOUR);
        assert_eq!(clock.behind(), Some(YEAR + HOUR));
    }

    #[test]
    fn the_floor_never_sinks() {
        let (_, clock) = clock(UNIX_EPOCH, None);
        assert_eq!(clock.advance(built() + HOUR), Some(built() + HOUR));
        for earlier in [built() + HOUR, built(), UNIX_EPOCH, UNIX_EPOCH - HOUR] {
            assert_eq!(clock.advance(earlier), None);
            assert_eq!(clock.floor(), built() + HOUR);
        }
    }
}
