//! How often each identity may have a certificate made: signing costs time that belongs to everybody.

use super::Holder;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// What each identity has left. Those who have all of it left take no room.
#[derive(Debug, Default)]
pub(crate) struct Budget(BTreeMap<Holder, Instant>);

impl Budget {
    /// Spends one of a holder's.
    ///
    /// # Errors
    /// The time until there is one again.
    pub(crate) fn spend(&mut self, holder: &Holder, now: Instant) -> Result<(), Duration> {
        // Until then all that was spent is refilled.
        let full_at = self.0.get(holder).map_or(now, |at| (*at).max(now));
        let after = full_at + REFILL;
        let too_early = after.duration_since(now).saturating_sub(REFILL * BURST);
        if !too_early.is_zero() {
            return Err(too_early);
        }
        if self.0.len() >= TIDY_ABOVE {
            self.0.retain(|_, at| *at > now);
        }
        self.0.insert(holder.clone(), after);
        Ok(())
    }
}

/// Certificates that one identity may have made at once.
const BURST: u32 = 8;
/// Time after which it may have one more.
const REFILL: Duration = Duration::from_secs(2);
/// Identities with something spent above which those that have refilled are forgotten.
const TIDY_ABOVE: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use dora_remote_protocol::identity::Role;

    #[test]
    fn a_burst_is_allowed_then_one_at_a_time_and_nobody_pays_for_another() {
        let holder = |name: &str| Holder::new(Role::Daemon, &name.parse().unwrap());
        let (a, b) = (holder("a"), holder("b"));
        let mut budget = Budget::default();
        let now = Instant::now();
        for _ in 0..BURST {
            budget.spend(&a, now).unwrap();
        }
        assert_eq!(budget.spend(&a, now), Err(REFILL));
        budget.spend(&b, now).unwrap();
        assert_eq!(budget.spend(&a, now + REFILL / 2), Err(REFILL / 2));
        budget.spend(&a, now + REFILL).unwrap();
        assert!(budget.spend(&a, now + REFILL).is_err());
        for _ in 0..BURST {
            budget.spend(&a, now + REFILL * 100).unwrap();
        }
    }
}
