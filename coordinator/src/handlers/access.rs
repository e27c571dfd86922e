//! Who may come in: invites, joining, renewal, revocation, and what is on record of identities.
//!
//! Whatever changes something is done to its end, its entry in the audit included, though its asker may go away meanwhile.

use super::{Desk, note, note_refusal, to_the_end};
use crate::{
    asker::Asker,
    audit::Draft,
    registry::{Found, RenewAsk},
};
use dora_remote_link::{Context, Peer, Rights, Router};
use dora_remote_protocol::{
    access::{
        AcceptRestore, CertificateIssued, CreateInvite, IdentitySummary, InviteCreated, InviteSummary, Join, ListIdentities,
        ListInvites, Renew, RestoreAccepted, Revocation, Revoke, RevokeInvite, RevokeTarget, Revoked,
    },
    limits::MAX_FRAME_BYTES,
    refusal::{Refusal, RefusalCode},
};
use std::time::{Duration, SystemTime};
use tokio::{task, time::sleep};

/// Adds the handlers of this file.
pub(super) fn add(router: Router, desk: &Desk) -> Router {
    let (invites, lists, takes, revokes) = (desk.clone(), desk.clone(), desk.clone(), desk.clone());
    let (identities, renews, joins, accepts) = (desk.clone(), desk.clone(), desk.clone(), desk.clone());
    router
        .call(move |context, request: CreateInvite| {
            let (desk, asker) = (invites.clone(), Asker::of(&context));
            to_the_end(async move { create_invite(&desk, &asker, request).await })
        })
        .call(move |context, request: ListInvites| {
            let (desk, asker) = (lists.clone(), Asker::of(&context));
            async move { list_invites(&desk, &asker, request).await }
        })
        .call(move |context, request: RevokeInvite| {
            let (desk, asker) = (takes.clone(), Asker::of(&context));
            to_the_end(async move { revoke_invite(&desk, &asker, request).await })
        })
        .call(move |context, request: Revoke| {
            let (desk, asker) = (revokes.clone(), Asker::of(&context));
            to_the_end(revoke_by_peer(desk, context.peer, request, asker))
        })
        .call(move |context, request: ListIdentities| {
            let (desk, asker) = (identities.clone(), Asker::of(&context));
            async move { list_identities(&desk, &asker, request).await }
        })
        .call(move |context, request: Renew| to_the_end(renew(renews.clone(), context, request)))
        .also_for_lapsed::<Renew>()
        .call(move |context, request: Join| to_the_end(join(joins.clone(), context, request)))
        .only_for_invited::<Join>()
        .call(move |context, request: AcceptRestore| {
            let (desk, asker) = (accepts.clone(), Asker::of(&context));
            to_the_end(async move { accept_restore(&desk, &asker, request).await })
        })
}

/// Makes an invite.
pub(crate) async fn create_invite(desk: &Desk, asker: &Asker, request: CreateInvite) -> Result<InviteCreated, Refusal> {
    let target = format!("{}/{}", request.role, request.name);
    let created = match desk.audit.check() {
        Ok(()) => desk.registry.create_invite(asker.who.clone(), request).await,
        Err(refusal) => Err(refusal),
    };
    note::<CreateInvite, _>(desk, asker, &target, &created).await;
    created
}

/// Lists the invites.
pub(crate) async fn list_invites(desk: &Desk, asker: &Asker, _: ListInvites) -> Result<Vec<InviteSummary>, Refusal> {
    let listed = desk.registry.list_invites().await;
    note_refusal::<ListInvites, _>(desk, asker, &"all invites", &listed).await;
    let mut list = listed?;
    // Whoever lists looks for the open and the latest ones.
    fit_into_frame(&mut list, |invite| invite.made_unix_ms);
    Ok(list)
}

/// Takes back open invites.
pub(crate) async fn revoke_invite(desk: &Desk, asker: &Asker, request: RevokeInvite) -> Result<Vec<InviteSummary>, Refusal> {
    let target = request.which.escape_debug().to_string();
    let taken = match desk.audit.check() {
        Ok(()) => desk.registry.revoke_invite(asker.who.clone(), request.which).await,
        Err(refusal) => Err(refusal),
    };
    note::<RevokeInvite, _>(desk, asker, &target, &taken).await;
    taken
}

/// Shuts out a holder or a certificate. Not refused while the audit cannot be written: what is stolen must be stoppable.
pub(crate) async fn revoke(desk: &Desk, asker: &Asker, request: Revoke) -> Result<Revoked, Refusal> {
    let reason = request.reason.escape_debug().to_string();
    let target = match reason.as_str() {
        "" => request.target.to_string(),
        reason => format!("{} ({reason})", request.target),
    };
    let revoked = desk.registry.revoke(asker.who.clone(), request).await;
    note::<Revoke, _>(desk, asker, &target, &revoked).await;
    revoked
}

/// Lets whoever shuts out itself read the answer. Until its connection ends nothing else is answered on it: rights are checked again on
/// every stream.
async fn revoke_by_peer(desk: Desk, peer: Peer, request: Revoke, asker: Asker) -> Result<Revoked, Refusal> {
    let may_be_itself = match &request.target {
        RevokeTarget::Holder { name, .. } => name.same_as(&peer.identity().name),
        RevokeTarget::Serial(_) => true,
    };
    if !may_be_itself {
        return revoke(&desk, &asker, request).await;
    }
    desk.roster.spare(peer.id());
    let revoked = revoke(&desk, &asker, request).await;
    // No wait of the answer: that is on its way only once this has returned.
    task::spawn(async move {
        sleep(TIME_TO_READ).await;
        desk.roster.spare_no_more(peer.id());
    });
    revoked
}

