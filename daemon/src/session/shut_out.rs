//! What happens on a machine that its coordinator has shut out: it is told loudly once, and its runs go on or are stopped.

use crate::{
    on_revoked::OnRevoked,
    supervisor::{Input, SupervisorHandle},
};
use dora_remote_protocol::{coordinator_to_daemon::StopRun, ids::DataflowId, machine::RunPhase};
use std::{collections::BTreeSet, time::Duration};
use tokio::{sync::watch, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Pause before a stop that failed is ordered again.
const RETRY: Duration = Duration::from_secs(5);

/// Watches whether the machine is shut out, until `shutdown`.
pub(super) async fn run(
    mut shut_out: watch::Receiver<bool>,
    orders: SupervisorHandle,
    then: OnRevoked,
    shutdown: CancellationToken,
) {
    let watching = async {
        while shut_out.wait_for(|is| *is).await.is_ok() {
            match then {
                OnRevoked::Keep => error!("the coordinator has revoked this machine; its dataflows go on, as its policy says"),
                OnRevoked::Stop => {
                    error!("the coordinator has revoked this machine; its dataflows are stopped, as its policy says")
                }
            }
            let acting = async {
                if then == OnRevoked::Stop {
                    stop_all(&orders).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = acting => {}
                back = shut_out.wait_for(|is| !*is) => match back {
                    Ok(_) => info!("the coordinator lets this machine in again"),
                    Err(_) => return,
                },
            }
        }
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        () = watching => {}
    }
}

/// Orders every run to stop with the default grace, also those that appear later. Never ends by itself while the daemon lives.
async fn stop_all(orders: &SupervisorHandle) {
    let mut ordered = BTreeSet::<DataflowId>::new();
    let mut view = orders.view();
    loop {
        let seen = *view.borrow_and_update();
        let Some(report) = orders.ask(Input::Join).await else {
            return;
        };
        let alive = report.runs.into_iter().filter(|run| run.phase != RunPhase::Ended);
        let mut stops = JoinSet::new();
        for dataflow in alive.map(|run| run.dataflow).filter(|id| !ordered.contains(id)) {
            let orders = orders.clone();
            stops.spawn(async move {
                let request = StopRun {
                    dataflow,
                    grace_ms: None,
                    force: false,
                };
                (dataflow, orders.order(|reply| Input::Stop { request, reply }).await)
            });
        }
        let mut failed = false;
        while let Some(Ok((dataflow, stopped))) = stops.join_next().await {
            match stopped {
                Ok(()) => drop(ordered.insert(dataflow)),
                Err(refusal) => {
                    warn!(%dataflow, %refusal, "a dataflow was not stopped; it is tried again");
                    failed = true;
                }
            }
        }
        // Asking alone rings the view, so that only a difference counts.
        tokio::select! {
            changed = view.wait_for(|view| *view != seen) => if changed.is_err() {
                return;
            },
            () = sleep(RETRY), if failed => {}
        }
    }
}
