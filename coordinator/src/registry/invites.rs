//! Making invites, listing them, taking them back.

use super::{
    Delta, Holder, Registry,
    record::{Fate, Invite, invite_id},
    utc,
};
use crate::config::Span;
use dora_remote_protocol::{
    access::{
        CreateInvite, InviteCreated, InviteSummary, MAX_CERTIFICATE_LIFE_MS, MAX_IDENTITIES, MAX_INVITE_LIFE_MS, MAX_INVITES,
        MIN_CERTIFICATE_LIFE_MS, MIN_INVITE_LIFE_MS,
    },
    dataflow::Labels,
    identity::{Identity, Role},
    limits::{MAX_LABEL_BYTES, MAX_LABELS},
    refusal::{Refusal, RefusalCode},
};
use std::time::Duration;

impl Registry {
    /// Makes an invite. Asking again for the same one changes nothing and gets the same answer.
    pub(crate) fn create_invite(
        &self,
        by: &str,
        request: &CreateInvite,
        now_unix_ms: u64,
    ) -> Result<(Delta, InviteCreated), Refusal> {
        self.must_issue()?;
        check(request)?;
        let invite = Invite {
            identity: Identity {
                trust_domain: self.rules.trust_domain.clone(),
                role: request.role,
                name: request.name.clone(),
            },
            labels: request.labels.clone(),
            machines: request.machines.clone(),
            certificate_life_ms: request.certificate_life_ms,
            replace: request.replace,
            by: by.to_owned(),
            made_unix_ms: now_unix_ms,
            expires_unix_ms: now_unix_ms.saturating_add(request.life_ms),
            fate: Fate::Open,
        };
        if let Some(present) = self.invites.get(&request.join_key) {
            let same = Invite {
                made_unix_ms: present.made_unix_ms,
                expires_unix_ms: present.expires_unix_ms,
                ..invite
            };
            if *present == same && present.is_open(now_unix_ms) {
                return Ok((Delta::default(), self.created(present)));
            }
            return Err(Refusal::new(
                RefusalCode::BadRequest,
                format!("this key is that of another invite ({})", invite_id(&request.join_key)),
            )
            .hint("make a new key for each invite"));
        }
        let mut delta = self.make_way(&invite, now_unix_ms)?;
        self.make_room(&invite, now_unix_ms, &mut delta)?;
        let created = self.created(&invite);
        delta.invites.insert(request.join_key, Some(invite));
        Ok((delta, created))
    }

    /// Every invite that is remembered, oldest first.
    pub(crate) fn list_invites(&self, now_unix_ms: u64) -> Vec<InviteSummary> {
        let mut list: Vec<_> = self
            .invites
            .iter()
            .map(|(key, invite)| invite.summary(key, now_unix_ms))
            .collect();
        list.sort_by_key(|invite| invite.made_unix_ms);
        list
    }

    /// Takes back the open invites with that id, or for that name.
    pub(crate) fn revoke_invite(&self, by: &str, which: &str, now_unix_ms: u64) -> Result<(Delta, Vec<InviteSummary>), Refusal> {
        let is_meant = |key: &[u8; 32], invite: &Invite| {
            invite.identity.name.as_str().eq_ignore_ascii_case(which) || invite_id(key).eq_ignore_ascii_case(which)
        };
        let mut meant = self.invites.iter().filter(|(key, invite)| is_meant(key, invite)).peekable();
        if meant.peek().is_none() {
            return Err(Refusal::new(
                RefusalCode::NotFound,
                format!("no invite is called `{}`", which.escape_debug()),
            )
            .hint("`dora-remote invite list` shows all of them"));
        }
        let mut delta = Delta::default();
        let mut taken = Vec::new();
        for (key, invite) in meant.filter(|(_, invite)| invite.is_open(now_unix_ms)) {
            let invite = invite.revoked(by, now_unix_ms);
            taken.push(invite.summary(key, now_unix_ms));
            delta.invites.insert(*key, Some(invite));
        }
        if taken.is_empty() {
            return Err(Refusal::new(
                RefusalCode::WrongState,
                format!("no invite called `{}` is open any more", which.escape_debug()),
            )
            .hint("if it was used, `dora-remote revoke` shuts out who joined"));
        }
        Ok((delta, taken))
    }

    /// Adds to `delta` that every open invite of a holder is taken back.
    pub(super) fn revoke_invites_of(&self, holder: &Holder, by: &str, now_unix_ms: u64, delta: &mut Delta) {
        for (key, invite) in &self.invites {
            if invite.is_open(now_unix_ms) && Holder::of(&invite.identity) == *holder {
                delta.invites.insert(*key, Some(invite.revoked(by, now_unix_ms)));
            }
        }
    }

