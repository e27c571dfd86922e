//! Who may come in: identities with their certificates, invites, revocations, and whether the coordinator was restored from a backup.
//!
//! [`Registry`] is pure: it is asked with the time, says no or what would change, and changes only by [`Registry::apply`], after the
//! change is on the disk. `keeper` is the thread around it, `file` its own database, `handle` the way to it.

mod admission;
mod arrivals;
mod budget;
mod file;
mod handle;
mod invites;
mod join;
mod keeper;
mod record;
mod renewals;
mod restored;
mod revocations;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

pub(crate) use admission::Published;
pub(crate) use file::{AccessFile, mark_restored};
pub(crate) use handle::RegistryHandle;
pub(crate) use invites::invite_label;
pub(crate) use keeper::{KeeperParts, start};
pub(crate) use record::Holder;
pub(crate) use renewals::RenewAsk;
pub(crate) use restored::Found;

use crate::{config::Lives, view::View};
use budget::Budget;
use dora_remote_certs::{AdmissionSnapshot, JoinKey, Utc};
use dora_remote_protocol::{
    access::{IdentitySummary, Revocation, RevokeTarget},
    identity::{Identity, Role, TrustDomain},
    refusal::{Refusal, RefusalCode},
};
use record::{Invite, Record, Restored};
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

/// What does not change while a coordinator runs.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// The trust domain whose members are let in.
    pub(crate) trust_domain: TrustDomain,
    /// SHA-256 of the root certificate.
    pub(crate) root_hash: [u8; 32],
    /// Addresses that invites name.
    pub(crate) addresses: Vec<String>,
    /// Lives of certificates where a record says nothing.
    pub(crate) lives: Lives,
    /// Whether there is an authority to issue certificates with.
    pub(crate) can_issue: bool,
}

/// Everything that was on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Which life of the coordinator's store this is.
    pub(crate) epoch: u64,
    pub(crate) records: Vec<Record>,
    pub(crate) invites: BTreeMap<[u8; 32], Invite>,
    pub(crate) revocations: Vec<Revocation>,
    pub(crate) restored: Option<Restored>,
}

/// What changes together: all of it is stored, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) records: BTreeMap<Holder, Record>,
    /// An invite to be written, or to be forgotten.
    pub(crate) invites: BTreeMap<[u8; 32], Option<Invite>>,
    /// New revocations.
    pub(crate) revocations: Vec<Revocation>,
    /// The restored mode as it will be.
    pub(crate) restored: Option<Option<Restored>>,
}

impl Delta {
    /// Tells whether nothing changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty() && !self.changes_admission() && self.restored.is_none()
    }

    /// Tells whether somebody else is let in or shut out after it.
    pub(crate) fn changes_admission(&self) -> bool {
        !self.invites.is_empty() || !self.revocations.is_empty()
    }

    fn record(&mut self, record: Record) {
        self.records.insert(Holder::of(&record.identity), record);
    }
}

/// Makes a certificate for the key of one request; what a request wants beyond that does not count.
pub(crate) trait Issue {
    /// SHA-256 of the key in hex, once the request is known to be good.
    ///
    /// # Errors
    /// A refusal when the request is not one, or does not prove that its maker has the key.
    fn key(&self) -> Result<String, Refusal>;

    /// Issues a plain certificate of `identity`.
    ///
    /// # Errors
    /// A refusal when the authority cannot issue.
    fn issue(&self, identity: &Identity, life: Duration) -> Result<Issuance, Refusal>;
}

/// A certificate that was issued and is not yet on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issuance {
    pub(crate) serial: String,
    pub(crate) not_after_unix_ms: u64,
    /// Leaf and issuing certificate in DER form.
    pub(crate) chain: Vec<Vec<u8>>,
}

/// The records, and the rules about them.
#[derive(Debug)]
pub(crate) struct Registry {
    rules: Rules,
    records: BTreeMap<Holder, Record>,
    invites: BTreeMap<[u8; 32], Invite>,
    revoked_holders: BTreeMap<Holder, Revocation>,
    revoked_serials: BTreeMap<String, Revocation>,
    restored: Option<Restored>,
    budget: Budget,
}

impl Registry {
    /// The records as they were stored.
    pub(crate) fn new(rules: Rules, stored: Stored) -> Self {
        let mut registry = Self {
            rules,
            records: BTreeMap::new(),
            invites: stored.invites,
            revoked_holders: BTreeMap::new(),
            revoked_serials: BTreeMap::new(),
            restored: stored.restored,
            budget: Budget::default(),
        };
        let mut delta = Delta {
            revocations: stored.revocations,
            ..Delta::default()
        };
        for record in stored.records {
            delta.record(record);
        }
        registry.apply(delta);
        registry
    }

