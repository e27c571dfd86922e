//! Machines whose certificate is revoked: their runs go on or are stopped, and they may be let in again.

use crate::{
    log::Log,
    world::{World, lives},
};
use dora_remote_daemon::OnRevoked;
use dora_remote_link::CloseCode;
use dora_remote_protocol::{ids::DataflowId, machine::Lifecycle};

async fn running(world: &World) -> (DataflowId, Vec<u32>) {
    let dataflow = world.start("nodes: []").await;
    (dataflow, world.both_pids(dataflow).await)
}

fn revoke(world: &World) {
    let serial = &world.trust.machine.certificate().serial;
    world.trust.gate.change(|snapshot| snapshot.revoke_serial(serial));
    let peer = world.book.change(|seen| seen.peer.take()).expect("joined");
    peer.close(CloseCode::Revoked, "revoked");
}

#[tokio::test]
async fn the_runs_of_a_revoked_machine_go_on_and_new_credentials_bring_it_back() {
    let world = World::new();
    let mut log = Log::new();
    let daemon = world.joined().await;
    let (dataflow, pids) = running(&world).await;
    revoke(&world);
    log.until(&["ERROR", "has revoked this machine", "go on"]).await;
    log.until(&["ERROR", "until somebody helps", "revoked"]).await;
    let other = world.trust.issue_again();
    other.save(&world.identity(), true).expect("saved");
    world.book.until("a join", |seen| (seen.joins == 2).then_some(())).await;
    world.book.change(|seen| {
        assert_eq!(seen.joined_as[1].1, other.certificate().serial);
        assert_eq!(seen.joined_as[0].0, seen.joined_as[1].0, "the same instance");
        let runs = &seen.join.as_ref().expect("joined").runs;
        assert!(runs.iter().any(|run| run.dataflow == dataflow));
    });
    assert!(pids.iter().all(|pid| lives(*pid)));
    log.until(&["lets this machine in again"]).await;
    assert_eq!(log.count(&["has revoked this machine"]), 1, "told once");
    daemon.stop().await;
}

#[tokio::test]
async fn the_runs_of_a_revoked_machine_are_stopped_where_its_policy_says_so() {
    let mut world = World::new();
    world.on_revoked = OnRevoked::Stop;
    let mut log = Log::new();
    let daemon = world.joined().await;
    let (dataflow, pids) = running(&world).await;
    revoke(&world);
    log.until(&["ERROR", "has revoked this machine", "are stopped"]).await;
    log.until(&["the run has ended"]).await;
    assert!(pids.iter().all(|pid| !lives(*pid)));
    // What happened meanwhile is told once somebody has helped.
    world.trust.issue_again().save(&world.identity(), true).expect("saved");
    let finished = |what: &Lifecycle| matches!(what, Lifecycle::Finished { .. });
    world
        .book
        .until("the end", |seen| seen.of(dataflow).iter().any(finished).then_some(()))
        .await;
    daemon.stop().await;
}
