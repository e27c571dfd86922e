//! What daemons say, and the list of machines.

use super::{Desk, note_refusal};
use crate::event::Event;
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
        .call(move |_, _: ListMachines| list(lists.clone()))
}

async fn join(desk: Desk, context: Context, request: JoinMachine) -> Result<Joined, Refusal> {
    let peer = context.peer.clone();
    let request = Box::new(request);
    let joined = desk.brain.ask(|reply| Event::Join { peer, request, reply }).await;
    note_refusal::<JoinMachine, _>(&context, &context.peer.identity().name, &joined);
    joined
}

async fn heartbeat(desk: Desk, context: Context, request: Heartbeat) -> Result<(), Refusal> {
    let heard = |reply| Event::Heard {
        machine: context.peer.identity().name.clone(),
        connection: context.peer.id(),
        engine: request.engine,
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

async fn list(desk: Desk) -> Result<Vec<MachineSummary>, Refusal> {
    desk.brain.ask(|reply| Event::Machines { reply }).await
}
