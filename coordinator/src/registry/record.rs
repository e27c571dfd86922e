//! What is remembered of identities and invites, as it stands on the disk.

use dora_remote_certs::sha256;
use dora_remote_protocol::{
    access::{INVITE_MEMORY_MS, InviteState, InviteSummary},
    dataflow::Labels,
    identity::{Identity, Role},
    name::Name,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Names a holder: names are unique within their role, ignoring case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Holder {
    role: Role,
    name: String,
}

impl Holder {
    /// The holder of that role and name.
    pub(crate) fn new(role: Role, name: &Name) -> Self {
        Self {
            role,
            name: name.as_str().to_ascii_lowercase(),
        }
    }

    /// The holder that an identity names.
    pub(crate) fn of(identity: &Identity) -> Self {
        Self::new(identity.role, &identity.name)
    }

    /// Its role.
    pub(crate) const fn role(&self) -> Role {
        self.role
    }

    /// Tells whether it has that name.
    pub(crate) fn is_called(&self, name: &Name) -> bool {
        self.name.eq_ignore_ascii_case(name.as_str())
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.name)
    }
}

/// One identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) identity: Identity,
    /// Labels of a machine; they count only where it was invited with them.
    pub(crate) labels: Labels,
    /// Labels that the machines of an operator must have.
    pub(crate) machines: Labels,
    /// Life of each certificate in milliseconds; the default of the role when absent.
    pub(crate) certificate_life_ms: Option<u64>,
    /// Its certificates that count as its own, in the order of their making: the latest that was seen in use, and those that were
    /// issued after it. The new one replaces the old one when it is seen, so that an answer that is lost strands nobody.
    pub(crate) bound: Vec<Bound>,
    /// The answer that gave the latest certificate, until it is seen in use: whoever asks again with the same key gets it again.
    pub(crate) unseen: Option<Vec<Vec<u8>>>,
    pub(crate) seen_unix_ms: Option<u64>,
    /// How often it recovered with a certificate that had ended, in all.
    pub(crate) recoveries: u32,
    /// When it did so lately, oldest first.
    pub(crate) recovered_unix_ms: Vec<u64>,
    /// False for one that was never invited: its certificate was issued by hand, and the record was made when it came.
    pub(crate) is_invited: bool,
}

/// One certificate of an identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) serial: String,
    /// SHA-256 of its public key in hex; empty for a certificate that was issued by hand.
    pub(crate) key: String,
    /// When it was issued, or, for one issued by hand, when it begins.
    pub(crate) issued_unix_ms: u64,
    pub(crate) not_after_unix_ms: u64,
}

impl Record {
    /// Adds a certificate that was issued and not yet seen in use.
    pub(crate) fn bind(&mut self, bound: Bound) {
        if self.bound.len() >= MAX_BOUND {
            // The first one is known to be in use; of the others the oldest is the least likely to be needed.
            self.bound.remove(1);
        }
        self.bound.push(bound);
    }

    /// Notes that a certificate of its own is in use: those before it are given up.
    pub(crate) fn settle(&mut self, serial: &str) -> bool {
        let Some(at) = self.bound.iter().position(|bound| bound.serial == serial) else {
            return false;
        };
        self.bound.drain(..at);
        if self.bound.len() == 1 {
            self.unseen = None;
        }
        at > 0
    }

    /// Its latest certificate.
    pub(crate) fn latest(&self) -> Option<&Bound> {
        self.bound.last()
    }
}

/// One invite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Invite {
    pub(crate) identity: Identity,
    pub(crate) labels: Labels,
    pub(crate) machines: Labels,
    pub(crate) certificate_life_ms: Option<u64>,
    pub(crate) replace: bool,
    pub(crate) by: String,
    pub(crate) made_unix_ms: u64,
    pub(crate) expires_unix_ms: u64,
    pub(crate) fate: Fate,
}

/// What became of an invite. That its time is over stands nowhere: the clock says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fate {
    Open,
    Used {
        at_unix_ms: u64,
        from: String,
        serial: String,
        /// SHA-256 of the public key that it was used with, in hex.
        key: String,
        chain: Vec<Vec<u8>>,
        not_after_unix_ms: u64,
    },
    Revoked {
        at_unix_ms: u64,
        by: String,
    },
}

impl Invite {
    /// Tells whether it can be used.
    pub(crate) fn is_open(&self, now_unix_ms: u64) -> bool {
        self.fate == Fate::Open && now_unix_ms < self.expires_unix_ms
    }

