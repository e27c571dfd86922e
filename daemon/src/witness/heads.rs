//! Which ends of the audit's chain are kept: the newest of each hour of the last day, the newest of all, and whatever a later one
//! contradicts. Pure: time is an argument.
//!
//! Hours are those of this machine's clock and the order is that of arrival, so that a coordinator that lies about the time
//! cannot push out what it was seen to say.

use dora_remote_protocol::audit::{MAX_WITNESSED_HEADS, SignedHead};
use serde::{Deserialize, Serialize};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// An end that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptHead {
    /// Counts what was kept, from 1.
    pub(crate) number: u64,
    /// The end as it came.
    pub(crate) head: SignedHead,
    /// When it came, by this machine's clock, in milliseconds since the Unix epoch.
    pub(crate) kept_unix_ms: u64,
    /// Whether a later one contradicts it: evidence, which does not age.
    pub(crate) contradicted: bool,
}

/// Two ends that cannot be of one chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contradiction {
    /// Number of the last entry as it was told before.
    pub(crate) before: u64,
    /// The same as it is told now: lower, or the same with another hash.
    pub(crate) now: u64,
}

/// The ends that are kept, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heads(pub(crate) Vec<KeptHead>);

impl Heads {
    /// Takes an end in whose signature is good. Tells a contradiction that was not there before.
    pub(crate) fn keep(&mut self, head: SignedHead, now_unix_ms: u64) -> Option<Contradiction> {
        let heads = &mut self.0;
        let newest = heads.last().map(|kept| kept.head.clone());
        let mut found = None;
        for kept in heads.iter_mut().filter(|kept| contradicts(&kept.head, &head)) {
            kept.contradicted = true;
            let is_known = newest.as_ref().is_some_and(|newest| contradicts(&kept.head, newest));
            if !is_known {
                let (before, now) = (kept.head.head.count, head.head.count);
                found = Some(Contradiction { before, now });
            }
        }
        if let Some(last) = heads.last()
            && !last.contradicted
            && last.kept_unix_ms / HOUR_MS == now_unix_ms / HOUR_MS
            && last.head.head.store_epoch == head.head.store_epoch
        {
            if (last.head.head.count, last.head.head.hash) == (head.head.count, head.head.hash) {
                return found;
            }
            heads.pop();
        }
        let number = heads.last().map_or(0, |kept| kept.number) + 1;
        let told_unix_ms = head.head.at_unix_ms;
        heads.push(KeptHead {
            number,
            head,
            kept_unix_ms: now_unix_ms,
            contradicted: false,
        });
        let is_old = |kept: &KeptHead| {
            // By both clocks: neither may be the one that is wrong.
            now_unix_ms.saturating_sub(kept.kept_unix_ms) >= DAY_MS
                && told_unix_ms.saturating_sub(kept.head.head.at_unix_ms) >= DAY_MS
        };
        heads.retain(|kept| kept.number == number || kept.contradicted || !is_old(kept));
        while heads.len() > MAX_WITNESSED_HEADS {
            let last = heads.len() - 1;
            // The first evidence tells most, so that of nothing but evidence the second goes.
            let spare = heads[..last].iter().position(|kept| !kept.contradicted).unwrap_or(1);
            heads.remove(spare);
        }
        found
    }

    /// The newest.
    pub(crate) fn newest(&self) -> Option<&SignedHead> {
        self.0.last().map(|kept| &kept.head)
    }
}

