//! Who may start a handshake now, who waits, and who is asked to prove its address first. Pure: time is an argument.
//!
//! Generic over what waits, so that the rules can be tested without sockets; `accept.rs` does what is decided here.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// A bounded number of permits, and those who wait for one.
///
/// Addresses that are not validated (RFC 9000 section 8.1) hold at most half of the permits, so that a flood of spoofed
/// ones leaves room. Only when that half is taken and makes no progress, or such handshakes have lately run out of time, as
/// spoofed ones do, those who wait are asked to prove their address: asked of everybody, that proof makes a herd of honest
/// peers slower.
pub(crate) struct Gate<T> {
    permits: usize,
    taken_validated: usize,
    taken_unvalidated: usize,
    validated: VecDeque<(Instant, T)>,
    unvalidated: VecDeque<(Instant, T)>,
    /// Rises with each unvalidated handshake that ran out of time, falls with each one that was finished.
    suspicion: u32,
    /// When an unvalidated handshake was last finished, or when the last of their permits was taken, whichever is later.
    progress: Instant,
}

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Both sides have all that they wanted of each other.
    Finished,
    /// It was broken off, by either side or by garbage: tells nothing about who else is waiting.
    Failed,
    /// The peer never went on.
    OutOfTime,
}

/// Which kind of permit was taken, to be given back in [`Gate::release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Permit {
    pub(crate) validated: bool,
}

impl<T> Gate<T> {
    pub(crate) fn new(now: Instant, permits: usize) -> Self {
        Self {
            permits: permits.max(2),
            taken_validated: 0,
            taken_unvalidated: 0,
            validated: VecDeque::new(),
            unvalidated: VecDeque::new(),
            suspicion: 0,
            progress: now,
        }
    }

    /// Lets one wait. Gives it back if it must prove its address instead.
    pub(crate) fn arrive(&mut self, now: Instant, validated: bool, waiting: T) -> Option<T> {
        if validated {
            self.validated.push_back((now, waiting));
            return None;
        }
        if self.suspects_since().is_some_and(|since| since <= now) {
            return Some(waiting);
        }
        self.unvalidated.push_back((now, waiting));
        None
    }

    /// The next one that may start, if there is a permit for it.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<(Permit, T)> {
        if self.taken_validated + self.taken_unvalidated >= self.permits {
            return None;
        }
        if let Some((_, next)) = self.validated.pop_front() {
            self.taken_validated += 1;
            return Some((Permit { validated: true }, next));
        }
        if self.taken_unvalidated >= self.unvalidated_permits() {
            return None;
        }
        let (_, next) = self.unvalidated.pop_front()?;
        self.taken_unvalidated += 1;
        if self.taken_unvalidated >= self.unvalidated_permits() {
            self.progress = now;
        }
        Some((Permit { validated: false }, next))
    }

    /// Takes out those who must prove their address, because those who have the permits do not.
    pub(crate) fn suspects(&mut self, now: Instant) -> Vec<T> {
        match self.suspects_since() {
            Some(since) if since <= now => self.unvalidated.drain(..).map(|(_, waiting)| waiting).collect(),
            Some(_) | None => Vec::new(),
        }
    }

    /// When [`Self::suspects`] will have somebody, unless something changes before.
    pub(crate) fn next_suspicion(&self) -> Option<Instant> {
        self.suspects_since().filter(|_| !self.unvalidated.is_empty())
    }

    /// Gives a permit back.
    pub(crate) fn release(&mut self, now: Instant, permit: Permit, ended: Ended) {
        if permit.validated {
            self.taken_validated = self.taken_validated.saturating_sub(1);
            return;
        }
        self.taken_unvalidated = self.taken_unvalidated.saturating_sub(1);
        match ended {
            Ended::Finished => {
                self.suspicion = self.suspicion.saturating_sub(1);
                self.progress = now;
            }
            Ended::Failed => {}
            Ended::OutOfTime => self.suspicion = (self.suspicion + 1).min(MOST_SUSPICION),
        }
    }

    /// Takes out those who have waited for `stale_after`: whoever sent them has given up or has sent anew.
    pub(crate) fn stale(&mut self, now: Instant, stale_after: Duration) -> Vec<T> {
        let mut stale = Vec::new();
        for queue in [&mut self.validated, &mut self.unvalidated] {
            while let Some((since, _)) = queue.front() {
                if now.saturating_duration_since(*since) < stale_after {
                    break;
                }
                stale.extend(queue.pop_front().map(|(_, waiting)| waiting));
            }
        }
        stale
    }

    /// When the oldest one arrived.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let first = |queue: &VecDeque<(Instant, T)>| queue.front().map(|(since, _)| *since);
        match (first(&self.validated), first(&self.unvalidated)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        }
    }

    /// Since when those who wait are suspected; that may lie ahead. `None` while there are permits for them.
    fn suspects_since(&self) -> Option<Instant> {
        if self.taken_unvalidated < self.unvalidated_permits() {
            return None;
        }
        let patience = if self.suspicion >= SUSPICIOUS {
            Duration::ZERO
        } else {
            STANDSTILL
        };
        Some(self.progress + patience)
    }

    fn unvalidated_permits(&self) -> usize {
        self.permits / 2
    }
}

