//! The life of runs through everything that can die: connection, coordinator, daemon, engine.

use crate::{
    fake_coordinator::Seen,
    fake_engine::LINES,
    world::{World, kill_hard, lives, stop},
};
use dora_remote_protocol::{
    coordinator_to_daemon::{ForgetRun, ReleaseBarrier, SpawnRun},
    dataflow::FailureCause,
    ids::DataflowId,
    log_line::LogSource,
    machine::{Lifecycle, RunPhase},
    refusal::RefusalCode,
};
use uuid::Uuid;

fn pids(seen: &Seen, dataflow: DataflowId) -> Vec<u32> {
    let pid = |what: Lifecycle| match what {
        Lifecycle::NodeStarted { pid, .. } => Some(pid),
        _ => None,
    };
    seen.of(dataflow).into_iter().filter_map(pid).collect()
}

async fn shipped(world: &World, dataflow: DataflowId) -> Vec<Lifecycle> {
    world
        .book
        .until("the last log line", |seen| {
            let events = seen.of(dataflow);
            (events.last() == Some(&Lifecycle::LogsShipped)).then_some(events)
        })
        .await
}

fn expected_lines() -> Vec<String> {
    (0..LINES).map(|n| format!("line {n}")).collect()
}

fn assert_lines(world: &World, dataflow: DataflowId) {
    world.book.change(|seen| {
        for node in ["a", "b"] {
            assert_eq!(seen.texts(dataflow, node), expected_lines(), "node {node}");
        }
    });
}

#[tokio::test]
async fn a_run_is_started_told_of_and_stopped() {
    let world = World::new();
    let daemon = world.joined().await;
    let prepare = world.prepare("nodes: []");
    let dataflow = prepare.dataflow;
    assert_eq!(world.refused(&SpawnRun { dataflow }).await, RefusalCode::NotFound);
    for _ in 0..2 {
        world.order(&prepare).await;
    }
    for _ in 0..2 {
        world.order(&SpawnRun { dataflow }).await;
    }
    let release = ReleaseBarrier {
        dataflow,
        exited_before_subscribe: Vec::new(),
    };
    world.order(&release).await;
    let pids = world
        .book
        .until("both nodes", |seen| Some(pids(seen, dataflow)).filter(|pids| pids.len() == 2))
        .await;
    assert!(pids.iter().all(|pid| lives(*pid)));
    assert_eq!(world.refused(&ForgetRun { dataflow }).await, RefusalCode::WrongState);
    for _ in 0..2 {
        world.order(&stop(dataflow)).await;
    }
    let events = shipped(&world, dataflow).await;
    let finished = Lifecycle::Finished {
        failures: Vec::new(),
        note: String::new(),
    };
    assert_eq!(events.len(), 6, "{events:?}");
    assert_eq!(events[4], finished);
    assert_lines(&world, dataflow);
    world.book.change(|seen| {
        let messages = &seen.lines[&(dataflow, LogSource::Machine)];
        assert_eq!(messages.iter().map(|m| m.text.as_str()).collect::<Vec<_>>(), ["spawning"]);
    });
    world.order(&ForgetRun { dataflow }).await;
    world.order(&ForgetRun { dataflow }).await;
    let (_, engine) = world.book.change(|seen| seen.engine_up()).expect("up");
    daemon.stop().await;
    assert!(!lives(engine), "an idle engine ends with its daemon");
}

