//! A daemon of another program: the older engine keeps its runs and ends with them, new runs go to a new one.

use crate::{
    fake_coordinator::Seen,
    fake_engine,
    world::{Daemon, World, kill_hard, lives, stop},
};
use dora_remote_protocol::{
    ids::DataflowId,
    machine::{EngineStatus, Lifecycle, OlderEngine},
};
use uuid::Uuid;

fn older_engines(seen: &Seen) -> Option<&[OlderEngine]> {
    match &seen.engine {
        Some(EngineStatus::Up { older, .. }) => Some(older),
        _ => None,
    }
}

fn older(seen: &Seen) -> Option<usize> {
    older_engines(seen).map(<[OlderEngine]>::len)
}

fn has_ended(seen: &Seen, dataflow: DataflowId) -> Option<Lifecycle> {
    let is_end = |what: &Lifecycle| matches!(what, Lifecycle::Finished { .. });
    seen.of(dataflow).into_iter().find(is_end)
}

/// What a daemon has left on its machine, before one of another program comes.
struct Former {
    world: World,
    dataflow: DataflowId,
    nodes: Vec<u32>,
    engine: (Uuid, u32),
}

/// Starts a run, ends the daemon, and puts another program in its place.
async fn left_behind() -> Former {
    let world = World::new();
    let daemon = world.joined().await;
    let dataflow = world.start("nodes: []").await;
    let nodes = world.both_pids(dataflow).await;
    let engine = world.book.change(|seen| seen.engine_up()).expect("up");
    daemon.stop().await;
    // Another file comes to its place, as with an upgrade.
    std::fs::rename(world.path().join("engine.sh"), world.path().join("former.sh")).expect("there");
    Former {
        world,
        dataflow,
        nodes,
        engine,
    }
}

/// Waits for the end of a run.
async fn end_of(world: &World, dataflow: DataflowId) -> Lifecycle {
    world.book.until("the end", |seen| has_ended(seen, dataflow)).await
}

/// Stops a run and waits for its end.
async fn stopped(world: &World, dataflow: DataflowId) -> Lifecycle {
    world.order(&stop(dataflow)).await;
    end_of(world, dataflow).await
}

/// Waits until no older engine is left.
async fn until_alone(world: &World) {
    let alone = |seen: &Seen| (older(seen) == Some(0)).then_some(());
    world.book.until("the end of the older engine", alone).await;
}

#[tokio::test]
async fn an_older_engine_drains_and_a_new_one_takes_new_runs() {
    let former = left_behind().await;
    let (world, dataflow) = (&former.world, former.dataflow);
    let daemon = world.joined().await;
    let after = world.book.change(|seen| seen.engine_up()).expect("up");
    assert!(
        former.engine.0 != after.0 && former.engine.1 != after.1,
        "another engine takes new runs"
    );
    assert_eq!(world.book.change(|seen| older(seen)), Some(1));
    assert!(
        lives(former.engine.1) && former.nodes.iter().all(|pid| lives(*pid)),
        "the older one goes on"
    );
    let newcomer = world.start("nodes: []").await;
    let of_new = world.both_pids(newcomer).await;

    // The picture survives the daemon.
    daemon.stop().await;
    let daemon = world.joined().await;
    assert_eq!(
        world.book.change(|seen| (seen.engine_up(), older(seen))),
        (Some(after), Some(1))
    );
    world.book.change(|seen| {
        let join = seen.join.as_ref().expect("joined");
        let mut runs: Vec<_> = join.runs.iter().map(|run| run.dataflow).collect();
        runs.sort_unstable();
        assert_eq!(runs, [dataflow, newcomer]);
    });

    let end = stopped(world, dataflow).await;
    assert!(
        matches!(&end, Lifecycle::Finished { failures, .. } if failures.is_empty()),
        "{end:?}"
    );
    until_alone(world).await;
    assert!(!lives(former.engine.1), "it has ended by itself");
    assert!(lives(after.1) && of_new.iter().all(|pid| lives(*pid)));
    assert!(world.book.change(|seen| has_ended(seen, newcomer)).is_none());
    stopped(world, newcomer).await;
    daemon.stop().await;
}