/// Lists who is on record.
pub(crate) async fn list_identities(desk: &Desk, asker: &Asker, _: ListIdentities) -> Result<Vec<IdentitySummary>, Refusal> {
    let listed = desk.registry.identities().await;
    note_refusal::<ListIdentities, _>(desk, asker, &"all identities", &listed).await;
    let mut list = listed?;
    fit_into_frame(&mut list, |identity| identity.seen_unix_ms.unwrap_or(identity.issued_unix_ms));
    Ok(list)
}

/// Says that the state of a restored coordinator is right.
pub(crate) async fn accept_restore(desk: &Desk, asker: &Asker, _: AcceptRestore) -> Result<RestoreAccepted, Refusal> {
    let accepted = match desk.audit.check() {
        Ok(()) => desk.registry.accept_restore().await,
        Err(refusal) => Err(refusal),
    };
    note::<AcceptRestore, _>(desk, asker, &"the coordinator", &accepted).await;
    accepted
}

/// Enters the restored mode: a daemon has witnessed what is not on record here.
pub(crate) async fn found_restored(desk: &Desk, why: String, revocations: Vec<Revocation>) -> Result<Found, Refusal> {
    let found = desk.registry.found_restored(why.clone(), revocations).await;
    let draft = Draft::by_coordinator("found-restored", why).result(&found);
    match &found {
        Ok(Found {
            is_new: false,
            merged_revocations: 0,
            ..
        }) => {}
        Ok(found) => {
            let detail = format!(
                "{} open invites voided, {} revocations taken over",
                found.voided_invites, found.merged_revocations
            );
            desk.audit.record(draft.detail(detail)).await;
        }
        Err(refusal) => {
            tracing::error!(%refusal, "cannot note that this coordinator was restored from a backup");
            desk.audit.record(draft).await;
        }
    }
    found
}

async fn renew(desk: Desk, context: Context, request: Renew) -> Result<CertificateIssued, Refusal> {
    let asker = Asker::of(&context);
    let peer = &context.peer;
    let ask = RenewAsk {
        identity: peer.identity().clone(),
        serial: peer.certificate().serial.clone(),
        has_lapsed: peer.rights() == Rights::RenewOnly,
    };
    let has_lapsed = ask.has_lapsed;
    let renewed = match desk.audit.check() {
        Ok(()) => desk.registry.renew(ask, peer.id(), request.request).await,
        Err(refusal) => Err(refusal),
    };
    let how = if has_lapsed {
        "its certificate, which had ended"
    } else {
        "its certificate"
    };
    note::<Renew, _>(&desk, &asker, &how, &renewed).await;
    let issued = renewed?;
    extend(peer, &issued);
    Ok(issued)
}

/// The connection lives as long as the new certificate. A daemon that had lapsed comes back with the new one instead: what it has shown
/// on this connection is no good for more than this.
fn extend(peer: &Peer, issued: &CertificateIssued) {
    if peer.rights() == Rights::Full {
        peer.extend_certificate(SystemTime::UNIX_EPOCH + Duration::from_millis(issued.not_after_unix_ms));
    }
}

async fn join(desk: Desk, context: Context, request: Join) -> Result<CertificateIssued, Refusal> {
    let asker = Asker::of(&context);
    let Rights::JoinOnly(key) = context.peer.rights() else {
        return Err(Refusal::new(RefusalCode::Denied, "only the holder of an invite may join"));
    };
    let identity = context.peer.identity().to_string();
    let joined = match desk.audit.check() {
        Ok(()) => desk.registry.join(key, asker.from.clone(), request.request).await,
        Err(refusal) => Err(refusal),
    };
    note::<Join, _>(&desk, &asker, &identity, &joined).await;
    joined
}

/// Time for an answer to reach the one who has shut out itself. All others are gone at once.
const TIME_TO_READ: Duration = Duration::from_millis(500);

/// Leaves out the oldest until the list fits into a frame.
fn fit_into_frame<T: serde::Serialize>(list: &mut Vec<T>, age: impl Fn(&T) -> u64) {
    const MOST: usize = MAX_FRAME_BYTES - (64 << 10);
    let weigh = |item: &T| postcard::to_stdvec(item).map_or(0, |bytes| bytes.len());
    let mut by_age: Vec<_> = list
        .iter()
        .enumerate()
        .map(|(at, item)| (age(item), at, weigh(item)))
        .collect();
    by_age.sort_unstable();
    let mut total: usize = by_age.iter().map(|(_, _, weight)| weight).sum();
    let mut left_out = vec![false; list.len()];
    let mut count = 0_usize;
    for (_, at, weight) in by_age {
        if total <= MOST {
            break;
        }
        total -= weight;
        left_out[at] = true;
        count += 1;
    }
    if count > 0 {
        tracing::warn!(count, "left out the oldest of a list that is too long for one answer");
        let mut left_out = left_out.into_iter();
        list.retain(|_| !left_out.next().unwrap_or_default());
    }
}
