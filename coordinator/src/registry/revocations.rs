//! Shutting out a holder or one certificate, for good.

use super::{Delta, Holder, Registry};
use dora_remote_protocol::{
    access::{MAX_REASON_BYTES, MAX_REVOCATIONS, Revocation, Revoke, RevokeTarget},
    identity::Role,
    name::Name,
    refusal::{Refusal, RefusalCode},
};
use std::collections::BTreeSet;

impl Registry {
    /// Shuts out whom or what is named. Gives the revocation as it is kept, and whether it is new.
    pub(crate) fn revoke(&self, by: &str, request: &Revoke, now_unix_ms: u64) -> Result<(Delta, Revocation, bool), Refusal> {
        if request.reason.len() > MAX_REASON_BYTES {
            return Err(Refusal::new(
                RefusalCode::BadRequest,
                format!(
                    "the reason has {} bytes, and at most {MAX_REASON_BYTES} are allowed",
                    request.reason.len()
                ),
            ));
        }
        let target = self.resolve(&request.target, now_unix_ms)?;
        if let Some(present) = self.revocation_of(&target) {
            return Ok((Delta::default(), present.clone(), false));
        }
        self.check_room(1)?;
        let mut revocation = Revocation {
            target,
            at_unix_ms: now_unix_ms,
            by: by.to_owned(),
            reason: request.reason.clone(),
        };
        if self.takes_the_last_admin(&revocation) {
            revocation.reason.push_str(LAST_ADMIN);
        }
        let delta = self.shut_out(vec![revocation.clone()], now_unix_ms);
        Ok((delta, revocation, true))
    }

    /// Tells whether nobody who is on record as an admin is left once this is revoked.
    fn takes_the_last_admin(&self, revocation: &Revocation) -> bool {
        let target = match &revocation.target {
            RevokeTarget::Holder {
                role: Some(Role::Admin),
                name,
            } => Holder::new(Role::Admin, name),
            RevokeTarget::Holder { .. } | RevokeTarget::Serial(_) => return false,
        };
        let mut others = self
            .records
            .keys()
            .filter(|holder| holder.role() == Role::Admin && **holder != target);
        others.all(|holder| self.revoked_holders.contains_key(holder))
    }

    /// Those of `revocations` that are not known yet, with what they entail.
    pub(super) fn shut_out(&self, revocations: Vec<Revocation>, now_unix_ms: u64) -> Delta {
        let mut delta = Delta::default();
        let mut targets = BTreeSet::new();
        for revocation in revocations {
            match &revocation.target {
                RevokeTarget::Holder { role: Some(role), name } => {
                    self.revoke_invites_of(&Holder::new(*role, name), &revocation.by, now_unix_ms, &mut delta);
                }
                RevokeTarget::Serial(_) => {}
                // None is kept without a role.
                RevokeTarget::Holder { role: None, .. } => continue,
            }
            if self.revocation_of(&revocation.target).is_none() && targets.insert(revocation.target.clone()) {
                delta.revocations.push(revocation);
            }
        }
        delta
    }

    /// Refuses when there is no room for so many more.
    pub(super) fn check_room(&self, more: usize) -> Result<(), Refusal> {
        if self.revocations().count() + more <= MAX_REVOCATIONS {
            return Ok(());
        }
        Err(Refusal::new(
            RefusalCode::LimitReached,
            format!("{MAX_REVOCATIONS} revocations are kept, and there is no room for more"),
        )
        .hint("make a new authority: what the old one has signed is then void as a whole"))
    }

