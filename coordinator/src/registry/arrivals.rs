//! What the coming of a peer teaches: when it was last seen, and which of its certificates is in use.

use super::{
    Delta, Holder, Registry,
    record::{Bound, Record},
};
use crate::moment::unix_ms;
use dora_remote_certs::{BACKDATE, CertificateFacts};
use dora_remote_protocol::{
    access::{MAX_CERTIFICATE_LIFE_MS, MAX_IDENTITIES, MIN_CERTIFICATE_LIFE_MS},
    dataflow::Labels,
};

/// What an arrival changes.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) delta: Delta,
    /// False when only the time changes, which may be stored later.
    pub(crate) is_urgent: bool,
}

impl Registry {
    /// A peer with a good certificate has come. None when there is no room for a record of it.
    pub(crate) fn arrived(&self, facts: &CertificateFacts, now_unix_ms: u64) -> Option<Arrived> {
        let holder = Holder::of(&facts.identity);
        let (mut record, mut is_urgent) = match self.records.get(&holder) {
            Some(record) => (record.clone(), false),
            None if self.records.len() >= MAX_IDENTITIES => return None,
            None => (first_seen(facts), true),
        };
        record.seen_unix_ms = Some(now_unix_ms);
        is_urgent |= record.settle(&facts.serial);
        let is_known = record.bound.iter().any(|bound| bound.serial == facts.serial);
        let begins = unix_ms(facts.not_before + BACKDATE);
        // One that is unknown and begins later than those on record was issued by hand; an earlier one was given up.
        if !is_known && record.latest().is_none_or(|latest| latest.issued_unix_ms < begins) {
            record.bound = vec![by_hand(facts)];
            record.unseen = None;
            is_urgent = true;
        }
        let mut delta = Delta::default();
        delta.record(record);
        Some(Arrived { delta, is_urgent })
    }
}

/// The record of an identity that nobody invited: whoever holds the authority has issued its certificate by hand.
fn first_seen(facts: &CertificateFacts) -> Record {
    let life = facts
        .not_after
        .duration_since(facts.not_before + BACKDATE)
        .unwrap_or_default();
    let life = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
    Record {
        identity: facts.identity.clone(),
        labels: Labels::new(),
        machines: Labels::new(),
        // Renewal must not make an hour into a month.
        certificate_life_ms: Some(life.clamp(MIN_CERTIFICATE_LIFE_MS, MAX_CERTIFICATE_LIFE_MS)),
        bound: vec![by_hand(facts)],
        unseen: None,
        seen_unix_ms: None,
        recoveries: 0,
        recovered_unix_ms: Vec::new(),
        is_invited: false,
    }
}

fn by_hand(facts: &CertificateFacts) -> Bound {
    Bound {
        serial: facts.serial.clone(),
        key: String::new(),
        issued_unix_ms: unix_ms(facts.not_before + BACKDATE),
        not_after_unix_ms: unix_ms(facts.not_after),
    }
}