#[tokio::test]
async fn the_death_of_the_engine_ends_its_runs_and_leaves_no_orphan() {
    let world = World::new();
    let daemon = world.joined().await;
    let dataflow = world.start("nodes: []").await;
    let nodes = world
        .book
        .until("both nodes", |seen| Some(pids(seen, dataflow)).filter(|pids| pids.len() == 2))
        .await;
    let (engine, pid) = world.book.change(|seen| seen.engine_up()).expect("up");
    kill_hard(pid);
    let events = shipped(&world, dataflow).await;
    let Lifecycle::Finished { failures, note } = &events[events.len() - 2] else {
        panic!("{events:?}");
    };
    assert_eq!(note, "the engine of machine `m` was killed by signal 9");
    assert_eq!(failures.len(), 2);
    assert!(
        failures
            .iter()
            .all(|failure| matches!(&failure.cause, FailureCause::EngineLost { message } if message == note))
    );
    assert!(
        nodes.iter().all(|pid| !lives(*pid)),
        "stubborn nodes are killed before the end is told"
    );
    assert_lines(&world, dataflow);
    world
        .book
        .until("another engine", |seen| seen.engine_up().filter(|(id, _)| *id != engine))
        .await;
    let again = world.start("short").await;
    shipped(&world, again).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_daemon_that_returns_adopts_its_engine_and_loses_no_line() {
    let world = World::new();
    let daemon = world.joined().await;
    let dataflow = world.start("nodes: []").await;
    let nodes = world
        .book
        .until("both nodes", |seen| Some(pids(seen, dataflow)).filter(|pids| pids.len() == 2))
        .await;
    let before = world.book.change(|seen| seen.engine_up()).expect("up");
    daemon.stop().await;
    assert!(
        lives(before.1) && nodes.iter().all(|pid| lives(*pid)),
        "work goes on without the daemon"
    );
    // What the nodes print meanwhile is shipped later.
    for node in ["a", "b"] {
        let log = world.path().join(format!("work/out/{dataflow}/log_{node}.jsonl"));
        let mut lines = std::fs::read_to_string(&log).expect("there");
        lines.push_str("{\"msg\":\"while it was away\"}\n");
        std::fs::write(&log, lines).expect("written");
    }
    let daemon = world.joined().await;
    world.book.change(|seen| {
        let join = seen.join.as_ref().expect("joined");
        assert_eq!(join.runs.len(), 1);
        assert_eq!((join.runs[0].dataflow, join.runs[0].phase), (dataflow, RunPhase::Running));
        assert_eq!(seen.engine_up(), Some(before));
        assert_eq!(pids(seen, dataflow), nodes);
    });
    world.order(&stop(dataflow)).await;
    let events = shipped(&world, dataflow).await;
    assert_eq!(events.len(), 6, "nothing is told twice: {events:?}");
    world.book.change(|seen| {
        let mut expected = expected_lines();
        expected.push("while it was away".to_owned());
        assert_eq!(seen.texts(dataflow, "a"), expected);
        assert_eq!(seen.texts(dataflow, "b"), expected);
    });
    daemon.stop().await;
}

#[tokio::test]
async fn what_happens_while_the_coordinator_is_away_is_told_when_it_returns() {
    let mut world = World::new();
    let daemon = world.joined().await;
    let dataflow = world.start("nodes: []").await;
    let nodes = world
        .book
        .until("both nodes", |seen| Some(pids(seen, dataflow)).filter(|pids| pids.len() == 2))
        .await;
    let (engine, pid) = world.book.change(|seen| seen.engine_up()).expect("up");
    world.stop_coordinator().await;
    kill_hard(pid);
    let joins = world.book.change(|seen| seen.joins);
    world.start_coordinator();
    world
        .book
        .until("the return", |seen| (seen.joins > joins).then_some(()))
        .await;
    let events = shipped(&world, dataflow).await;
    assert!(
        events.iter().any(|event| matches!(event, Lifecycle::Finished { .. })),
        "{events:?}"
    );
    assert!(nodes.iter().all(|pid| !lives(*pid)));
    assert_lines(&world, dataflow);
    world
        .book
        .until("another engine", |seen| seen.engine_up().filter(|(id, _)| *id != engine))
        .await;
    daemon.stop().await;
}

#[tokio::test]
async fn runs_that_the_coordinator_does_not_want_are_ended() {
    let mut world = World::new();
    let daemon = world.joined().await;
    let dataflow = world.start("nodes: []").await;
    let nodes = world
        .book
        .until("both nodes", |seen| Some(pids(seen, dataflow)).filter(|pids| pids.len() == 2))
        .await;
    world.stop_coordinator().await;
    let unknown = DataflowId(Uuid::now_v7());
    world.book.change(|seen| seen.unwanted = vec![dataflow, unknown]);
    world.start_coordinator();
    let finished = |what: &Lifecycle| matches!(what, Lifecycle::Finished { .. });
    world
        .book
        .until("the end", |seen| seen.of(dataflow).iter().any(finished).then_some(()))
        .await;
    assert!(nodes.iter().all(|pid| !lives(*pid)));
    daemon.stop().await;
}
