//! One reader of log lines: the past, then what comes, without gap or double. It waits for its own stream alone.

use super::hub::Hub;
use dora_remote_link::FeedSink;
use dora_remote_logstore::Filter;
use dora_remote_protocol::{
    cli_to_coordinator::ReadLogs,
    ids::DataflowId,
    log_line::LogItem,
    refusal::{Refusal, RefusalCode},
};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Sends what was asked for. Ends when all was sent, for a follower when nothing more is waited for.
pub(crate) async fn serve(
    hub: &Hub,
    dataflow: DataflowId,
    request: &ReadLogs,
    sink: &FeedSink<LogItem>,
    shutdown: &CancellationToken,
) -> Result<(), Refusal> {
    let filter = Arc::new(Filter::nodes(request.nodes.iter().cloned()));
    // Taken before the first look at the store, so that nothing is missed between the look and the wait.
    let mut progress = hub.progress(dataflow);
    let last_at_open = hub.last_seq(dataflow).await?;
    let mut cursor = request.after.unwrap_or(0);
    if let Some(lines) = request.tail {
        cursor = cursor.max(hub.tail_cursor(dataflow, lines, &filter).await?);
    }
    let mut is_caught_up = !request.follow;
    loop {
        let is_complete = progress
            .as_mut()
            .is_none_or(|progress| progress.borrow_and_update().is_complete);
        let page = hub.read(dataflow, cursor, &filter).await?;
        cursor = page.next_after;
        for item in page.items {
            if sink.send(item).await.is_err() {
                return Ok(());
            }
        }
        if !is_caught_up && cursor >= last_at_open {
            is_caught_up = true;
            if sink.send(LogItem::CaughtUp).await.is_err() {
                return Ok(());
            }
        }
        if !page.at_end {
            continue;
        }
        if !request.follow || is_complete {
            return Ok(());
        }
        let Some(progress) = progress.as_mut() else {
            return Ok(());
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                return Err(Refusal::new(
                    RefusalCode::ShuttingDown,
                    "the coordinator is ending",
                ));
            }
            () = sink.gone() => return Ok(()),
            changed = progress.changed() => {
                // The dataflow was forgotten: nothing more will come.
                if changed.is_err() {
                    return Ok(());
                }
            }
        }
    }
}
