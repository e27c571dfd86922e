//! When a side that only reads makes packets leave. Pure: times are arguments.
//!
//! A reader has nothing to send, so that it hears nothing more once its NAT has given it another port, or the coordinator has
//! forgotten it; and QUIC doubles the pause between its own probes.

use crate::feed::FEED_IDLE;
use dora_remote_protocol::limits::NUDGE;
use std::time::Instant;

/// The nudges of one reader of a feed; see [`crate::Peer::nudge`].
#[derive(Debug, Default)]
pub struct Nudges {
    last: Option<Instant>,
}

impl Nudges {
    /// Whether it is time for one, when the feed was last heard at `heard`: once soon after a feed has fallen quiet, and again and
    /// again when even its idle mark is overdue.
    pub fn are_due(&mut self, heard: Instant, now: Instant) -> bool {
        let quiet = now.saturating_duration_since(heard);
        let is_due = match self.last.filter(|last| *last > heard) {
            None => quiet >= NUDGE,
            Some(last) => quiet >= FEED_IDLE + NUDGE && now.saturating_duration_since(last) >= NUDGE,
        };
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_quiet_feed_costs_one_nudge_and_an_overdue_mark_many() {
        let mut nudges = Nudges::default();
        let heard = Instant::now();
        let at = |tenths: u32| heard + Duration::from_millis(100) * tenths;
        let due: Vec<u32> = (0..45).filter(|tenths| nudges.are_due(heard, at(*tenths))).collect();
        assert_eq!(due, [5, 25, 30, 35, 40]);
        let marked = at(45);
        let due: Vec<u32> = (45..65).filter(|tenths| nudges.are_due(marked, at(*tenths))).collect();
        assert_eq!(due, [50], "what is heard begins it anew");
    }
}