    /// Names the target as it is kept: a holder with its role, a serial in its one form.
    fn resolve(&self, target: &RevokeTarget, now_unix_ms: u64) -> Result<RevokeTarget, Refusal> {
        match target {
            RevokeTarget::Serial(text) => canonical_serial(text).map(RevokeTarget::Serial).ok_or_else(|| {
                Refusal::new(
                    RefusalCode::BadRequest,
                    format!(
                        "`{}` is no serial of a certificate, which is written in hex",
                        text.escape_debug()
                    ),
                )
            }),
            RevokeTarget::Holder {
                role: Some(Role::Coordinator),
                ..
            } => Err(Refusal::new(
                RefusalCode::BadRequest,
                "a coordinator cannot be revoked: the others know it by its root alone",
            )
            .hint("make a new authority, and join everybody anew")),
            RevokeTarget::Holder { role: Some(role), name } => Ok(self.spelled(*role, name)),
            RevokeTarget::Holder { role: None, name } => {
                let roles = self.roles_of(name, now_unix_ms);
                let mut those = roles.iter();
                match (those.next(), those.next()) {
                    (Some(role), None) => Ok(self.spelled(*role, name)),
                    (None, _) => Err(
                        Refusal::new(RefusalCode::NotFound, format!("nobody called `{name}` is known here"))
                            .hint("name the role too, and the name is shut out all the same"),
                    ),
                    (Some(_), Some(_)) => {
                        let all: Vec<_> = roles.iter().map(|role| format!("{role}/{name}")).collect();
                        let message = format!("several are called `{name}`: {}", all.join(", "));
                        Err(Refusal::new(RefusalCode::BadRequest, message).hint("name the role too"))
                    }
                }
            }
        }
    }

    /// Every role in which that name is on record, invited or revoked.
    fn roles_of(&self, name: &Name, now_unix_ms: u64) -> BTreeSet<Role> {
        let invited = self.invites.values().filter(|invite| invite.is_open(now_unix_ms));
        self.records
            .keys()
            .chain(self.revoked_holders.keys())
            .filter(|holder| holder.is_called(name))
            .map(Holder::role)
            .chain(
                invited
                    .filter(|invite| invite.identity.name.same_as(name))
                    .map(|invite| invite.identity.role),
            )
            .collect()
    }

    fn spelled(&self, role: Role, name: &Name) -> RevokeTarget {
        let record = self.records.get(&Holder::new(role, name));
        RevokeTarget::Holder {
            role: Some(role),
            name: record.map_or_else(|| name.clone(), |record| record.identity.name.clone()),
        }
    }

    fn revocation_of(&self, target: &RevokeTarget) -> Option<&Revocation> {
        match target {
            RevokeTarget::Holder { role: Some(role), name } => self.revoked_holders.get(&Holder::new(*role, name)),
            RevokeTarget::Serial(serial) => self.revoked_serials.get(serial),
            RevokeTarget::Holder { role: None, .. } => None,
        }
    }
}

/// A serial in the form in which certificates are read: lower-case hex of whole bytes, the first of them not zero.
pub(super) fn canonical_serial(text: &str) -> Option<String> {
    let is_separator = |c: char| c == ':' || c.is_ascii_whitespace();
    let digits: String = text.chars().filter(|c| !is_separator(*c)).collect();
    if digits.is_empty() || digits.len() > MAX_SERIAL_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let digits = digits.to_ascii_lowercase();
    let significant = digits.trim_start_matches('0');
    match significant.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(format!("0{significant}")),
        _ => Some(significant.to_owned()),
    }
}

/// Stands behind the reason of a revocation that leaves no admin on record, so that whoever revokes reads it.
const LAST_ADMIN: &str = " [the last admin on record: only the admin socket of the coordinator's host can invite another one]";

/// Hex digits of the longest serial (20 bytes, RFC 5280 section 4.1.2.2) with room for leading zeros.
const MAX_SERIAL_DIGITS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_have_one_form_however_people_type_them() {
        for text in ["0aBc01", "ABC01", "0a:bc:01", "00 0a bc 01"] {
            assert_eq!(canonical_serial(text).as_deref(), Some("0abc01"), "{text}");
        }
        for text in ["", "0", "xyz", "12g4", &"1".repeat(65)] {
            assert_eq!(canonical_serial(text), None, "{text}");
        }
    }
}
