//! Keeps one asker from washing the audit out with refused commands: beyond a few per minute they are counted, not told one by one.
//!
//! Pure: time comes in. What was done is never held back, only what was refused.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How many refusals each asker has had in its present minute.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    windows: BTreeMap<String, Window>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    told: u32,
    withheld: u64,
}

impl Throttle {
    /// Whether this refusal of `who` is to be told one by one.
    pub(crate) fn admits(&mut self, who: &str, now: Instant) -> bool {
        if let Some(window) = self.windows.get_mut(who) {
            if window.told < PER_MINUTE {
                window.told += 1;
                return true;
            }
            window.withheld += 1;
            return false;
        }
        if self.windows.len() >= MAX_ASKERS {
            return false;
        }
        let window = Window {
            since: now,
            told: 1,
            withheld: 0,
        };
        self.windows.insert(who.to_owned(), window);
        true
    }

    /// Closes the windows whose minute is over, all of them at the end, and says how many refusals each has withheld.
    pub(crate) fn take_over(&mut self, now: Instant, is_end: bool) -> Vec<(String, u64)> {
        let mut withheld = Vec::new();
        self.windows.retain(|who, window| {
            let is_over = is_end || now.saturating_duration_since(window.since) >= MINUTE;
            if is_over && window.withheld > 0 {
                withheld.push((who.clone(), window.withheld));
            }
            !is_over
        });
        withheld
    }
}

/// Refusals of one asker that are told one by one within a minute.
pub(crate) const PER_MINUTE: u32 = 120;
const MINUTE: Duration = Duration::from_secs(60);
/// Askers that are told apart at once; each costs its name. Refusals of further ones are lost to the count of the queue.
const MAX_ASKERS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_is_counted_and_others_are_told() {
        let mut throttle = Throttle::default();
        let start = Instant::now();
        let told = (0..1_000).filter(|_| throttle.admits("mallory", start)).count();
        assert_eq!(told, PER_MINUTE as usize);
        assert!(throttle.admits("ann", start));
        assert!(throttle.take_over(start + MINUTE / 2, false).is_empty());
        let after = start + MINUTE;
        let withheld = vec![("mallory".to_owned(), 1_000 - u64::from(PER_MINUTE))];
        assert_eq!(throttle.take_over(after, false), withheld);
        assert!(throttle.admits("mallory", after));
        assert!(
            throttle.take_over(after, true).is_empty(),
            "nothing was withheld in the new minute"
        );
    }
}
