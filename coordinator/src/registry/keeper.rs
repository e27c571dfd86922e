//! The thread that owns the registry: it decides, stores, publishes, closes who is shut out, and only then answers.

use super::{
    AccessFile, Delta, Found, Holder, Issuance, Issue, Published, Registry, RenewAsk,
    handle::{Mailbox, RegistryHandle, Work},
    record::Fate,
};
use crate::{
    moment::{Moment, unix_ms},
    roster::Roster,
    view::ViewHandle,
};
use dora_remote_certs::{AdmissionSnapshot, Authority, CertificateFacts, Clock, JoinKey, RequestError, RequestedKey};
use dora_remote_protocol::{
    access::{
        CertificateIssued, CreateInvite, IdentitySummary, InviteCreated, InviteSummary, RestoreAccepted, Revocation, Revoke,
        Revoked,
    },
    identity::Identity,
    refusal::{Refusal, RefusalCode},
};
use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, PoisonError, RwLock},
    thread,
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::watch;

/// What the thread works with.
pub(crate) struct KeeperParts {
    pub(crate) file: AccessFile,
    pub(crate) epoch: u64,
    pub(crate) registry: Registry,
    /// Lets in whoever the root vouches for.
    pub(crate) base: AdmissionSnapshot,
    pub(crate) authority: Option<Arc<Authority>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) roster: Roster,
    pub(crate) view: ViewHandle,
}

/// The authority in use: its issuing certificate may be replaced while the coordinator runs.
pub(super) type AuthorityCell = Arc<RwLock<Option<Arc<Authority>>>>;

/// Starts the thread, and publishes what was stored.
pub(crate) fn start(parts: KeeperParts) -> io::Result<RegistryHandle> {
    if let Some(restored) = &parts.registry.restored {
        tracing::warn!(
            why = restored.why,
            "this coordinator was restored from a backup, and lets no lapsed daemon back in until `dora-remote coordinator accept-restore`"
        );
    }
    let published = parts.registry.published(&parts.base);
    parts.view.set(parts.registry.view());
    let (publish, changes) = watch::channel(published);
    let authority: AuthorityCell = Arc::new(RwLock::new(parts.authority));
    let database = parts.file.database();
    let mut keeper = Keeper {
        file: parts.file,
        registry: parts.registry,
        base: parts.base,
        authority: Arc::clone(&authority),
        clock: parts.clock,
        roster: parts.roster,
        view: parts.view,
        publish,
        unsaved: BTreeSet::new(),
        saved: Instant::now(),
        has_failed: false,
    };
    let mailbox = Arc::new(Mailbox::default());
    let thread = thread::Builder::new().name("registry".to_owned()).spawn({
        let mailbox = Arc::clone(&mailbox);
        move || keeper.run(&mailbox)
    })?;
    Ok(RegistryHandle::new(
        mailbox,
        changes,
        authority,
        parts.epoch,
        database,
        thread,
    ))
}

/// The registry and everything that a change of it touches.
pub(crate) struct Keeper {
    file: AccessFile,
    registry: Registry,
    base: AdmissionSnapshot,
    authority: AuthorityCell,
    clock: Arc<dyn Clock>,
    roster: Roster,
    view: ViewHandle,
    publish: watch::Sender<Published>,
    /// Records that know more than the disk: mostly when somebody was last seen.
    unsaved: BTreeSet<Holder>,
    saved: Instant,
    has_failed: bool,
}

impl Keeper {
    fn run(&mut self, mailbox: &Mailbox) {
        loop {
            match mailbox.next(TICK) {
                Work::Arrivals(arrivals) => self.arrived(&arrivals),
                Work::Job(job) => job(self),
                Work::Nothing => self.tick(),
                Work::End => break,
            }
            if self.saved.elapsed() >= TICK {
                self.tick();
            }
        }
        self.save();
    }

