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

fn nodes(seen: &Seen, dataflow: DataflowId) -> Option<Vec<u32>> {
    let pid = |what| match what {
        Lifecycle::NodeStarted { pid, .. } => Some(pid),
        _ => None,
    };
    let pids: Vec<u32> = seen.of(dataflow).into_iter().filter_map(pid).collect();
    (pids.len() == 2).then_some(pids)
}

/// A run, its nodes and its engine, and a daemon of another program beside them.
struct Upgraded {
    world: World,
    daemon: Daemon,
    dataflow: DataflowId,
    nodes: Vec<u32>,
    before: (Uuid, u32),
}

async fn upgraded() -> Upgraded {
    let world = World::new();
    let daemon = world.joined().await;
    let dataflow = world.start("nodes: []").await;
    let nodes = world.book.until("both nodes", |seen| nodes(seen, dataflow)).await;
    let before = world.book.change(|seen| seen.engine_up()).expect("up");
    daemon.stop().await;
    // Another file comes to its place, as with an upgrade.
    std::fs::rename(world.path().join("engine.sh"), world.path().join("former.sh")).expect("there");
    let daemon = world.joined().await;
    Upgraded {
        world,
        daemon,
        dataflow,
        nodes,
        before,
    }
}

#[tokio::test]
async fn an_older_engine_drains_and_a_new_one_takes_new_runs() {
    let Upgraded {
        world,
        daemon,
        dataflow,
        nodes: of_old,
        before,
    } = upgraded().await;
    let after = world.book.change(|seen| seen.engine_up()).expect("up");
    assert!(before.0 != after.0 && before.1 != after.1, "another engine takes new runs");
    assert_eq!(world.book.change(|seen| older(seen)), Some(1));
    assert!(
        lives(before.1) && of_old.iter().all(|pid| lives(*pid)),
        "the older one goes on"
    );
    let newcomer = world.start("nodes: []").await;
    let of_new = world.book.until("both nodes", |seen| nodes(seen, newcomer)).await;

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

    world.order(&stop(dataflow)).await;
    let end = world.book.until("the end", |seen| has_ended(seen, dataflow)).await;
    assert!(
        matches!(&end, Lifecycle::Finished { failures, .. } if failures.is_empty()),
        "{end:?}"
    );
    world
        .book
        .until("the end of the older engine", |seen| (older(seen) == Some(0)).then_some(()))
        .await;
    assert!(!lives(before.1), "it has ended by itself");
    assert!(lives(after.1) && of_new.iter().all(|pid| lives(*pid)));
    assert!(world.book.change(|seen| has_ended(seen, newcomer)).is_none());
    world.order(&stop(newcomer)).await;
    world.book.until("the end", |seen| has_ended(seen, newcomer)).await;
    daemon.stop().await;
}

#[tokio::test]
async fn the_death_of_an_older_engine_ends_its_runs_alone() {
    let Upgraded {
        world,
        daemon,
        dataflow,
        nodes: of_old,
        before,
    } = upgraded().await;
    let newcomer = world.start("nodes: []").await;
    let of_new = world.book.until("both nodes", |seen| nodes(seen, newcomer)).await;
    let after = world.book.change(|seen| seen.engine_up()).expect("up");
    kill_hard(before.1);
    let end = world.book.until("the end", |seen| has_ended(seen, dataflow)).await;
    assert!(
        matches!(&end, Lifecycle::Finished { failures, .. } if failures.len() == 2),
        "{end:?}"
    );
    assert!(of_old.iter().all(|pid| !lives(*pid)), "no orphan is left");
    world
        .book
        .until("one engine alone", |seen| (older(seen) == Some(0)).then_some(()))
        .await;
    assert_eq!(world.book.change(|seen| seen.engine_up()), Some(after));
    assert!(of_new.iter().all(|pid| lives(*pid)) && world.book.change(|seen| has_ended(seen, newcomer)).is_none());
    world.order(&stop(newcomer)).await;
    world.book.until("the end", |seen| has_ended(seen, newcomer)).await;
    daemon.stop().await;
}

#[tokio::test]
async fn an_older_engine_that_died_while_the_daemon_was_away_is_cleaned_up_after() {
    let Upgraded {
        world,
        daemon,
        dataflow,
        nodes: of_old,
        before,
    } = upgraded().await;
    let after = world.book.change(|seen| seen.engine_up()).expect("up");
    // A run of the new engine keeps it alive while the daemon is away.
    let newcomer = world.start("nodes: []").await;
    world.book.until("both nodes", |seen| nodes(seen, newcomer)).await;
    daemon.stop().await;
    kill_hard(before.1);
    let daemon = world.joined().await;
    let end = world.book.until("the end", |seen| has_ended(seen, dataflow)).await;
    assert!(
        matches!(&end, Lifecycle::Finished { failures, .. } if failures.len() == 2),
        "{end:?}"
    );
    world
        .book
        .until("no node of it", |_| of_old.iter().all(|pid| !lives(*pid)).then_some(()))
        .await;
    assert_eq!(world.book.change(|seen| seen.engine_up()), Some(after));
    world.order(&stop(newcomer)).await;
    world.book.until("the end", |seen| has_ended(seen, newcomer)).await;
    daemon.stop().await;
}

#[tokio::test]
async fn an_older_engine_that_cannot_be_talked_with_is_left_alone_shown_and_tried_again() {
    let world = World::new();
    let daemon = world.joined().await;
    let dataflow = world.start("nodes: []").await;
    let of_old = world.book.until("both nodes", |seen| nodes(seen, dataflow)).await;
    let before = world.book.change(|seen| seen.engine_up()).expect("up");
    daemon.stop().await;
    let refuse = world.state().join("engine").join(fake_engine::REFUSE);
    std::fs::write(&refuse, "").expect("written");
    std::fs::rename(world.path().join("engine.sh"), world.path().join("former.sh")).expect("there");

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
        assert_eq!((engine.pid, engine.runs), (before.1, 1));
        assert!(engine.trouble.expect("some").contains("no common version"));
        if newcomer.is_none() {
            newcomer = Some(world.start("nodes: []").await);
        }
    }
    let newcomer = newcomer.expect("started");
    world.book.until("both nodes", |seen| nodes(seen, newcomer)).await;
    assert!(lives(before.1) && of_old.iter().all(|pid| lives(*pid)));
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
    world.order(&stop(dataflow)).await;
    world.book.until("the end", |seen| has_ended(seen, dataflow)).await;
    world
        .book
        .until("the end of the older engine", |seen| (older(seen) == Some(0)).then_some(()))
        .await;
    assert!(!lives(before.1));
    world.order(&stop(newcomer)).await;
    world.book.until("the end", |seen| has_ended(seen, newcomer)).await;
    daemon.expect("running").stop().await;
}