    /// Tells whether nobody needs an answer about it any more.
    pub(crate) fn is_over(&self, now_unix_ms: u64) -> bool {
        let ended = match self.fate {
            Fate::Open => self.expires_unix_ms,
            Fate::Used { at_unix_ms, .. } | Fate::Revoked { at_unix_ms, .. } => at_unix_ms,
        };
        now_unix_ms >= ended.saturating_add(INVITE_MEMORY_MS)
    }

    /// The same, taken back.
    pub(crate) fn revoked(&self, by: &str, now_unix_ms: u64) -> Self {
        Self {
            fate: Fate::Revoked {
                at_unix_ms: now_unix_ms,
                by: by.to_owned(),
            },
            ..self.clone()
        }
    }

    /// How people see it.
    pub(crate) fn summary(&self, key: &[u8; 32], now_unix_ms: u64) -> InviteSummary {
        let state = match &self.fate {
            Fate::Open if self.is_open(now_unix_ms) => InviteState::Open,
            Fate::Open => InviteState::Expired,
            Fate::Used {
                at_unix_ms,
                from,
                serial,
                ..
            } => InviteState::Used {
                at_unix_ms: *at_unix_ms,
                from: from.clone(),
                serial: serial.clone(),
            },
            Fate::Revoked { at_unix_ms, by } => InviteState::Revoked {
                at_unix_ms: *at_unix_ms,
                by: by.clone(),
            },
        };
        InviteSummary {
            identity: self.identity.clone(),
            id: invite_id(key),
            labels: self.labels.clone(),
            machines: self.machines.clone(),
            by: self.by.clone(),
            made_unix_ms: self.made_unix_ms,
            expires_unix_ms: self.expires_unix_ms,
            state,
        }
    }
}

/// The name of an invite: the first 16 hex digits of the SHA-256 of its public key.
pub(crate) fn invite_id(key: &[u8; 32]) -> String {
    let hash = u64::from_be_bytes(std::array::from_fn(|at| sha256(key)[at]));
    format!("{hash:016x}")
}

/// Why and since when a coordinator takes itself for restored from a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Restored {
    pub(crate) why: String,
    pub(crate) at_unix_ms: u64,
    pub(crate) voided_invites: u64,
}

/// Certificates of one identity that count at once: the one in use, and those whose answers may all have been lost.
const MAX_BOUND: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_certificate_counts_until_the_new_one_is_seen() {
        let bound = |number: usize| Bound {
            serial: number.to_string(),
            key: String::new(),
            issued_unix_ms: 0,
            not_after_unix_ms: 0,
        };
        let mut record = Record {
            identity: "spiffe://lab/daemon/a".parse().unwrap(),
            labels: Labels::new(),
            machines: Labels::new(),
            certificate_life_ms: None,
            bound: vec![bound(0)],
            unseen: None,
            seen_unix_ms: None,
            recoveries: 0,
            recovered_unix_ms: Vec::new(),
            is_invited: true,
        };
        let serials = |record: &Record| -> Vec<String> { record.bound.iter().map(|bound| bound.serial.clone()).collect() };
        for number in 1..=5 {
            record.bind(bound(number));
        }
        record.unseen = Some(Vec::new());
        assert_eq!(serials(&record), ["0", "3", "4", "5"], "the one in use is never dropped");
        assert!(!record.settle("0") && !record.settle("9"));
        assert!(record.settle("4") && record.unseen.is_some());
        assert_eq!(serials(&record), ["4", "5"]);
        assert!(record.settle("5") && record.unseen.is_none());
        assert_eq!(serials(&record), ["5"]);
    }

    #[test]
    fn an_invite_is_remembered_for_a_day_after_its_end() {
        let invite = Invite {
            identity: "spiffe://lab/daemon/a".parse().unwrap(),
            labels: Labels::new(),
            machines: Labels::new(),
            certificate_life_ms: None,
            replace: false,
            by: String::new(),
            made_unix_ms: 0,
            expires_unix_ms: 1_000,
            fate: Fate::Open,
        };
        assert!(invite.is_open(999) && !invite.is_open(1_000));
        assert!(!invite.is_over(INVITE_MEMORY_MS + 999) && invite.is_over(INVITE_MEMORY_MS + 1_000));
        assert!(invite.revoked("ann", 10).is_over(INVITE_MEMORY_MS + 10));
        assert_eq!(invite_id(&[7; 32]).len(), 16);
    }
}
