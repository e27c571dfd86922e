//! Link-loss policies on one machine: silence of every kind counts, and what it has ended is told once.

use crate::{
    log::Log,
    relay::Relay,
    world::{World, lives},
};
use dora_remote_link::CloseCode;
use dora_remote_protocol::{coordinator_to_daemon::SpawnRun, dataflow::LinkLoss, ids::DataflowId, machine::Lifecycle};

/// The least that is possible.
const POLICY: LinkLoss = LinkLoss::StopAfter { silence_ms: 5_000 };

/// A run with the policy, and its processes.
async fn running(world: &World) -> (DataflowId, Vec<u32>) {
    let mut prepare = world.prepare("nodes: []");
    prepare.link_loss = POLICY;
    let dataflow = prepare.dataflow;
    world.order(&prepare).await;
    world.order(&SpawnRun { dataflow }).await;
    (dataflow, world.both_pids(dataflow).await)
}

async fn told_once(world: &World, dataflow: DataflowId) {
    let events = world
        .book
        .until("the end", |seen| {
            let events = seen.of(dataflow);
            let finished = |what: &Lifecycle| matches!(what, Lifecycle::Finished { .. });
            events.iter().any(finished).then_some(events)
        })
        .await;
    let lost = |what: &&Lifecycle| matches!(what, Lifecycle::LinkLost { silent_ms } if *silent_ms >= 5_000);
    assert_eq!(events.iter().filter(lost).count(), 1, "{events:?}");
}

#[tokio::test]
async fn a_run_is_stopped_in_the_cut_and_told_after_it_by_the_next_daemon() {
    let world = World::new();
    let mut log = Log::new();
    let mut relay = Relay::to(world.address()).await;
    let daemon = world.joined_at(relay.address).await;
    let (dataflow, pids) = running(&world).await;
    let spared = world.start("nodes: []").await;
    relay.cut(true);
    relay.swallowed(1).await;
    // The one that counts on is not the one that began.
    daemon.stop().await;
    let daemon = world.daemon_at(relay.address);
    log.until(&["WARN", "link-loss policy"]).await;
    log.until(&["the run has ended"]).await;
    assert!(pids.iter().all(|pid| !lives(*pid)));
    relay.cut(false);
    told_once(&world, dataflow).await;
    world.book.change(|seen| {
        let events = seen.of(spared);
        assert!(
            events.iter().all(|what| matches!(what, Lifecycle::NodeStarted { .. })),
            "{events:?}"
        );
    });
    daemon.stop().await;
}

#[tokio::test]
async fn a_revoked_machine_hears_nothing_either_so_that_the_policy_of_the_dataflow_counts() {
    let world = World::new();
    let mut log = Log::new();
    let daemon = world.joined().await;
    let (dataflow, pids) = running(&world).await;
    let serial = &world.trust.machine.certificate().serial;
    world.trust.gate.change(|snapshot| snapshot.revoke_serial(serial));
    let peer = world.book.change(|seen| seen.peer.take()).expect("joined");
    peer.close(CloseCode::Revoked, "revoked");
    log.until(&["ERROR", "has revoked this machine", "go on, as its policy says"])
        .await;
    log.until(&["WARN", "link-loss policy"]).await;
    log.until(&["the run has ended"]).await;
    assert!(pids.iter().all(|pid| !lives(*pid)));
    world.trust.issue_again().save(&world.identity(), true).expect("saved");
    told_once(&world, dataflow).await;
    daemon.stop().await;
}
