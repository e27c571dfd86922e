//! Dataflows that start, log and stop, or do not start, on one machine and on several.

use crate::support::{Daemon, Memory, Ordered, Running, World, cannot_prepare, lines, next, soon, stop, until};
use dora_remote_protocol::{
    cli_to_coordinator::{GetStatus, ListDataflows, WatchDataflow},
    dataflow::{DataflowEvent, DataflowRef, DataflowState},
    machine::Lifecycle,
    refusal::{Changed, RefusalCode},
};

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

    let stopping = person.ask(stop("flow"));
    let daemon_side = async {
        assert_eq!(daemon.order().await, Ordered::Stop { force: false });
        daemon.finished(id).await;
        assert_eq!(daemon.ship(id, 6..=6).await, 6);
        daemon.happened(id, Lifecycle::LogsShipped).await;
    };
    let (stopped, ()) = soon("the stop", async { tokio::join!(stopping, daemon_side) }).await;
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
    let again = person.ask(stop("flow")).await.unwrap();
    assert_eq!(again.result, stopped.result, "stopping what has ended changes nothing");
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