#[tokio::test]
async fn the_death_of_an_older_engine_ends_its_runs_alone() {
    let former = left_behind().await;
    let (world, dataflow) = (&former.world, former.dataflow);
    let daemon = world.joined().await;
    let newcomer = world.start("nodes: []").await;
    let of_new = world.both_pids(newcomer).await;
    let after = world.book.change(|seen| seen.engine_up()).expect("up");
    kill_hard(former.engine.1);
    let end = end_of(world, dataflow).await;
    assert!(
        matches!(&end, Lifecycle::Finished { failures, .. } if failures.len() == 2),
        "{end:?}"
    );
    assert!(former.nodes.iter().all(|pid| !lives(*pid)), "no orphan is left");
    until_alone(world).await;
    assert_eq!(world.book.change(|seen| seen.engine_up()), Some(after));
    assert!(of_new.iter().all(|pid| lives(*pid)) && world.book.change(|seen| has_ended(seen, newcomer)).is_none());
    stopped(world, newcomer).await;
    daemon.stop().await;
}

#[tokio::test]
async fn an_older_engine_that_died_while_the_daemon_was_away_is_cleaned_up_after() {
    let former = left_behind().await;
    let (world, dataflow) = (&former.world, former.dataflow);
    let daemon = world.joined().await;
    let after = world.book.change(|seen| seen.engine_up()).expect("up");
    // A run of the new engine keeps it alive while the daemon is away.
    let newcomer = world.start("nodes: []").await;
    world.both_pids(newcomer).await;
    daemon.stop().await;
    kill_hard(former.engine.1);
    let daemon = world.joined().await;
    let end = end_of(world, dataflow).await;
    assert!(
        matches!(&end, Lifecycle::Finished { failures, .. } if failures.len() == 2),
        "{end:?}"
    );
    world
        .book
        .until("no node of it", |_| former.nodes.iter().all(|pid| !lives(*pid)).then_some(()))
        .await;
    assert_eq!(world.book.change(|seen| seen.engine_up()), Some(after));
    stopped(world, newcomer).await;
    daemon.stop().await;
}

#[tokio::test]
async fn an_older_engine_that_cannot_be_talked_with_is_left_alone_shown_and_tried_again() {
    let former = left_behind().await;
    let (world, dataflow) = (&former.world, former.dataflow);
    let refuse = world.state().join("engine").join(fake_engine::REFUSE);
    std::fs::write(&refuse, "").expect("written");

    // Agents come and go, and the picture stays.
    let mut daemon = None;
    let mut newcomer = None;
    for _ in 0..3 {
        if let Some(daemon) = daemon.take() {
            Daemon::stop(daemon).await;
        }
        daemon = Some(world.joined().await);
        let seen = |seen: &Seen| {
            older_engines(seen)?
                .first()
                .filter(|engine| engine.trouble.is_some())
                .cloned()
        };
        let engine = world.book.until("what is wrong with it", seen).await;
        assert_eq!((engine.pid, engine.runs), (former.engine.1, 1));
        assert!(engine.trouble.expect("some").contains("no common version"));
        if newcomer.is_none() {
            newcomer = Some(world.start("nodes: []").await);
        }
    }
    let newcomer = newcomer.expect("started");
    world.both_pids(newcomer).await;
    assert!(lives(former.engine.1) && former.nodes.iter().all(|pid| lives(*pid)));
    assert!(world.book.change(|seen| has_ended(seen, dataflow)).is_none());

    std::fs::remove_file(&refuse).expect("there");
    let well = |seen: &Seen| {
        older_engines(seen)?
            .first()
            .filter(|engine| engine.trouble.is_none())
            .cloned()
    };
    let engine = world.book.until("a good talk with it", well).await;
    assert_eq!(engine.dora_version.as_deref(), Some("0.0.0-fake"));
    stopped(world, dataflow).await;
    until_alone(world).await;
    assert!(!lives(former.engine.1));
    stopped(world, newcomer).await;
    daemon.expect("running").stop().await;
}