    pub(super) fn create_invite(&mut self, by: &str, request: &CreateInvite) -> Result<InviteCreated, Refusal> {
        let (delta, created) = self.registry.create_invite(by, request, self.now().unix_ms)?;
        self.commit(delta)?;
        Ok(created)
    }

    pub(super) fn list_invites(&self) -> Vec<InviteSummary> {
        self.registry.list_invites(self.now().unix_ms)
    }

    pub(super) fn revoke_invite(&mut self, by: &str, which: &str) -> Result<Vec<InviteSummary>, Refusal> {
        let (delta, taken) = self.registry.revoke_invite(by, which, self.now().unix_ms)?;
        self.commit(delta)?;
        Ok(taken)
    }

    pub(super) fn revoke(&mut self, by: &str, request: &Revoke) -> Result<Revoked, Refusal> {
        let (delta, revocation, is_new) = self.registry.revoke(by, request, self.now().unix_ms)?;
        let closed = self.commit(delta)?;
        Ok(Revoked {
            revocation,
            is_new,
            closed,
        })
    }

    pub(super) fn identities(&self) -> Vec<IdentitySummary> {
        self.registry.identities(&self.roster.counts())
    }

    pub(super) fn renew(&mut self, ask: &RenewAsk, connection: u64, request: &[u8]) -> Result<CertificateIssued, Refusal> {
        let signer = self.signer(request);
        let (delta, issued) = self.registry.renew(ask, &signer, self.now())?;
        let serial = delta
            .records
            .get(&Holder::of(&ask.identity))
            .and_then(|record| record.latest())
            .map(|bound| bound.serial.clone());
        self.commit(delta)?;
        if let Some(serial) = serial {
            self.roster.renewed(connection, serial);
        }
        Ok(issued)
    }

    pub(super) fn join(&mut self, key: JoinKey, from: &str, request: &[u8]) -> Result<CertificateIssued, Refusal> {
        let signer = self.signer(request);
        let (delta, issued) = self.registry.join(&key.0, from, &signer, self.now().unix_ms)?;
        self.commit(delta)?;
        Ok(issued)
    }

    pub(super) fn found_restored(&mut self, why: &str, revocations: Vec<Revocation>) -> Result<Found, Refusal> {
        let (delta, found) = self.registry.found_restored(why, revocations, self.now().unix_ms);
        self.commit(delta)?;
        if found.is_new || found.merged_revocations > 0 {
            tracing::error!(
                why,
                voided_invites = found.voided_invites,
                merged_revocations = found.merged_revocations,
                "this coordinator was restored from a backup: open invites are void, and lapsed daemons are not let back in until \
                 `dora-remote coordinator accept-restore`"
            );
        }
        Ok(found)
    }

    pub(super) fn accept_restore(&mut self) -> Result<RestoreAccepted, Refusal> {
        let (delta, accepted) = self.registry.accept_restore();
        self.commit(delta)?;
        Ok(accepted)
    }

    /// Stores a change, then lets everybody know. Gives the number of connections that it closed.
    fn commit(&mut self, delta: Delta) -> Result<u64, Refusal> {
        let changes_admission = delta.changes_admission();
        let changes_view = delta.records.iter().any(|(holder, after)| {
            let before = self.registry.record(holder);
            before.is_none_or(|before| {
                before.labels != after.labels || before.machines != after.machines || before.is_invited != after.is_invited
            })
        });
        let voided: BTreeSet<JoinKey> = delta
            .invites
            .iter()
            .filter(|(_, invite)| {
                invite
                    .as_ref()
                    .is_none_or(|invite| matches!(invite.fate, Fate::Revoked { .. }))
            })
            .map(|(key, _)| JoinKey(*key))
            .collect();
        if !delta.is_empty() {
            self.file.apply(&delta).map_err(|error| {
                tracing::error!(%error, "cannot store a change of who may come in");
                Refusal::new(RefusalCode::Internal, format!("the coordinator cannot {error}"))
                    .hint("nothing was changed; look at the disk of the coordinator's host")
            })?;
        }
        for holder in delta.records.keys() {
            self.unsaved.remove(holder);
        }
        self.registry.apply(delta);
        if changes_view {
            self.view.set(self.registry.view());
        }
        if changes_admission {
            self.publish.send_replace(self.registry.published(&self.base));
        }
        Ok(self.roster.shut_out(&self.publish.borrow()) + self.roster.void(&voided))
    }