/// Whether the later end cannot follow the earlier one: entries are only ever added.
fn contradicts(earlier: &SignedHead, later: &SignedHead) -> bool {
    let (earlier, later) = (&earlier.head, &later.head);
    earlier.store_epoch == later.store_epoch
        && (later.count < earlier.count || (later.count == earlier.count && later.hash != earlier.hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dora_remote_protocol::audit::AuditHead;

    const MINUTE_MS: u64 = 60_000;
    const START: u64 = 500_000 * HOUR_MS;

    fn head(store_epoch: u64, count: u64, hash: u8, at_unix_ms: u64) -> SignedHead {
        SignedHead {
            head: AuditHead {
                store_epoch,
                count,
                hash: [hash; 32],
                at_unix_ms,
            },
            chain: Vec::new(),
            signature: Vec::new(),
        }
    }

    fn counts(heads: &Heads) -> Vec<u64> {
        heads.0.iter().map(|kept| kept.head.head.count).collect()
    }

    #[test]
    fn the_newest_of_each_hour_of_a_day_stays() {
        let mut heads = Heads::default();
        for minute in 0..60 * 40 {
            let now = START + minute * MINUTE_MS;
            assert_eq!(heads.keep(head(1, minute + 1, 1, now), now), None);
        }
        let last_minute = 60 * 40;
        let expected: Vec<u64> = (0..=24).rev().map(|hours| last_minute - hours * 60).collect();
        assert!(heads.0.len() <= MAX_WITNESSED_HEADS);
        assert_eq!(counts(&heads)[heads.0.len() - 24..], expected[1..]);
        assert_eq!(heads.newest().map(|head| head.head.count), Some(last_minute));
    }

    #[test]
    fn an_end_that_stands_still_is_kept_once_an_hour() {
        let mut heads = Heads::default();
        for minute in 0..61 {
            let now = START + minute * MINUTE_MS;
            heads.keep(head(1, 9, 1, now), now);
        }
        assert_eq!(counts(&heads), [9, 9]);
        assert_eq!(heads.0[0].kept_unix_ms, START);
    }

    #[test]
    fn a_cut_tail_is_told_once_and_its_evidence_outlives_the_day() {
        let mut heads = Heads::default();
        heads.keep(head(1, 100, 1, START), START);
        let cut = Contradiction { before: 100, now: 90 };
        assert_eq!(heads.keep(head(1, 90, 2, START + 1), START + 1), Some(cut));
        for minute in 1..60 * 50 {
            let now = START + minute * MINUTE_MS;
            assert_eq!(heads.keep(head(1, 90 + minute, 2, now), now), None, "{minute}");
        }
        assert_eq!(counts(&heads)[0], 100);
        assert!(heads.0[0].contradicted && heads.0.len() <= MAX_WITNESSED_HEADS);
    }

    #[test]
    fn another_entry_under_the_same_number_contradicts() {
        let mut heads = Heads::default();
        heads.keep(head(1, 5, 1, START), START);
        let changed = Contradiction { before: 5, now: 5 };
        assert_eq!(heads.keep(head(1, 5, 2, START + 1), START + 1), Some(changed));
        assert_eq!(counts(&heads), [5, 5]);
    }

    #[test]
    fn another_life_of_the_store_replaces_nothing_and_contradicts_nothing() {
        let mut heads = Heads::default();
        heads.keep(head(1, 100, 1, START), START);
        assert_eq!(heads.keep(head(2, 3, 1, START + 1), START + 1), None);
        assert_eq!(counts(&heads), [100, 3]);
    }

    #[test]
    fn a_coordinator_that_lies_about_the_time_pushes_nothing_out() {
        let mut heads = Heads::default();
        for hour in 0..5 {
            let now = START + hour * HOUR_MS;
            heads.keep(head(1, hour + 1, 1, now), now);
        }
        let now = START + 5 * HOUR_MS;
        heads.keep(head(1, 50, 1, now + 30 * DAY_MS), now);
        heads.keep(head(1, 51, 1, START), now);
        assert_eq!(counts(&heads), [1, 2, 3, 4, 5, 51]);
    }

    #[test]
    fn even_a_storm_of_contradictions_stays_within_the_bound() {
        let mut heads = Heads::default();
        for step in 0..1_000 {
            heads.keep(head(1, 2_000 - step, 1, START + step), START + step);
        }
        assert_eq!(heads.0.len(), MAX_WITNESSED_HEADS);
        assert_eq!(
            (counts(&heads)[0], heads.newest().map(|head| head.head.count)),
            (2_000, Some(1_001))
        );
    }
}
