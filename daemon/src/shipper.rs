//! Carries batches of log lines to the coordinator and tells the tail which of them are stored.
//!
//! Logs never delay anything else: they travel at the lowest priority, and a batch simply waits while there is no connection.

use crate::tail::{TailCommand, TailHandle};
use dora_remote_link::{CallError, Peer};
use dora_remote_protocol::{daemon_to_coordinator::ShipLogs, limits::ORDER_DEADLINE, refusal::RefusalCode};
use std::time::Duration;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep,
};
use tracing::{debug, warn};

/// Pause before a batch is sent again on the same connection.
const RETRY: Duration = Duration::from_secs(1);

/// Ships batches until the tail ends. At most the tail's window of them is under way. `peers` holds the joined connection.
pub(crate) async fn run(mut batches: mpsc::Receiver<ShipLogs>, peers: watch::Receiver<Option<Peer>>, tail: TailHandle) {
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = under_way.join_next() => {}
            batch = batches.recv() => {
                let Some(batch) = batch else {
                    return;
                };
                under_way.spawn(ship(batch, peers.clone(), tail.clone()));
            }
        }
    }
}

async fn ship(batch: ShipLogs, mut peers: watch::Receiver<Option<Peer>>, tail: TailHandle) {
    loop {
        let peer = match peers.wait_for(Option::is_some).await {
            Ok(peer) => peer.clone(),
            Err(_) => return,
        };
        let Some(peer) = peer else {
            continue;
        };
        match peer.call(&batch, ORDER_DEADLINE).await {
            Ok(_) => break,
            Err(CallError::Refused(refusal)) if is_passing(refusal.code) => {
                debug!(dataflow = %batch.dataflow, %refusal, "log lines are sent again later");
            }
            Err(CallError::Refused(refusal)) if refusal.code == RefusalCode::NotFound => {
                // The coordinator has forgotten the dataflow, and nobody can ask for its lines any more.
                debug!(dataflow = %batch.dataflow, "log lines of a forgotten dataflow are dropped");
                break;
            }
            Err(error @ (CallError::Refused(_) | CallError::NotSent(_))) => {
                warn!(dataflow = %batch.dataflow, source = ?batch.source, up_to = batch.records.last, %error, "log lines are dropped");
                break;
            }
            Err(error) => debug!(dataflow = %batch.dataflow, %error, "log lines are sent again"),
        }
        tokio::select! {
            _ = peers.changed() => {}
            () = sleep(RETRY) => {}
        }
    }
    let acked = TailCommand::Acked {
        dataflow: batch.dataflow,
        source: batch.source.clone(),
    };
    tail.tell(acked).await;
}

/// Whether the same request may be accepted later.
fn is_passing(code: RefusalCode) -> bool {
    matches!(
        code,
        RefusalCode::Busy
            | RefusalCode::ShuttingDown
            | RefusalCode::Internal
            | RefusalCode::DeadlineExceeded
            | RefusalCode::WrongState
            | RefusalCode::Superseded
            | RefusalCode::CertificateLapsed
            | RefusalCode::Denied
    )
}
