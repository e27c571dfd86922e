//! A certificate to follow the present one; and how a daemon whose certificate has ended comes back.

use super::{
    Delta, Holder, Issue, Registry,
    record::{Bound, Record},
};
use crate::moment::Moment;
use dora_remote_protocol::{
    access::CertificateIssued,
    identity::Identity,
    refusal::{Refusal, RefusalCode},
};

/// Who wants to renew: what its connection has proven.
#[derive(Clone, Debug)]
pub(crate) struct RenewAsk {
    pub(crate) identity: Identity,
    /// Serial of the certificate that it has shown.
    pub(crate) serial: String,
    /// Whether that certificate has ended, so that it may do nothing but this.
    pub(crate) has_lapsed: bool,
}

impl Registry {
    /// Issues a certificate to an identity that is on record. The present one stays good until its end.
    pub(crate) fn renew(
        &mut self,
        ask: &RenewAsk,
        issuer: &dyn Issue,
        now: Moment,
    ) -> Result<(Delta, CertificateIssued), Refusal> {
        self.must_issue()?;
        let holder = Holder::of(&ask.identity);
        if self.revoked_holders.contains_key(&holder) || self.revoked_serials.contains_key(&ask.serial) {
            return Err(Refusal::new(RefusalCode::Denied, "the certificate was revoked").hint("ask an admin"));
        }
        let record = match self.records.get(&holder) {
            Some(record) => record.clone(),
            None if ask.has_lapsed => return Err(unbound(&ask.identity)),
            None => {
                return Err(Refusal::new(
                    RefusalCode::LimitReached,
                    "there is no record of this identity, and no room for one",
                ));
            }
        };
        let again = ask.has_lapsed.then(|| self.recovery(&record, ask, now.unix_ms)).transpose()?;
        if let Err(wait) = self.budget.spend(&holder, now.steady) {
            return Err(Refusal::new(
                RefusalCode::LimitReached,
                format!(
                    "too many certificates were asked for; it may be tried again in {} ms",
                    wait.as_millis()
                ),
            ));
        }
        let key = issuer.key()?;
        if let Some(answer) = lost(&record, &key, now.unix_ms) {
            return Ok((Delta::default(), answer));
        }
        let issued = issuer.issue(&ask.identity, self.life_of(&ask.identity, record.certificate_life_ms))?;
        let mut record = again.unwrap_or(record);
        record.bind(Bound {
            serial: issued.serial,
            key,
            issued_unix_ms: now.unix_ms,
            not_after_unix_ms: issued.not_after_unix_ms,
        });
        record.unseen = Some(issued.chain.clone());
        let mut delta = Delta::default();
        delta.record(record);
        let answer = CertificateIssued {
            chain: issued.chain,
            not_after_unix_ms: issued.not_after_unix_ms,
        };
        Ok((delta, answer))
    }

    /// The record after one more recovery, if it may be.
    fn recovery(&self, record: &Record, ask: &RenewAsk, now_unix_ms: u64) -> Result<Record, Refusal> {
        if let Some(restored) = &self.restored {
            return Err(Refusal::new(
                RefusalCode::WrongState,
                format!(
                    "no lapsed daemon is let back in until an admin accepts that this coordinator was restored ({})",
                    restored.why
                ),
            )
            .hint("an admin makes sure that all revocations are there, and runs `dora-remote coordinator accept-restore`"));
        }
        if !record.bound.iter().any(|bound| bound.serial == ask.serial) {
            return Err(unbound(&ask.identity));
        }
        let mut after = record.clone();
        // A clock that was set back or forth must not lock anybody out for long.
        after
            .recovered_unix_ms
            .retain(|at| at.abs_diff(now_unix_ms) < RECOVERY_PERIOD_MS);
        if after.recovered_unix_ms.len() >= MAX_RECOVERIES {
            let first = after.recovered_unix_ms.iter().min().copied().unwrap_or_default();
            let wait = first.saturating_add(RECOVERY_PERIOD_MS).saturating_sub(now_unix_ms);
            return Err(Refusal::new(
                RefusalCode::LimitReached,
                format!(
                    "{} has recovered {MAX_RECOVERIES} times within a day; it may be tried again in {} min",
                    ask.identity,
                    wait.div_ceil(60_000)
                ),
            )
            .hint("find out why it lapses again and again; an admin can invite it anew with `--replace`"));
        }
        after.recoveries += 1;
        after.recovered_unix_ms.push(now_unix_ms);
        Ok(after)
    }
}

/// The answer that was given for this key, if it is the latest one, was not seen in use, and is fresh.
fn lost(record: &Record, key: &str, now_unix_ms: u64) -> Option<CertificateIssued> {
    let latest = record.latest()?;
    let life = latest.not_after_unix_ms.saturating_sub(latest.issued_unix_ms);
    // A connection may be renewed on over and over with one key and never be made anew.
    let is_fresh = (latest.issued_unix_ms..latest.issued_unix_ms.saturating_add(life / 3)).contains(&now_unix_ms);
    let chain = record.unseen.as_ref().filter(|_| is_fresh && latest.key == key)?;
    Some(CertificateIssued {
        chain: chain.clone(),
        not_after_unix_ms: latest.not_after_unix_ms,
    })
}

fn unbound(identity: &Identity) -> Refusal {
    Refusal::new(
        RefusalCode::Denied,
        format!("the certificate has ended, and its key is not the one that is on record for {identity}"),
    )
    .hint("an admin can invite it anew with `--replace`")
}

/// Recoveries of one identity within [`RECOVERY_PERIOD_MS`].
pub(super) const MAX_RECOVERIES: usize = 3;
/// A day in milliseconds.
pub(super) const RECOVERY_PERIOD_MS: u64 = 24 * 3_600_000;