    /// The name must be free, or to be replaced.
    fn make_way(&self, invite: &Invite, now_unix_ms: u64) -> Result<Delta, Refusal> {
        let holder = Holder::of(&invite.identity);
        let taken = |message: String| Refusal::new(RefusalCode::NameTaken, message);
        if let Some(revocation) = self.revoked_holders.get(&holder) {
            return Err(taken(format!(
                "{holder} was revoked at {} by {}, and a revoked name is never given again",
                utc(revocation.at_unix_ms),
                revocation.by
            ))
            .hint("choose another name"));
        }
        if let Some(record) = self.records.get(&holder) {
            if record.identity.name != invite.identity.name {
                return Err(taken(format!(
                    "{holder} is on record as `{}`, and names are the same ignoring case",
                    record.identity.name
                ))
                .hint("use that spelling, or choose another name"));
            }
            if !invite.replace {
                return Err(taken(format!("{holder} is on record here already"))
                    .hint("choose another name, or add `--replace` to give its name to a new key"));
            }
        }
        let open = self.invites.iter().find(|(_, other)| {
            let same = Holder::of(&other.identity) == holder;
            same && other.is_open(now_unix_ms)
        });
        if let Some((key, _)) = open
            && !invite.replace
        {
            return Err(taken(format!("an invite for {holder} is open already ({})", invite_id(key)))
                .hint("use that one, take it back with `dora-remote invite revoke`, or add `--replace`"));
        }
        let mut delta = Delta::default();
        self.revoke_invites_of(&holder, &invite.by, now_unix_ms, &mut delta);
        Ok(delta)
    }

    /// The bounds on what is remembered. Invites that are not open any more make room, the oldest first.
    fn make_room(&self, invite: &Invite, now_unix_ms: u64, delta: &mut Delta) -> Result<(), Refusal> {
        if !self.records.contains_key(&Holder::of(&invite.identity)) && self.records.len() >= MAX_IDENTITIES {
            return Err(Refusal::new(
                RefusalCode::LimitReached,
                format!("{MAX_IDENTITIES} identities are on record, and there is no room for more"),
            ));
        }
        if self.invites.len() < MAX_INVITES {
            return Ok(());
        }
        let closed = self.invites.iter().filter(|(_, invite)| !invite.is_open(now_unix_ms));
        let Some((oldest, _)) = closed.min_by_key(|(_, invite)| invite.made_unix_ms) else {
            return Err(Refusal::new(
                RefusalCode::LimitReached,
                format!("{MAX_INVITES} invites are open, and there is no room for more"),
            )
            .hint("take some back with `dora-remote invite revoke`, or wait until one has been used or has ended"));
        };
        delta.invites.insert(*oldest, None);
        Ok(())
    }

    fn created(&self, invite: &Invite) -> InviteCreated {
        InviteCreated {
            identity: invite.identity.clone(),
            expires_unix_ms: invite.expires_unix_ms,
            root_hash: self.rules.root_hash,
            addresses: self.rules.addresses.clone(),
        }
    }
}

/// How the log and the audit name the holder of an invite.
pub(crate) fn invite_label(key: &[u8; 32]) -> String {
    format!("invite {}", invite_id(key))
}

fn check(request: &CreateInvite) -> Result<(), Refusal> {
    let bad = |message: String| Err(Refusal::new(RefusalCode::BadRequest, message));
    let role = request.role;
    if role == Role::Coordinator {
        return bad("nobody can be invited as a coordinator; the authority issues its certificate".to_owned());
    }
    if role != Role::Daemon && !request.labels.is_empty() {
        return bad(format!("labels are for machines, and a `{role}` is none"));
    }
    if role != Role::Operator && !request.machines.is_empty() {
        return bad(format!("only operators are limited to machines, and this is a `{role}`"));
    }
    check_labels(&request.labels)?;
    check_labels(&request.machines)?;
    if !(MIN_INVITE_LIFE_MS..=MAX_INVITE_LIFE_MS).contains(&request.life_ms) {
        return bad(format!(
            "an invite lives from {} to {}, and {} are wanted",
            span(MIN_INVITE_LIFE_MS),
            span(MAX_INVITE_LIFE_MS),
            span(request.life_ms)
        ));
    }
    match request.certificate_life_ms {
        Some(life) if !(MIN_CERTIFICATE_LIFE_MS..=MAX_CERTIFICATE_LIFE_MS).contains(&life) => bad(format!(
            "a certificate lives from {} to {}, and {} are wanted",
            span(MIN_CERTIFICATE_LIFE_MS),
            span(MAX_CERTIFICATE_LIFE_MS),
            span(life)
        )),
        Some(_) | None => Ok(()),
    }
}

/// So many milliseconds as people write them.
fn span(ms: u64) -> String {
    if ms.is_multiple_of(1_000) {
        Span(Duration::from_millis(ms)).to_string()
    } else {
        format!("{ms}ms")
    }
}

fn check_labels(labels: &Labels) -> Result<(), Refusal> {
    let is_good = |text: &String| text.len() <= MAX_LABEL_BYTES && !text.chars().any(char::is_control);
    if labels.len() <= MAX_LABELS
        && labels
            .iter()
            .all(|(key, value)| !key.is_empty() && is_good(key) && is_good(value))
    {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalCode::BadRequest,
        format!(
            "there are at most {MAX_LABELS} labels, with keys and values of at most {MAX_LABEL_BYTES} bytes without control characters"
        ),
    ))
}
