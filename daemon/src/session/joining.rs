//! The first request on a connection: what this machine is, what it has in hand, and what it witnessed.

use super::SessionConfig;
use crate::{
    store::StoreError,
    supervisor::{Input, JoinReport},
};
use dora_remote_link::{CallError, Peer};
use dora_remote_protocol::{
    daemon_to_coordinator::{JoinMachine, Joined},
    limits::{ORDER_DEADLINE, SILENCE},
    machine::MachineFacts,
};
use tracing::{error, warn};

/// Says what this machine is and has in hand. `store_epoch`: which life of the coordinator's store listens.
///
/// # Errors
/// The outer one when the daemon cannot go on, the inner one when the coordinator does not take the machine.
pub(super) async fn join(config: &SessionConfig, peer: &Peer, store_epoch: u64) -> Result<Result<(), CallError>, StoreError> {
    let Some(report) = config.orders.supervisor.ask(Input::Join).await else {
        return Err(StoreError::Closed);
    };
    let last_seq = report.last_seq;
    let (witnessed, revocations) = config.orders.witness.testimony(store_epoch).await?;
    let mut request = JoinMachine {
        witnessed,
        revocations,
        ..request(config, report)
    };
    let deadline = ORDER_DEADLINE.min(SILENCE);
    let mut answer = peer.call(&request, deadline).await;
    if let Err(CallError::NotSent(reason)) = &answer
        && let Some(left) = request.revocations.take()
    {
        error!(
            reason,
            revocations = left.revocations.len(),
            "the coordinator cannot be told of the revocations that are kept here"
        );
        answer = peer.call(&request, deadline).await;
    }
    match answer {
        Ok(joined) => settle(config, joined, last_seq).await.map(Ok),
        Err(error) => Ok(Err(error)),
    }
}

fn request(config: &SessionConfig, report: JoinReport) -> JoinMachine {
    JoinMachine {
        facts: MachineFacts {
            labels: config.labels.clone(),
            build: config.keys.speaker().build.clone(),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            engine: config.engine.borrow().clone(),
            logs: config.orders.demand.shipping(),
        },
        runs: report.runs,
        last_seq: report.last_seq,
        witnessed: None,
        revocations: None,
    }
}

/// Takes in what the coordinator knows and wants.
async fn settle(config: &SessionConfig, joined: Joined, last_seq: u64) -> Result<(), StoreError> {
    if joined.acked_seq > last_seq {
        warn!(
            known = joined.acked_seq,
            ours = last_seq,
            "the coordinator knows more events of this machine than the machine itself: was its state directory restored?"
        );
    }
    let acked = joined.acked_seq.min(last_seq);
    // Without room they stay in the outbox, and are told again.
    config.store.unless_full(move |store| store.ack_events(acked)).await?;
    if !joined.unwanted.is_empty() {
        config.orders.supervisor.tell(Input::Unwanted(joined.unwanted)).await;
    }
    Ok(())
}
