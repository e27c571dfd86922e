//! What the coordinator may order, one line each: everything goes to the supervisor.

use crate::supervisor::{Input, SupervisorHandle};
use dora_remote_link::{Context, Router};
use dora_remote_protocol::coordinator_to_daemon::{ForgetRun, PrepareRun, ReleaseBarrier, SpawnRun, StopRun};

/// The table of orders.
pub(crate) fn router(supervisor: &SupervisorHandle) -> Router {
    let (prepare, spawn, release) = (supervisor.clone(), supervisor.clone(), supervisor.clone());
    let (stop, forget) = (supervisor.clone(), supervisor.clone());
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
}
