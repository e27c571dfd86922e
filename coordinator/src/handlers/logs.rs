//! Log lines in and out. Only the name of a dataflow passes the brain, never a line.

use super::{Desk, note_refusal};
use crate::{event::Event, logs::follow};
use dora_remote_link::{Context, FeedSink, Router};
use dora_remote_protocol::{
    cli_to_coordinator::ReadLogs,
    daemon_to_coordinator::{LogsAcked, ShipLogs},
    log_line::LogItem,
    refusal::Refusal,
};

/// Adds the handlers of this file.
pub(super) fn add(router: Router, desk: &Desk) -> Router {
    let (ships, reads) = (desk.clone(), desk.clone());
    router
        .call(move |context, request: ShipLogs| ship(ships.clone(), context, request))
        .feed(move |context, request: ReadLogs, sink| read(reads.clone(), context, request, sink))
}

async fn ship(desk: Desk, context: Context, request: ShipLogs) -> Result<LogsAcked, Refusal> {
    let dataflow = request.batch.dataflow;
    let shipped = desk.hub.ship(context.peer.identity().name.clone(), request.batch).await;
    note_refusal::<ShipLogs, _>(&context, &dataflow, &shipped);
    shipped.map(|offset| LogsAcked { offset })
}

async fn read(desk: Desk, context: Context, request: ReadLogs, sink: FeedSink<LogItem>) -> Result<(), Refusal> {
    let dataflow = request.dataflow.clone();
    let read = match desk.brain.ask(|reply| Event::Find { dataflow, reply }).await {
        Ok(id) => follow::serve(&desk.hub, id, &request, &sink, &context.shutdown).await,
        Err(refusal) => Err(refusal),
    };
    note_refusal::<ReadLogs, _>(&context, &request.dataflow, &read);
    read
}
