//! Records for tests.

use super::{
    Delta, Issuance, Issue, Registry, Rules, Stored,
    record::{Bound, Fate, Invite, Record},
};
use crate::config::Lives;
use dora_remote_protocol::{
    access::{CreateInvite, Revocation, RevokeTarget},
    dataflow::Labels,
    identity::Identity,
    refusal::{Refusal, RefusalCode},
};
use std::{cell::Cell, time::Duration};

pub(super) fn identity(role: &str, name: &str) -> Identity {
    format!("spiffe://lab/{role}/{name}").parse().unwrap()
}

pub(super) fn record(role: &str, name: &str) -> Record {
    Record {
        identity: identity(role, name),
        labels: Labels::new(),
        machines: Labels::new(),
        certificate_life_ms: None,
        bound: vec![Bound {
            serial: "01".to_owned(),
            key: String::new(),
            issued_unix_ms: 0,
            not_after_unix_ms: 10_000,
        }],
        unseen: None,
        seen_unix_ms: None,
        recoveries: 0,
        recovered_unix_ms: Vec::new(),
        is_invited: true,
    }
}

pub(super) fn invite(role: &str, name: &str, expires_unix_ms: u64) -> Invite {
    Invite {
        identity: identity(role, name),
        labels: Labels::new(),
        machines: Labels::new(),
        certificate_life_ms: None,
        replace: false,
        by: "ann".to_owned(),
        made_unix_ms: 0,
        expires_unix_ms,
        fate: Fate::Open,
    }
}

pub(super) fn asked(role: &str, name: &str, key: u8) -> CreateInvite {
    CreateInvite {
        role: role.parse().unwrap(),
        name: name.parse().unwrap(),
        labels: Labels::new(),
        machines: Labels::new(),
        join_key: [key; 32],
        life_ms: 60_000,
        certificate_life_ms: None,
        replace: false,
    }
}

pub(super) fn revocation(role: &str, name: &str) -> Revocation {
    Revocation {
        target: RevokeTarget::Holder {
            role: Some(role.parse().unwrap()),
            name: name.parse().unwrap(),
        },
        at_unix_ms: 5,
        by: "ann".to_owned(),
        reason: String::new(),
    }
}

pub(super) fn registry() -> Registry {
    let rules = Rules {
        trust_domain: "lab".parse().unwrap(),
        root_hash: [9; 32],
        addresses: vec!["robots.example:6013".to_owned()],
        lives: Lives::default(),
        can_issue: true,
    };
    Registry::new(rules, Stored::default())
}

/// Applies what was decided, as after a commit.
pub(super) fn done<T>(registry: &mut Registry, decided: Result<(Delta, T), Refusal>) -> T {
    let (delta, value) = decided.unwrap();
    registry.apply(delta);
    value
}

/// The request of one key; issues serials of its own.
pub(super) struct Asks {
    pub(super) key: &'static str,
    pub(super) now_unix_ms: u64,
    pub(super) issued: Cell<u32>,
}

impl Asks {
    pub(super) fn with(key: &'static str, now_unix_ms: u64) -> Self {
        Self {
            key,
            now_unix_ms,
            issued: Cell::new(0),
        }
    }
}

impl Issue for Asks {
    fn key(&self) -> Result<String, Refusal> {
        match self.key {
            "" => Err(Refusal::new(RefusalCode::BadRequest, "no request")),
            key => Ok(key.to_owned()),
        }
    }

    fn issue(&self, identity: &Identity, life: Duration) -> Result<Issuance, Refusal> {
        self.issued.set(self.issued.get() + 1);
        Ok(Issuance {
            serial: format!("{}{:02}", self.key, self.issued.get()),
            not_after_unix_ms: self.now_unix_ms + u64::try_from(life.as_millis()).unwrap(),
            chain: vec![format!("{identity} {}", self.key).into_bytes(), b"issuing".to_vec()],
        })
    }
}
