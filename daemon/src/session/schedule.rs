//! When a certificate is renewed, and how failures are repeated. Pure: times and randomness are arguments.

use dora_remote_certs::{BACKDATE, CertificateFacts};
use dora_remote_link::retry;
use std::time::{Duration, SystemTime};

/// Part of the life before its two thirds over which the renewals of a fleet are spread.
const SPREAD: u32 = 20;
/// Over how much time the renewals of a fleet that returns too late are spread.
const LATE_SPREAD: Duration = Duration::from_secs(30);
/// Shortest and longest upper bound of the first pause after a failure; between them a sixtieth of the life.
const FIRST_PAUSE: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(300));
/// Shortest and longest upper bound of all pauses; between them a twentieth of the life.
const LONGEST_PAUSE: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(3600));

/// The life of one certificate as the coordinator's clock counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    begun: SystemTime,
    end: SystemTime,
}

impl Schedule {
    /// The life that counts begins when the certificate was issued, which is some time after its first second.
    pub(super) fn of(facts: &CertificateFacts) -> Self {
        let issued = facts.not_before + BACKDATE;
        Self {
            begun: if issued < facts.not_after { issued } else { facts.not_before },
            end: facts.not_after,
        }
    }

    /// How long to wait at `now` before the first try: up to a point shortly before two thirds of the life are over. Once that
    /// has passed, only as long as keeps a fleet from asking at once.
    pub(super) fn wait(&self, now: SystemTime, draw: u64) -> Duration {
        let due = self.last_third() - retry::full_jitter(self.life() / SPREAD, draw);
        match due.duration_since(now) {
            Ok(wait) => wait,
            Err(_) => retry::full_jitter(LATE_SPREAD.min(self.left(now) / 4), draw),
        }
    }

    /// How long to wait after so many failures (0 after the first), at least half of the upper bound.
    pub(super) fn pause(&self, failures: u32, draw: u64) -> Duration {
        let first = (self.life() / 60).clamp(FIRST_PAUSE.0, FIRST_PAUSE.1);
        let longest = (self.life() / 20).clamp(LONGEST_PAUSE.0, LONGEST_PAUSE.1);
        growing(first, longest, failures, draw)
    }

    /// Whether a failure is worth an error: the last third of the life has begun.
    pub(super) fn is_pressing(&self, now: SystemTime) -> bool {
        now >= self.last_third()
    }

    /// What is left of the life.
    pub(super) fn left(&self, now: SystemTime) -> Duration {
        self.end.duration_since(now).unwrap_or_default()
    }

    /// Whether half of the life is over.
    pub(super) fn is_half_over(&self, now: SystemTime) -> bool {
        self.left(now) < self.life() / 2
    }

    fn life(&self) -> Duration {
        self.end.duration_since(self.begun).unwrap_or_default()
    }

    fn last_third(&self) -> SystemTime {
        self.begun + self.life() * 2 / 3
    }
}

/// A pause after so many failures (0 after the first): at least half of an upper bound that doubles from `first` to `longest`.
pub(super) fn growing(first: Duration, longest: Duration, failures: u32, draw: u64) -> Duration {
    let bound = first.saturating_mul(1 << failures.min(16)).min(longest);
    bound / 2 + retry::full_jitter(bound / 2, draw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const SECOND: Duration = Duration::from_secs(1);

    fn issued() -> SystemTime {
        UNIX_EPOCH + DAY * 20_000
    }

    fn schedule(life: Duration) -> Schedule {
        Schedule::of(&CertificateFacts {
            identity: "spiffe://lab/daemon/m".parse().unwrap(),
            serial: "01".to_owned(),
            not_before: issued() - BACKDATE,
            not_after: issued() + life,
            fingerprint: String::new(),
        })
    }

    #[test]
    fn a_fleet_renews_shortly_before_two_thirds_of_the_life_are_over() {
        let week = schedule(DAY * 7);
        let two_thirds = DAY * 7 * 2 / 3;
        assert_eq!(week.wait(issued(), 0), two_thirds);
        let earliest = week.wait(issued(), u64::MAX);
        assert!(earliest > two_thirds - DAY * 7 / 20 && earliest < two_thirds - DAY * 7 / 21);
        assert!(!week.is_pressing(issued() + two_thirds - SECOND) && week.is_pressing(issued() + two_thirds));
        let short = schedule(SECOND * 20).wait(issued(), 1 << 63);
        assert!(short > SECOND * 12 && short < SECOND * 13, "{short:?}");
    }

    #[test]
    fn one_that_returns_too_late_renews_at_once_or_nearly() {
        let week = schedule(DAY * 7);
        let late = issued() + DAY * 6;
        assert_eq!(week.wait(late, 0), Duration::ZERO);
        assert!(week.wait(late, u64::MAX) < SECOND * 30);
        assert!(week.wait(issued() + DAY * 7 - SECOND * 4, u64::MAX) < SECOND);
        assert_eq!(week.wait(issued() + DAY * 400, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn failures_are_repeated_ever_more_slowly_and_never_at_once() {
        let week = schedule(DAY * 7);
        assert_eq!(week.pause(0, 0), SECOND * 150);
        assert!(week.pause(0, u64::MAX) <= SECOND * 300);
        assert!(week.pause(30, u64::MAX) <= SECOND * 3600 && week.pause(30, 0) == SECOND * 1800);
        let short = schedule(SECOND * 20);
        for failures in [0, 1, 9] {
            assert_eq!(short.pause(failures, 0), SECOND * 2);
            assert!(short.pause(failures, u64::MAX) <= SECOND * 4);
        }
    }

    #[test]
    fn a_pause_doubles_up_to_its_longest() {
        let pauses: Vec<_> = (0..7).map(|failures| growing(SECOND * 4, SECOND * 60, failures, 0)).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 30, 30, 30].map(Duration::from_secs));
        assert_eq!(growing(SECOND * 4, SECOND * 60, u32::MAX, 1 << 63), SECOND * 45);
    }

    #[test]
    fn a_life_below_the_backdating_is_still_one() {
        let facts = CertificateFacts {
            identity: "spiffe://lab/daemon/m".parse().unwrap(),
            serial: "01".to_owned(),
            not_before: issued(),
            not_after: issued() + SECOND * 30,
            fingerprint: String::new(),
        };
        assert_eq!(Schedule::of(&facts).wait(issued(), 0), SECOND * 20);
    }
}
