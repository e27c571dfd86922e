//! A whole coordinator over real QUIC, with scripted daemons: it is killed and comes back, machines go and come back.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests may stop at what must not happen")]

mod access;
mod auditing;
mod clones;
mod following;
mod joining;
mod lapsing;
mod local;
mod restoring;
mod revoking;
mod scopes;
mod support;
mod witness;

use dora_remote_protocol::{
    cli_to_coordinator::{
        GetStatus, HasBundle, ListDataflows, ListMachines, PutBundle, StartDataflow, StopDataflow, WatchDataflow,
    },
    daemon_to_coordinator::{FetchBundle, ShipLogs},
    dataflow::{BundleRef, DataflowEvent, DataflowRef, DataflowState, Files},
    ids::{BundleHash, DataflowId, RequestId},
    log_line::{LogBatch, LogSource},
    machine::{Lifecycle, Reach},
    refusal::{Changed, RefusalCode},
};
use support::{Daemon, Memory, Ordered, PATIENCE, Running, World, cannot_prepare, lines, next, soon, spec, until};
use uuid::Uuid;

#[tokio::test]
async fn a_dataflow_starts_logs_and_stops() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let mut daemon = Daemon::join(&world, running.address, "a", &Memory::new()).await;
    let person = world.person(running.address).await;

    let mut start = person.start(1, &["a"]).await;
    let Some(DataflowEvent::Placed { id, name, nodes }) = next(&mut start).await.unwrap() else {
        panic!("the first event says what was placed");
    };
    assert_eq!((name.as_str(), nodes.len()), ("flow", 1));
    assert_eq!(daemon.order().await, Ordered::Prepare(id));
    assert_eq!(daemon.order().await, Ordered::Spawn);
    until(&mut start, DataflowState::Running).await;
    assert_eq!(
        next(&mut start).await.unwrap(),
        None,
        "the feed ends whole once the dataflow runs"
    );

    // The same asking again joins and starts nothing.
    let mut again = person.start(1, &["a"]).await;
    until(&mut again, DataflowState::Running).await;
    assert_eq!(person.ask(ListDataflows {}).await.unwrap().len(), 1);

    assert_eq!(daemon.ship(id, 1..=3).await, 3);
    let mut logs = person.logs(id, None, true).await;
    assert_eq!(
        lines(&mut logs, 3).await,
        [(1, "a 1".into()), (2, "a 2".into()), (3, "a 3".into())]
    );
    assert_eq!(daemon.ship(id, 2..=5).await, 5);
    assert_eq!(lines(&mut logs, 2).await, [(4, "a 4".into()), (5, "a 5".into())]);

    let watch = WatchDataflow {
        dataflow: DataflowRef::Name("FLOW".to_owned()),
    };
    let mut watch = person.peer.feed(&watch, None).await.unwrap();
    until(&mut watch, DataflowState::Running).await;
    let node = "n-a".parse().unwrap();
    daemon.happened(id, Lifecycle::NodeStarted { node, pid: 7 }).await;

    let stopping = stop("flow");
    let stop = person.ask(stopping);
    let daemon_side = async {
        assert_eq!(daemon.order().await, Ordered::Stop { force: false });
        daemon.finished(id).await;
        assert_eq!(daemon.ship(id, 6..=6).await, 6);
        daemon.happened(id, Lifecycle::LogsShipped).await;
    };
    let (stopped, ()) = soon("the stop", async { tokio::join!(stop, daemon_side) }).await;
    let stopped = stopped.unwrap();
    assert!(stopped.result.success && stopped.result.stopped, "{stopped:?}");
    until(&mut watch, DataflowState::Finished).await;
    assert!(matches!(next(&mut watch).await.unwrap(), Some(DataflowEvent::Ended(_))));
    assert_eq!(next(&mut watch).await.unwrap(), None);
    assert_eq!(lines(&mut logs, 1).await, [(6, "a 6".into())]);
    assert_eq!(
        next(&mut logs).await.unwrap(),
        None,
        "a follower ends when the last line was sent"
    );

    let status = person.ask(GetStatus {}).await.unwrap();
    assert_eq!(
        (status.machines_connected, status.dataflows_live, status.dataflows_ended),
        (1, 0, 1)
    );
    assert!(status.log_bytes > 0 && status.asker.ends_with("/operator/ann"));
    let again = person.ask(self::stop("flow")).await.unwrap();
    assert_eq!(again.result, stopped.result, "stopping what has ended changes nothing");
    running.end().await;
}