    /// Changes the records. Called once the change is on the disk.
    pub(crate) fn apply(&mut self, delta: Delta) {
        self.records.extend(delta.records);
        for (key, invite) in delta.invites {
            match invite {
                Some(invite) => self.invites.insert(key, invite),
                None => self.invites.remove(&key),
            };
        }
        for revocation in delta.revocations {
            match &revocation.target {
                RevokeTarget::Holder { role: Some(role), name } => {
                    self.revoked_holders.insert(Holder::new(*role, name), revocation);
                }
                RevokeTarget::Serial(serial) => {
                    self.revoked_serials.insert(serial.clone(), revocation);
                }
                // None is made without a role.
                RevokeTarget::Holder { role: None, .. } => {}
            }
        }
        if let Some(restored) = delta.restored {
            self.restored = restored;
        }
    }

    /// The identity of that holder, if there is a record of it.
    pub(crate) fn record(&self, holder: &Holder) -> Option<&Record> {
        self.records.get(holder)
    }

    /// What others must know at once, made from a snapshot that lets in whoever the root vouches for.
    pub(crate) fn published(&self, base: &AdmissionSnapshot) -> Published {
        let mut snapshot = base.clone();
        for (holder, revocation) in &self.revoked_holders {
            if let RevokeTarget::Holder { name, .. } = &revocation.target {
                snapshot.revoke_holder(holder.role(), name);
            }
        }
        for serial in self.revoked_serials.keys() {
            snapshot.revoke_serial(serial);
        }
        for (key, invite) in &self.invites {
            snapshot.invite(JoinKey(*key), invite.identity.clone());
        }
        let mut revocations: Vec<_> = self.revocations().cloned().collect();
        revocations.sort_by_key(|revocation| revocation.at_unix_ms);
        Published::new(snapshot, revocations)
    }

    /// Labels of machines and limits of operators, as invites gave them. What a daemon with a certificate from elsewhere says of
    /// itself is not on record.
    pub(crate) fn view(&self) -> View {
        let mut view = View::default();
        for record in self.records.values().filter(|record| record.is_invited) {
            if record.identity.role == Role::Daemon {
                view.label(&record.identity.name, record.labels.clone());
            } else {
                view.limit(&record.identity, record.machines.clone());
            }
        }
        view
    }

    /// Everybody who is on record, by role and name.
    pub(crate) fn identities(&self, connections: &BTreeMap<Holder, u64>) -> Vec<IdentitySummary> {
        self.records
            .iter()
            .map(|(holder, record)| {
                let latest = record.latest();
                let by_serial = latest.and_then(|bound| self.revoked_serials.get(&bound.serial));
                IdentitySummary {
                    identity: record.identity.clone(),
                    serial: latest.map_or_else(String::new, |bound| bound.serial.clone()),
                    not_after_unix_ms: latest.map_or(0, |bound| bound.not_after_unix_ms),
                    issued_unix_ms: latest.map_or(0, |bound| bound.issued_unix_ms),
                    seen_unix_ms: record.seen_unix_ms,
                    connections: connections.get(holder).copied().unwrap_or_default(),
                    labels: record.labels.clone(),
                    machines: record.machines.clone(),
                    recoveries: record.recoveries,
                    revoked: self.revoked_holders.get(holder).or(by_serial).cloned(),
                }
            })
            .collect()
    }

    /// Forgets what nobody needs an answer about any more.
    pub(crate) fn tidy(&mut self, now_unix_ms: u64) -> Delta {
        let over = self.invites.iter().filter(|(_, invite)| invite.is_over(now_unix_ms));
        Delta {
            invites: over.map(|(key, _)| (*key, None)).collect(),
            ..Delta::default()
        }
    }

    fn revocations(&self) -> impl Iterator<Item = &Revocation> {
        self.revoked_holders.values().chain(self.revoked_serials.values())
    }

    fn life_of(&self, identity: &Identity, life_ms: Option<u64>) -> Duration {
        life_ms.map_or_else(|| self.rules.lives.of(identity.role), Duration::from_millis)
    }

    /// Invites and certificates need an authority.
    fn must_issue(&self) -> Result<(), Refusal> {
        if self.rules.can_issue {
            return Ok(());
        }
        Err(Refusal::new(
            RefusalCode::WrongState,
            "this coordinator holds no authority; it can neither invite nor issue certificates",
        )
        .hint("run `dora-remote certs issue` where the authority is kept, or start the coordinator with `--authority`"))
    }
}

/// An instant of a record as people read it.
fn utc(unix_ms: u64) -> Utc {
    Utc(SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms))
}
