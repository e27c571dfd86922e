//! Brings lifecycle events to the coordinator, in order, until each is acknowledged.

use crate::{store::StoreError, store_thread::StoreHandle, supervisor::View};
use dora_remote_link::{CallError, Peer};
use dora_remote_protocol::{
    daemon_to_coordinator::ReportEvents,
    limits::{IDLE_TIMEOUT, MAX_EVENTS_PER_REPORT},
};
use tokio::sync::watch;

/// Bytes of events after which a report is sent, so that it fits into one frame: a single event may have 1 MiB.
const REPORT_BYTES: usize = 1 << 20;

/// Why reporting ended.
pub(super) enum Ended {
    /// The store fails.
    Store(StoreError),
    /// The connection does.
    Peer(CallError),
}

/// Reports on one joined connection until it or the store fails. Dropping it loses nothing: what was not acknowledged is
/// reported again.
pub(super) async fn run(peer: Peer, store: StoreHandle, mut view: watch::Receiver<View>) -> Ended {
    loop {
        // Marked as seen before the look, so that what comes meanwhile wakes us again.
        view.mark_unchanged();
        loop {
            match report(&peer, &store).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(ended) => return ended,
            }
        }
        if view.changed().await.is_err() {
            return Ended::Store(StoreError::Closed);
        }
    }
}

/// Sends one report; false when there was nothing to send.
async fn report(peer: &Peer, store: &StoreHandle) -> Result<bool, Ended> {
    let events = store
        .run(|store| store.outbox(0, MAX_EVENTS_PER_REPORT, REPORT_BYTES))
        .await
        .map_err(Ended::Store)?;
    if events.is_empty() {
        return Ok(false);
    }
    // While the link is silent the report waits like everything else; the heartbeat is what notices.
    let acked = peer.call(&ReportEvents { events }, IDLE_TIMEOUT).await.map_err(Ended::Peer)?;
    store
        .run(move |store| store.ack_events(acked.seq))
        .await
        .map_err(Ended::Store)?;
    Ok(true)
}
