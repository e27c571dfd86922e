//! A coordinator that was restored from a backup has forgotten the latest revocations and uses of invites. Until somebody says that its
//! state is right, it lets in nobody on the word of its records alone.

use super::{
    Delta, Registry,
    record::{Invite, Restored},
};
use dora_remote_protocol::access::{MAX_REVOCATIONS, RestoreAccepted, Revocation};

/// What was changed when the coordinator was found to be restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// False when it was known to be.
    pub(crate) is_new: bool,
    /// Open invites that are void now.
    pub(crate) voided_invites: u64,
    /// Revocations that were forgotten and are back.
    pub(crate) merged_revocations: u64,
}

impl Registry {
    /// Enters the restored mode, unless it is entered: open invites are void, and recoveries stop. Revocations that were forgotten are
    /// taken over in any case, as far as there is room.
    pub(crate) fn found_restored(&self, why: &str, revocations: Vec<Revocation>, now_unix_ms: u64) -> (Delta, Found) {
        let mut delta = self.shut_out(revocations, now_unix_ms);
        delta
            .revocations
            .truncate(MAX_REVOCATIONS.saturating_sub(self.revocations().count()));
        let mut found = Found {
            is_new: self.restored.is_none(),
            merged_revocations: delta.revocations.len() as u64,
            ..Found::default()
        };
        if found.is_new {
            for (key, invite) in void(&self.invites, now_unix_ms) {
                delta.invites.insert(key, Some(invite));
                found.voided_invites += 1;
            }
            delta.restored = Some(Some(Restored {
                why: why.to_owned(),
                at_unix_ms: now_unix_ms,
                voided_invites: found.voided_invites,
            }));
        }
        (delta, found)
    }

    /// Leaves the restored mode.
    pub(crate) fn accept_restore(&self) -> (Delta, RestoreAccepted) {
        let mut delta = Delta::default();
        if self.restored.is_some() {
            delta.restored = Some(None);
        }
        let accepted = RestoreAccepted {
            restored: self.restored.as_ref().map(|restored| restored.why.clone()),
            voided_invites: self.restored.as_ref().map_or(0, |restored| restored.voided_invites),
        };
        (delta, accepted)
    }
}

/// Every open invite, taken back by the coordinator itself.
pub(super) fn void<'a>(
    invites: impl IntoIterator<Item = (&'a [u8; 32], &'a Invite)>,
    now_unix_ms: u64,
) -> impl Iterator<Item = ([u8; 32], Invite)> {
    invites
        .into_iter()
        .filter(move |(_, invite)| invite.is_open(now_unix_ms))
        .map(move |(key, invite)| (*key, invite.revoked("the restore from a backup", now_unix_ms)))
}
