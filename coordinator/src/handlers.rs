//! Which verb is answered where. Each handler turns a request into an event for the brain, or into a wait at the logs or the bundles,
//! and says in the log who has asked for what.

pub(crate) mod access;
pub(crate) mod audit;
mod bundles;
mod dataflows;
mod leash;
mod logs;
pub(crate) mod machines;

use crate::{
    asker::Asker,
    audit::{AuditHandle, Draft, witnesses::Witnesses},
    backup::Backups,
    bundles::Bundles,
    event::BrainHandle,
    logs::{demand::Demand, hub::Hub},
    moment::Moment,
    registry::RegistryHandle,
    roster::Roster,
    view::ViewHandle,
};
use dora_remote_link::Router;
use dora_remote_protocol::{
    cli_to_coordinator::{CoordinatorStatus, GetStatus},
    refusal::{Changed, Refusal, RefusalCode},
    request::Request,
};
use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::task;

/// What handlers work with. Clones are handles.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    pub(crate) brain: BrainHandle,
    pub(crate) hub: Hub,
    pub(crate) demand: Demand,
    pub(crate) bundles: Bundles,
    pub(crate) about: Arc<About>,
    pub(crate) audit: AuditHandle,
    pub(crate) witnesses: Witnesses,
    pub(crate) backups: Backups,
    pub(crate) registry: RegistryHandle,
    pub(crate) roster: Roster,
    pub(crate) view: ViewHandle,
}

/// What a coordinator can say of itself without thinking.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) identity: String,
    pub(crate) build: &'static str,
    pub(crate) started_unix_ms: u64,
    pub(crate) certificate_ends_unix_ms: AtomicU64,
    pub(crate) log_bytes_max: u64,
}

/// The table of all verbs that a coordinator answers.
pub(crate) fn router(desk: &Desk) -> Router {
    let router = dataflows::add(Router::new(), desk);
    let router = machines::add(router, desk);
    let router = logs::add(router, desk);
    let router = bundles::add(router, desk);
    let router = access::add(router, desk);
    let router = audit::add(router, desk);
    let desk = desk.clone();
    router.call(move |context, _: GetStatus| status(desk.clone(), Asker::of(&context)))
}

pub(crate) async fn status(desk: Desk, asker: Asker) -> Result<CoordinatorStatus, Refusal> {
    let counts = desk.brain.ask(|reply| crate::event::Event::Count { reply }).await?;
    let (about, space) = (&desk.about, desk.hub.space());
    Ok(CoordinatorStatus {
        identity: about.identity.clone(),
        build: about.build.to_owned(),
        started_unix_ms: about.started_unix_ms,
        now_unix_ms: Moment::now().unix_ms,
        certificate_ends_unix_ms: about.certificate_ends_unix_ms.load(Ordering::Relaxed),
        machines_connected: counts.machines_connected,
        machines_unreachable: counts.machines_unreachable,
        dataflows_live: counts.dataflows_live,
        dataflows_ended: counts.dataflows_ended,
        log_bytes: desk.hub.bytes(),
        log_bytes_max: about.log_bytes_max,
        free_bytes: space.free,
        free_bytes_min: space.keep_free,
        asker: asker.who,
    })
}

/// Says what came of a command that changes something: one line in the log, one entry in the audit. Returns once the entry is on the disk.
pub(crate) async fn note<R: Request, T: Sync>(
    desk: &Desk,
    asker: &Asker,
    target: &(impl fmt::Display + Sync),
    result: &Result<T, Refusal>,
) {
    match result {
        Ok(_) => tracing::info!(
            who = asker.who,
            serial = asker.serial,
            verb = R::NAME,
            %target,
            request_id = %asker.request_id,
            "did as asked"
        ),
        Err(refusal) => warn::<R>(asker, target, refusal),
    }
    desk.audit.record(Draft::new(asker, R::NAME, target).result(result)).await;
}

/// Says that a command was refused: one line in the log, one entry in the audit; nothing when it was not.
pub(crate) async fn note_refusal<R: Request, T: Sync>(
    desk: &Desk,
    asker: &Asker,
    target: &(impl fmt::Display + Sync),
    result: &Result<T, Refusal>,
) {
    if let Err(refusal) = result {
        warn::<R>(asker, target, refusal);
        // A feed that ends with the coordinator was not refused.
        if refusal.code != RefusalCode::ShuttingDown {
            desk.audit.record(Draft::new(asker, R::NAME, target).result(result)).await;
        }
    }
}

/// Writes the one line about a command that was refused.
fn warn<R: Request>(asker: &Asker, target: &impl fmt::Display, refusal: &Refusal) {
    tracing::warn!(
        who = asker.who,
        serial = asker.serial,
        verb = R::NAME,
        %target,
        request_id = %asker.request_id,
        code = refusal.code.as_str(),
        changed = ?refusal.changed,
        reason = %refusal.message,
        "refused"
    );
}

/// Does something to its end, its entry in the audit included, though its asker may go away meanwhile: a handler is dropped then.
pub(crate) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    task::spawn(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a command has panicked");
        Err(Refusal::new(
            RefusalCode::Internal,
            "the command has failed; the coordinator's log has the rest",
        )
        .changed(Changed::Unknown))
    })
}