    fn arrived(&mut self, arrivals: &[CertificateFacts]) {
        let now = self.now().unix_ms;
        let mut is_urgent = false;
        for facts in arrivals {
            let Some(arrived) = self.registry.arrived(facts, now) else {
                tracing::warn!(peer = %facts.identity, "there is no room for a record of this identity");
                continue;
            };
            is_urgent |= arrived.is_urgent;
            self.unsaved.extend(arrived.delta.records.keys().cloned());
            self.registry.apply(arrived.delta);
        }
        if is_urgent {
            self.save();
        }
    }

    /// What is due now and then.
    fn tick(&mut self) {
        let delta = self.registry.tidy(self.now().unix_ms);
        if !delta.is_empty()
            && let Err(refusal) = self.commit(delta)
        {
            tracing::warn!(%refusal, "cannot forget old invites");
        }
        self.save();
    }

    /// Stores what is known of those who were seen. Who was seen when is no promise: a failure is tried again later.
    fn save(&mut self) {
        self.saved = Instant::now();
        if self.unsaved.is_empty() {
            return;
        }
        let delta = Delta {
            records: self
                .unsaved
                .iter()
                .filter_map(|holder| Some((holder.clone(), self.registry.record(holder)?.clone())))
                .collect(),
            ..Delta::default()
        };
        match self.file.apply(&delta) {
            Ok(()) => {
                self.unsaved.clear();
                self.has_failed = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    tracing::error!(%error, "cannot store who was seen; trying again until it works");
                }
            }
        }
    }

    fn now(&self) -> Moment {
        Moment::of(self.clock.as_ref())
    }

    fn signer<'a>(&self, request: &'a [u8]) -> Signer<'a> {
        Signer {
            authority: self.authority.read().unwrap_or_else(PoisonError::into_inner).clone(),
            request,
            now: self.clock.now(),
        }
    }
}

/// Answers one request with the authority.
struct Signer<'a> {
    authority: Option<Arc<Authority>>,
    request: &'a [u8],
    now: SystemTime,
}

impl Issue for Signer<'_> {
    fn key(&self) -> Result<String, Refusal> {
        match RequestedKey::of(self.request) {
            Ok(key) => Ok(key.fingerprint().to_owned()),
            Err(error) => Err(refused(&error)),
        }
    }

    fn issue(&self, identity: &Identity, life: Duration) -> Result<Issuance, Refusal> {
        let authority = self
            .authority
            .as_ref()
            .ok_or_else(|| Refusal::new(RefusalCode::WrongState, "this coordinator holds no authority"))?;
        let issued = authority
            .issue_for_request(self.request, identity, life, self.now)
            .map_err(|error| refused(&error))?;
        Ok(Issuance {
            serial: issued.certificate.serial,
            not_after_unix_ms: unix_ms(issued.certificate.not_after),
            chain: issued.chain.iter().map(|certificate| certificate.to_vec()).collect(),
        })
    }
}

fn refused(error: &RequestError) -> Refusal {
    match error {
        RequestError::TooLarge { .. } | RequestError::NotARequest | RequestError::WrongKey | RequestError::NotProven => {
            Refusal::new(RefusalCode::BadRequest, error.to_string())
        }
        RequestError::Issue(fault) => {
            tracing::error!(error = %fault, "the authority cannot issue");
            Refusal::new(RefusalCode::WrongState, format!("the authority cannot issue: {fault}"))
        }
    }
}

/// Longest time until what is due now and then is done.
const TICK: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
