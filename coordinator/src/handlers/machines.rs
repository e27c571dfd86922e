//! What daemons say, and the list of machines.

use super::{Desk, access, note, note_refusal};
use crate::{
    asker::Asker,
    event::{Admitted, Event},
};
use dora_remote_link::{Context, Router};
use dora_remote_protocol::{
    cli_to_coordinator::ListMachines,
    daemon_to_coordinator::{EventsAcked, Heartbeat, JoinMachine, Joined, ReportEvents},
    limits::MAX_EVENTS_PER_REPORT,
    machine::MachineSummary,
    refusal::{Refusal, RefusalCode},
};

/// Adds the handlers of this file.
pub(super) fn add(router: Router, desk: &Desk) -> Router {
    let (joins, beats, reports, lists) = (desk.clone(), desk.clone(), desk.clone(), desk.clone());
    router
        .call(move |context, request: JoinMachine| join(joins.clone(), context, request))
        .call(move |context, request: Heartbeat| heartbeat(beats.clone(), context, request))
        .call(move |context, request: ReportEvents| report(reports.clone(), context, request))
        .call(move |context, _: ListMachines| list(lists.clone(), Asker::of(&context)))
}

async fn join(desk: Desk, context: Context, request: JoinMachine) -> Result<Joined, Refusal> {
    let peer = context.peer.clone();
    let name = peer.identity().name.clone();
    // Before the machine is used: what it has seen may be what these records have forgotten.
    if let Some((why, revocations)) = desk.witnesses.examine(&name, &request).await
        && access::found_restored(&desk, why, revocations).await.is_ok()
        && let Err(refusal) = desk.audit.settle().await
    {
        tracing::error!(reason = %refusal, "cannot remember that the audit has lost entries");
    }
    let request = Box::new(request);
    let joined = match desk.brain.ask(|reply| Event::Join { peer, request, reply }).await {
        Ok(Admitted::Joined { joined, is_new }) => {
            if is_new {
                let first: Result<(), Refusal> = Ok(());
                note::<JoinMachine, _>(&desk, &Asker::of(&context), &name, &first).await;
            }
            desk.witnesses.joined(context.peer.clone());
            Ok(joined)
        }
        // It tries every few seconds, and was recorded when it did so first.
        Ok(Admitted::StillRefused(refusal)) => return Err(refusal),
        Err(refusal) => Err(refusal),
    };
    note_refusal::<JoinMachine, _>(&desk, &Asker::of(&context), &name, &joined).await;
    joined
}

async fn heartbeat(desk: Desk, context: Context, request: Heartbeat) -> Result<(), Refusal> {
    let heard = |reply| Event::Heard {
        machine: context.peer.identity().name.clone(),
        connection: context.peer.id(),
        engine: request.engine,
        disk: request.disk,
        reply,
    };
    desk.brain.ask(heard).await
}

async fn report(desk: Desk, context: Context, request: ReportEvents) -> Result<EventsAcked, Refusal> {
    if request.events.len() > MAX_EVENTS_PER_REPORT {
        return Err(Refusal::new(
            RefusalCode::BadRequest,
            format!(
                "{} events, and at most {MAX_EVENTS_PER_REPORT} are allowed",
                request.events.len()
            ),
        ));
    }
    let reported = |reply| Event::Reported {
        machine: context.peer.identity().name.clone(),
        connection: context.peer.id(),
        events: request.events,
        reply,
    };
    desk.brain.ask(reported).await
}

pub(crate) async fn list(desk: Desk, asker: Asker) -> Result<Vec<MachineSummary>, Refusal> {
    desk.brain.ask(|reply| Event::Machines { asker, reply }).await
}
