//! Which verb is answered where. Each handler turns a request into an event for the brain, or into a wait at the logs or the bundles,
//! and says in the log who has asked for what.

mod bundles;
mod dataflows;
mod logs;
mod machines;

use crate::{bundles::Bundles, event::BrainHandle, logs::hub::Hub, moment::Moment};
use dora_remote_link::{Context, Router};
use dora_remote_protocol::{
    cli_to_coordinator::{CoordinatorStatus, GetStatus},
    refusal::Refusal,
    request::Request,
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// What handlers work with. Clones are handles.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    pub(crate) brain: BrainHandle,
    pub(crate) hub: Hub,
    pub(crate) bundles: Bundles,
    pub(crate) about: Arc<About>,
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
    let desk = desk.clone();
    router.call(move |context, _: GetStatus| status(desk.clone(), context))
}

async fn status(desk: Desk, context: Context) -> Result<CoordinatorStatus, Refusal> {
    let counts = desk.brain.ask(|reply| crate::event::Event::Count { reply }).await?;
    let about = &desk.about;
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
        asker: context.peer.identity().to_string(),
    })
}

/// Writes the one line about a command that changes something.
fn note<R: Request, T>(context: &Context, target: &dyn fmt::Display, result: &Result<T, Refusal>) {
    match result {
        Ok(_) => tracing::info!(
            who = %context.peer.identity(),
            serial = context.peer.certificate().serial,
            verb = R::NAME,
            %target,
            request_id = %context.request_id,
            "did as asked"
        ),
        Err(_) => note_refusal::<R, T>(context, target, result),
    }
}

/// Writes the one line about a command that was refused.
fn note_refusal<R: Request, T>(context: &Context, target: &dyn fmt::Display, result: &Result<T, Refusal>) {
    if let Err(refusal) = result {
        tracing::warn!(
            who = %context.peer.identity(),
            serial = context.peer.certificate().serial,
            verb = R::NAME,
            %target,
            request_id = %context.request_id,
            code = refusal.code.as_str(),
            changed = ?refusal.changed,
            reason = %refusal.message,
            "refused"
        );
    }
}