/// Lines that a log may take per second about peers who proved nothing; the rest is counted.
pub(crate) struct LogBudget {
    second: Instant,
    written: u32,
    suppressed: u64,
}

impl LogBudget {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            second: now,
            written: 0,
            suppressed: 0,
        }
    }

    /// `Some(n)` if a line may be written; `n` lines were held back since the last one.
    pub(crate) fn spend(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.written = 0;
        }
        if self.written >= LINES_PER_SECOND {
            self.suppressed += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// How long all unvalidated permits may be taken without a handshake that is finished. Longer than the round trip of an honest
/// herd, so that one of it is always getting ahead; short enough for a person who waits behind a flood.
const STANDSTILL: Duration = Duration::from_millis(300);
/// Handshakes out of time, less those that were finished, from which on nothing is waited for.
const SUSPICIOUS: u32 = 8;
const MOST_SUSPICION: u32 = 64;
const LINES_PER_SECOND: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    const UNVALIDATED: Permit = Permit { validated: false };

    fn flood(gate: &mut Gate<u32>, now: Instant) {
        for id in 0..100 {
            assert_eq!(gate.arrive(now, false, id), None, "a herd is not asked for proof");
        }
        while gate.admit(now).is_some() {}
    }

    #[test]
    fn unvalidated_addresses_leave_half_of_the_permits() {
        let now = Instant::now();
        let mut gate = Gate::new(now, 8);
        flood(&mut gate, now);
        assert_eq!((gate.taken_unvalidated, gate.unvalidated.len()), (4, 96));
        for id in 1000..1010 {
            assert_eq!(gate.arrive(now, true, id), None);
        }
        let mut admitted = 0;
        while let Some((permit, id)) = gate.admit(now) {
            assert!(permit.validated && id >= 1000);
            admitted += 1;
        }
        assert_eq!(admitted, 4);
        gate.release(now, Permit { validated: true }, Ended::Failed);
        assert_eq!(gate.admit(now), Some((Permit { validated: true }, 1004)));
    }

    #[test]
    fn a_herd_that_gets_ahead_is_not_asked_for_proof() {
        let mut now = Instant::now();
        let mut gate = Gate::new(now, 8);
        flood(&mut gate, now);
        for _ in 0..90 {
            now += STANDSTILL * 9 / 10;
            assert_eq!(gate.suspects(now), []);
            gate.release(now, UNVALIDATED, Ended::Finished);
            assert!(gate.admit(now).is_some());
        }
    }

    #[test]
    fn proof_is_asked_for_when_nothing_gets_ahead() {
        let start = Instant::now();
        let mut gate = Gate::new(start, 8);
        flood(&mut gate, start);
        assert_eq!(gate.next_suspicion(), Some(start + STANDSTILL));
        // Garbage that is found out frees its place, and is no progress.
        let now = start + STANDSTILL;
        gate.release(start + STANDSTILL / 2, UNVALIDATED, Ended::Failed);
        assert!(gate.next_suspicion().is_none(), "there is a permit");
        assert!(gate.admit(start + STANDSTILL / 2).is_some());
        assert_eq!(gate.suspects(now), [], "the permits were all taken only then");
        let now = now + STANDSTILL / 2;
        assert_eq!(gate.suspects(now).len(), 95);
        assert_eq!(gate.arrive(now, false, 7), Some(7));
        assert_eq!(gate.arrive(now, true, 8), None, "who has proven it is let in");
        assert_eq!(gate.next_suspicion(), None, "nobody waits");
    }

    #[test]
    fn handshakes_out_of_time_leave_a_suspicion_that_finished_ones_calm() {
        let now = Instant::now();
        let mut gate = Gate::new(now, 8);
        flood(&mut gate, now);
        for _ in 0..SUSPICIOUS {
            gate.release(now, UNVALIDATED, Ended::OutOfTime);
            assert!(gate.admit(now).is_some());
        }
        gate.release(now, UNVALIDATED, Ended::Failed);
        assert!(gate.admit(now).is_some());
        assert_eq!(gate.arrive(now, false, 7), Some(7));
        gate.release(now, UNVALIDATED, Ended::Finished);
        assert!(gate.admit(now).is_some());
        assert_eq!(gate.arrive(now, false, 7), None, "one that was finished calms");
    }

    #[test]
    fn those_who_waited_too_long_are_taken_out() {
        let start = Instant::now();
        let mut gate = Gate::new(start, 2);
        gate.arrive(start, false, 1);
        gate.arrive(start + Duration::from_secs(2), false, 2);
        assert_eq!(gate.oldest(), Some(start));
        assert_eq!(gate.stale(start + Duration::from_secs(3), Duration::from_secs(3)), [1]);
        assert_eq!(gate.oldest(), Some(start + Duration::from_secs(2)));
    }

    #[test]
    fn log_lines_beyond_the_budget_are_counted() {
        let start = Instant::now();
        let mut budget = LogBudget::new(start);
        let written = (0..100).filter(|_| budget.spend(start).is_some()).count();
        assert_eq!(written, 20);
        assert_eq!(budget.spend(start + Duration::from_secs(1)), Some(80));
    }
}