#[tokio::test]
async fn a_killed_coordinator_comes_back_and_nothing_is_lost_or_applied_twice() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let memory = Memory::new();
    let mut daemon = Daemon::join(&world, running.address, "a", &memory).await;
    let person = world.person(running.address).await;
    let id = start_running(&person, &mut daemon, 1).await;
    daemon.ship(id, 1..=4).await;
    let mut config = world.config("state");
    config.listen = running.address;
    let memory = daemon.memory(&memory, id);
    running.kill();

    let running = Running::start(config).await;
    let person = world.person(running.address).await;
    let list = person.ask(ListDataflows {}).await.unwrap();
    assert_eq!((list.len(), list[0].id, list[0].state), (1, id, DataflowState::Running));
    // The daemon kept what was not acknowledged, and more happened while the coordinator was away.
    let memory = Memory {
        last_seq: memory.last_seq + 1,
        ..memory
    };
    let mut daemon = Daemon::join(&world, running.address, "a", &memory).await;
    assert_eq!(
        daemon.joined.acked_seq,
        memory.last_seq - 1,
        "what was acknowledged is remembered"
    );
    assert!(daemon.joined.unwanted.is_empty());
    assert_eq!(daemon.ship(id, 3..=6).await, 6);
    let mut logs = person.logs(id, Some(2), true).await;
    let seen = lines(&mut logs, 4).await;
    assert_eq!(seen.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [3, 4, 5, 6]);
    assert_eq!(seen[3].1, "a 6");

    let finished = Lifecycle::Finished {
        failures: Vec::new(),
        note: String::new(),
    };
    let acked = daemon.report(id, memory.last_seq, finished.clone()).await;
    assert_eq!(acked.seq, memory.last_seq);
    assert_eq!(daemon.report(id, memory.last_seq, finished).await.seq, memory.last_seq);
    let list = person.ask(ListDataflows {}).await.unwrap();
    assert_eq!(list[0].state, DataflowState::Finished);

    // What has ended is remembered as such over the next death too.
    running.kill();
    let running = Running::start(world.config("state")).await;
    let person = world.person(running.address).await;
    assert_eq!(person.ask(ListDataflows {}).await.unwrap()[0].state, DataflowState::Finished);
    running.end().await;
}

#[tokio::test]
async fn a_machine_that_restarted_without_its_run_fails_it() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let memory = Memory::new();
    let mut daemon = Daemon::join(&world, running.address, "a", &memory).await;
    let person = world.person(running.address).await;
    let id = start_running(&person, &mut daemon, 1).await;
    let last_seq = daemon.memory(&memory, id).last_seq;
    daemon.leave();
    let _daemon = Daemon::join(&world, running.address, "a", &Memory { last_seq, ..memory }).await;
    let result = person.ask(ListDataflows {}).await.unwrap()[0]
        .result
        .clone()
        .expect("it has ended");
    assert!(!result.success && result.note.contains("restarted without it"), "{result:?}");
    running.end().await;
}

#[tokio::test]
async fn a_failed_preparing_is_undone_on_all_machines() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let mut a = Daemon::join(&world, running.address, "a", &Memory::new()).await;
    let unwilling = Memory {
        refuses: Some(cannot_prepare()),
        ..Memory::new()
    };
    let mut b = Daemon::join(&world, running.address, "b", &unwilling).await;
    let person = world.person(running.address).await;
    let mut start = person.start(1, &["a", "b"]).await;
    let refusal = loop {
        match next(&mut start).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the start cannot succeed"),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refusal.code, refusal.changed), (RefusalCode::NotPrepared, Changed::Nothing));
    assert!(refusal.message.contains("machine `b`: node `n-b`: /srv/b.py"), "{refusal:?}");
    for daemon in [&mut a, &mut b] {
        assert!(matches!(daemon.order().await, Ordered::Prepare(_)));
        assert_eq!(daemon.order().await, Ordered::Stop { force: true });
        assert_eq!(daemon.order().await, Ordered::Forget);
    }
    let list = person.ask(ListDataflows {}).await.unwrap();
    assert_eq!(list[0].state, DataflowState::Failed);
    running.end().await;
}

