//! The use of an invite: one certificate for one key, and the right words for everybody who comes too late.

use super::{
    Delta, Holder, Issue, Registry,
    record::{Bound, Fate, Record},
    utc,
};
use dora_remote_protocol::{
    access::CertificateIssued,
    refusal::{Refusal, RefusalCode},
};

impl Registry {
    /// Issues a certificate to the holder of an invite's key, once. Asking again with the same key gets the same certificate.
    pub(crate) fn join(
        &self,
        key: &[u8; 32],
        from: &str,
        issuer: &dyn Issue,
        now_unix_ms: u64,
    ) -> Result<(Delta, CertificateIssued), Refusal> {
        let void = |message: String| Refusal::new(RefusalCode::InviteVoid, message).hint("ask an admin for a new invite");
        let Some(invite) = self.invites.get(key) else {
            return Err(void("the invite is not known here any more".to_owned()));
        };
        let holder = Holder::of(&invite.identity);
        if let Some(revocation) = self.revoked_holders.get(&holder) {
            return Err(void(format!("{holder} was revoked at {}", utc(revocation.at_unix_ms))));
        }
        match &invite.fate {
            Fate::Used {
                key,
                chain,
                not_after_unix_ms,
                ..
            } if issuer.key().is_ok_and(|asked| asked == *key) => {
                let again = CertificateIssued {
                    chain: chain.clone(),
                    not_after_unix_ms: *not_after_unix_ms,
                };
                return Ok((Delta::default(), again));
            }
            Fate::Used { at_unix_ms, from, .. } => {
                return Err(void(format!("the invite was used at {} from {from}", utc(*at_unix_ms))).hint(
                    "if that was not you, have an admin revoke the name at once; for another machine ask for another invite",
                ));
            }
            Fate::Revoked { at_unix_ms, .. } => {
                return Err(void(format!("the invite was taken back at {}", utc(*at_unix_ms))));
            }
            Fate::Open if !invite.is_open(now_unix_ms) => {
                return Err(void(format!("the invite ended at {}", utc(invite.expires_unix_ms))));
            }
            Fate::Open => {}
        }
        self.must_issue()?;
        // The name may have been taken by a certificate that was issued by hand.
        if self.records.contains_key(&holder) && !invite.replace {
            return Err(void(format!(
                "{holder} has come in with another certificate since the invite was made"
            ))
            .hint("ask an admin for an invite with `--replace`, or with another name"));
        }
        let requested = issuer.key()?;
        let issued = issuer.issue(&invite.identity, self.life_of(&invite.identity, invite.certificate_life_ms))?;
        let mut delta = Delta::default();
        delta.record(Record {
            identity: invite.identity.clone(),
            labels: invite.labels.clone(),
            machines: invite.machines.clone(),
            certificate_life_ms: invite.certificate_life_ms,
            bound: vec![Bound {
                serial: issued.serial.clone(),
                key: requested.clone(),
                issued_unix_ms: now_unix_ms,
                not_after_unix_ms: issued.not_after_unix_ms,
            }],
            unseen: None,
            seen_unix_ms: None,
            recoveries: 0,
            recovered_unix_ms: Vec::new(),
            is_invited: true,
        });
        let mut used = invite.clone();
        used.fate = Fate::Used {
            at_unix_ms: now_unix_ms,
            from: from.to_owned(),
            serial: issued.serial,
            key: requested,
            chain: issued.chain.clone(),
            not_after_unix_ms: issued.not_after_unix_ms,
        };
        delta.invites.insert(*key, Some(used));
        let answer = CertificateIssued {
            chain: issued.chain,
            not_after_unix_ms: issued.not_after_unix_ms,
        };
        Ok((delta, answer))
    }
}
