//! Log lines in and out. Only the name of a dataflow passes the brain, never a line.

use super::{Desk, leash, note_refusal};
use crate::{asker::Asker, event::Event, logs::follow};
use dora_remote_link::{Context, FeedSink, Gone, Router};
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
    let dataflow = request.dataflow;
    let shipped = desk.hub.ship(context.peer.identity().name.clone(), request).await;
    note_refusal::<ShipLogs, _>(&desk, &Asker::of(&context), &dataflow, &shipped).await;
    shipped.map(|offset| LogsAcked { offset })
}

async fn read(desk: Desk, context: Context, request: ReadLogs, sink: FeedSink<LogItem>) -> Result<(), Refusal> {
    let asker = Asker::of(&context);
    let find = |reply| Event::Find {
        asker: asker.clone(),
        dataflow: request.dataflow.clone(),
        reply,
    };
    let read = match desk.brain.ask(find).await {
        Ok(id) => {
            let _reader = desk.demand.reader(id);
            let reading = async {
                match desk.demand.bring(id, request.follow, &sink).await {
                    Ok(()) => follow::serve(&desk.hub, id, &request, &sink, &context.shutdown).await,
                    Err(Gone) => Ok(()),
                }
            };
            tokio::select! {
                biased;
                refusal = leash::cut(&desk, &asker, id) => Err(refusal),
                read = reading => read,
            }
        }
        Err(refusal) => Err(refusal),
    };
    note_refusal::<ReadLogs, _>(&desk, &asker, &request.dataflow, &read).await;
    read
}
