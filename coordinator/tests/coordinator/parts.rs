//! A machine has to do with the dataflows alone that it runs a part of.

use crate::support::{Daemon, Memory, Ordered, PATIENCE, Running, World, next, spec, start_running, until};
use dora_remote_protocol::{
    cli_to_coordinator::{HasBundle, PutBundle, StartDataflow},
    daemon_to_coordinator::{FetchBundle, ShipLogs},
    dataflow::{BundleRef, DataflowState, Files},
    ids::{BundleHash, DataflowId, RequestId},
    log_line::{LogBatch, LogSource},
    refusal::RefusalCode,
};
use uuid::Uuid;

#[tokio::test]
async fn bundles_go_to_the_machines_that_run_them_alone() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let mut a = Daemon::join(&world, running.address, "a", &Memory::new()).await;
    let b = Daemon::join(&world, running.address, "b", &Memory::new()).await;
    let person = world.person(running.address).await;
    let content = vec![9_u8; 300_000];
    let bundle = BundleRef {
        hash: BundleHash(*blake3::hash(&content).as_bytes()),
        bytes: content.len() as u64,
        unpacked_bytes: 1,
        entries: 1,
    };
    let start = |bundle| {
        let mut spec = spec(&["a"]);
        spec.files = Files::Bundle(bundle);
        StartDataflow {
            start_id: RequestId(Uuid::new_v4()),
            spec,
        }
    };
    let mut too_early = person.peer.feed(&start(bundle), None).await.unwrap();
    assert_eq!(next(&mut too_early).await.unwrap_err().code, RefusalCode::BadBundle);
    assert!(!person.ask(HasBundle { hash: bundle.hash }).await.unwrap());
    let stored = person
        .peer
        .upload(&PutBundle { bundle }, content.as_slice(), PATIENCE)
        .await
        .unwrap();
    assert_eq!(stored.hash, bundle.hash);
    assert!(person.ask(HasBundle { hash: bundle.hash }).await.unwrap());

    let mut started = person.peer.feed(&start(bundle), None).await.unwrap();
    assert!(matches!(a.order().await, Ordered::Prepare(_)));
    until(&mut started, DataflowState::Running).await;
    let fetch = FetchBundle { hash: bundle.hash };
    let mut chunks = a.peer.feed(&fetch, None).await.unwrap();
    let mut fetched = Vec::new();
    while let Some(chunk) = next(&mut chunks).await.unwrap() {
        fetched.extend(chunk.0);
    }
    assert!(fetched == content, "every byte arrived");
    let mut denied = b.peer.feed(&fetch, None).await.unwrap();
    assert_eq!(next(&mut denied).await.unwrap_err().code, RefusalCode::Denied);
    running.end().await;
}

#[tokio::test]
async fn a_machine_may_not_ship_logs_of_what_it_does_not_run() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let mut a = Daemon::join(&world, running.address, "a", &Memory::new()).await;
    let b = Daemon::join(&world, running.address, "b", &Memory::new()).await;
    let person = world.person(running.address).await;
    let id = start_running(&person, &mut a, 1).await;
    let batch = |dataflow| LogBatch {
        dataflow,
        source: LogSource::Machine,
        epoch: 1,
        lost_before: 0,
        records: Vec::new(),
    };
    let refused = b.peer.call(&ShipLogs::pack(batch(id)), PATIENCE).await.unwrap_err();
    assert!(refused.to_string().contains("runs nothing"), "{refused}");
    let unknown = DataflowId(Uuid::from_u128(5));
    b.peer.call(&ShipLogs::pack(batch(unknown)), PATIENCE).await.unwrap();
    running.end().await;
}
