//! What the coordinator may order, one line each: runs go to the supervisor, what is to be remembered to the witness.

use crate::{
    demand::Demand,
    supervisor::{Input, SupervisorHandle},
    tail::TailHandle,
    witness::Witness,
};
use dora_remote_link::{Context, Router};
use dora_remote_protocol::coordinator_to_daemon::{
    DrainLogs, ForgetRun, KeepHead, KeepRevocations, Ping, PrepareRun, ReleaseBarrier, ShowHeads, SpawnRun, StopRun, WantLogs,
};
use std::time::{Duration, Instant};

/// Who carries out orders. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Orders {
    /// Runs.
    pub(crate) supervisor: SupervisorHandle,
    /// Memory.
    pub(crate) witness: Witness,
    /// Who reads log lines.
    pub(crate) demand: Demand,
    /// Log lines.
    pub(crate) tail: TailHandle,
}

/// The table of orders.
pub(crate) fn router(orders: &Orders) -> Router {
    let Orders {
        supervisor,
        witness,
        demand,
        tail,
    } = orders;
    let (demand, tail) = (demand.clone(), tail.clone());
    let (prepare, spawn, release) = (supervisor.clone(), supervisor.clone(), supervisor.clone());
    let (stop, forget) = (supervisor.clone(), supervisor.clone());
    let (keep, revocations, show) = (witness.clone(), witness.clone(), witness.clone());
    Router::new()
        .call(move |context: Context, request: PrepareRun| {
            let supervisor = prepare.clone();
            async move {
                let peer = context.peer;
                supervisor.order(|reply| Input::Prepare { request, peer, reply }).await
            }
        })
        .call(move |_, SpawnRun { dataflow }| {
            let supervisor = spawn.clone();
            async move { supervisor.order(|reply| Input::Spawn { dataflow, reply }).await }
        })
        .call(move |_, request: ReleaseBarrier| {
            let supervisor = release.clone();
            async move { supervisor.order(|reply| Input::Release { request, reply }).await }
        })
        .call(move |_, request: StopRun| {
            let supervisor = stop.clone();
            async move { supervisor.order(|reply| Input::Stop { request, reply }).await }
        })
        .call(move |_, ForgetRun { dataflow }| {
            let supervisor = forget.clone();
            async move { supervisor.order(|reply| Input::Forget { dataflow, reply }).await }
        })
        .call(move |_, KeepHead { head }| {
            let witness = keep.clone();
            async move { witness.keep_head(head).await }
        })
        .call(move |_, KeepRevocations { revocations: signed }| {
            let witness = revocations.clone();
            async move { witness.keep_revocations(signed).await }
        })
        .call(move |_, ShowHeads {}| {
            let witness = show.clone();
            async move { witness.heads().await }
        })
        .call(move |_, WantLogs { dataflow, lease_ms }| {
            demand.lease(dataflow, Duration::from_millis(lease_ms), Instant::now());
            async { Ok(()) }
        })
        .call(move |_, DrainLogs { dataflow }| {
            let tail = tail.clone();
            async move {
                tail.drained(dataflow).await;
                Ok(())
            }
        })
        // That it is answered is the answer.
        .call(|_, Ping {}| async { Ok(()) })
}