#[tokio::test]
async fn two_machines_meet_at_the_barrier() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let mut a = Daemon::join(&world, running.address, "a", &Memory::new()).await;
    let mut b = Daemon::join(&world, running.address, "b", &Memory::new()).await;
    let person = world.person(running.address).await;
    let mut start = person.start(1, &["a", "b"]).await;
    let Ordered::Prepare(id) = a.order().await else {
        panic!("prepare comes first")
    };
    b.order().await;
    assert_eq!((a.order().await, b.order().await), (Ordered::Spawn, Ordered::Spawn));
    let reached = Lifecycle::BarrierReached {
        exited_before_subscribe: Vec::new(),
    };
    a.happened(id, reached.clone()).await;
    b.happened(id, reached).await;
    assert_eq!((a.order().await, b.order().await), (Ordered::Release, Ordered::Release));
    until(&mut start, DataflowState::Running).await;
    assert_eq!(next(&mut start).await.unwrap(), None);
    running.end().await;
}

#[tokio::test]
async fn a_stop_is_kept_for_a_machine_that_cannot_be_reached() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let memory = Memory::new();
    let mut daemon = Daemon::join(&world, running.address, "a", &memory).await;
    let person = world.person(running.address).await;
    let id = start_running(&person, &mut daemon, 1).await;
    let memory = daemon.memory(&memory, id);
    daemon.leave();
    // Answered once the machine counts as lost, long before a stop would time out.
    let refusal = person.ask(stop("flow")).await.unwrap_err();
    assert_eq!(
        (refusal.code, refusal.changed),
        (RefusalCode::MachineUnreachable, Changed::Partly)
    );
    let machines = person.ask(ListMachines {}).await.unwrap();
    assert!(matches!(machines[0].reach, Reach::Unreachable { .. }));
    let list = person.ask(ListDataflows {}).await.unwrap();
    assert_eq!((list[0].state, list[0].unreachable.len()), (DataflowState::Stopping, 1));

    let mut daemon = Daemon::join(&world, running.address, "a", &memory).await;
    assert_eq!(daemon.order().await, Ordered::Stop { force: false });
    daemon.finished(id).await;
    let list = person.ask(ListDataflows {}).await.unwrap();
    assert_eq!(list[0].state, DataflowState::Finished);
    running.end().await;
}

#[tokio::test]
async fn a_run_that_nobody_remembers_is_listed_and_can_be_stopped() {
    let world = World::new();
    let first = Running::start(world.config("first")).await;
    let memory = Memory::new();
    let mut daemon = Daemon::join(&world, first.address, "a", &memory).await;
    let person = world.person(first.address).await;
    let id = start_running(&person, &mut daemon, 1).await;
    let memory = daemon.memory(&memory, id);
    first.kill();

    let running = Running::start(world.config("empty")).await;
    let mut daemon = Daemon::join(&world, running.address, "a", &memory).await;
    let person = world.person(running.address).await;
    let list = person.ask(ListDataflows {}).await.unwrap();
    assert_eq!(
        (list[0].id, list[0].state, list[0].nodes.len()),
        (id, DataflowState::Running, 1)
    );
    let stopping = person.ask(stop("flow"));
    let daemon_side = async {
        assert_eq!(daemon.order().await, Ordered::Stop { force: false });
        daemon.finished(id).await;
    };
    let (stopped, ()) = soon("the stop", async { tokio::join!(stopping, daemon_side) }).await;
    assert!(stopped.unwrap().result.success);
    running.end().await;
}

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

#[tokio::test]
async fn placement_is_refused_with_the_machines_there_are() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let _a = Daemon::join(&world, running.address, "a", &Memory::new()).await;
    let person = world.person(running.address).await;
    let mut start = person.start(1, &["nobody"]).await;
    let refusal = next(&mut start).await.unwrap_err();
    assert_eq!(
        (refusal.code, refusal.changed),
        (RefusalCode::UnknownMachine, Changed::Nothing)
    );
    assert!(refusal.hint.contains("a (connected)"), "{refusal:?}");
    assert!(person.ask(ListDataflows {}).await.unwrap().is_empty());
    running.end().await;
}

/// Starts a dataflow on one machine.
async fn start_running(person: &support::Person, daemon: &mut Daemon, start_id: u128) -> DataflowId {
    let mut start = person.start(start_id, &["a"]).await;
    let Ordered::Prepare(id) = daemon.order().await else {
        panic!("prepare comes first")
    };
    assert_eq!(daemon.order().await, Ordered::Spawn);
    until(&mut start, DataflowState::Running).await;
    let node = "n-a".parse().unwrap();
    daemon.happened(id, Lifecycle::NodeStarted { node, pid: 7 }).await;
    id
}

fn stop(name: &str) -> StopDataflow {
    StopDataflow {
        dataflow: DataflowRef::Name(name.to_owned()),
        grace_ms: None,
        force: false,
    }
}
