//! The machine's own policy, over the wire: what it forbids is refused before anything exists, and what it allows runs.

use crate::{fake_engine, files::run_dirs, world::World};
use dora_remote_daemon::Policy;
use dora_remote_link::CallError;
use dora_remote_protocol::{
    coordinator_to_daemon::{PrepareRun, SpawnRun},
    dataflow::{BundleRef, Files},
    engine_to_agent::{NodeFacts, RunFacts, Starts},
    ids::BundleHash,
    refusal::{Changed, Refusal, RefusalCode},
};
use std::{fs, os::unix::fs::PermissionsExt};

fn with_policy(text: &str) -> World {
    let mut world = World::new();
    let path = world.path().join("policy.toml");
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    world.policy = Some(Policy::load(&path).expect("a policy"));
    world
}

/// A descriptor by which the engine would start these programs as `a`, `b` and so on.
fn starting(world: &World, programs: &[&str]) -> String {
    let dir = world.path().join("work");
    fs::create_dir_all(&dir).expect("made");
    let dir = dir.canonicalize().expect("there");
    let node = |(name, file): (&str, &&str)| NodeFacts {
        node: name.parse().expect("good"),
        starts: Starts::Program {
            file: (*file).to_owned(),
            shell: None,
        },
        dir: dir.to_str().expect("text").to_owned(),
        build: false,
        git: false,
        environment: Vec::new(),
    };
    let facts = RunFacts {
        environment: Vec::new(),
        uv: false,
        nodes: ["a", "b"].into_iter().zip(programs).map(node).collect(),
    };
    serde_json::to_string(&facts).expect("text")
}

async fn refusal(world: &World, prepare: &PrepareRun) -> Refusal {
    match world.ask(prepare).await {
        Err(CallError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

const RUN: &str = "[run]\nexecutables = ['/usr/lib']\ndirectories = ['/']\n";

#[tokio::test]
async fn what_is_forbidden_is_refused_by_the_machine_and_leaves_nothing() {
    let world = with_policy(RUN);
    let daemon = world.joined().await;
    let prepare = world.prepare(&starting(&world, &["/usr/lib/a", "/usr/bin/foo"]));
    let refused = refusal(&world, &prepare).await;
    assert_eq!(
        (refused.code, refused.changed),
        (RefusalCode::ForbiddenByMachine, Changed::Nothing)
    );
    assert_eq!(
        refused.message,
        "machine `m` forbids node `b`: its executable /usr/bin/foo is not under an allowed root"
    );
    assert!(refused.hint.contains("`run.executables`"), "{refused:?}");
    let dataflow = prepare.dataflow;
    assert_eq!(world.refused(&SpawnRun { dataflow }).await, RefusalCode::NotFound);
    assert!(run_dirs(&world).is_empty());
    world.book.change(|seen| assert!(seen.events.is_empty(), "{:?}", seen.events));

    world.start(&starting(&world, &["/usr/lib/a", "/usr/lib/b"])).await;
    daemon.stop().await;
}

#[tokio::test]
async fn whoever_may_not_start_is_refused_before_anything_is_fetched() {
    let world = with_policy(&format!("[start]\nroles = ['admin']\n{RUN}"));
    let daemon = world.joined().await;
    let descriptor = starting(&world, &["/usr/lib/a", "/usr/lib/b"]);
    for by in ["spiffe://lab/operator/olga", "", "local uid 0"] {
        let prepare = PrepareRun {
            by: by.to_owned(),
            // Fetching it would fail otherwise.
            files: Files::Bundle(BundleRef {
                hash: BundleHash([7; 32]),
                bytes: 10,
                unpacked_bytes: 10,
                entries: 1,
            }),
            ..world.prepare(&descriptor)
        };
        assert_eq!(world.refused(&prepare).await, RefusalCode::ForbiddenByMachine, "{by:?}");
    }
    let prepare = PrepareRun {
        by: "spiffe://lab/admin/ann".to_owned(),
        ..world.prepare(&descriptor)
    };
    world.order(&prepare).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_node_that_the_engine_does_not_speak_of_is_not_let_through() {
    let world = with_policy(RUN);
    let daemon = world.joined().await;
    let prepare = world.prepare(&starting(&world, &["/usr/lib/a"]));
    let refused = refusal(&world, &prepare).await;
    assert_eq!(refused.code, RefusalCode::Internal);
    assert!(refused.message.contains("what every node would start"), "{refused}");
    daemon.stop().await;
}

#[tokio::test]
async fn an_engine_that_cannot_tell_gets_nothing_to_start() {
    let mut world = with_policy(RUN);
    world.env = vec![(fake_engine::VERSION.to_owned(), "1".to_owned())];
    let daemon = world.joined().await;
    let descriptor = starting(&world, &["/usr/lib/a", "/usr/lib/b"]);
    let refused = refusal(&world, &world.prepare(&descriptor)).await;
    assert_eq!(refused.code, RefusalCode::VersionMismatch);
    assert!(refused.hint.contains("present build"), "{refused:?}");
    daemon.stop().await;
    // Without a policy it need not tell.
    world.policy = None;
    let daemon = world.joined().await;
    world.start(&descriptor).await;
    daemon.stop().await;
}
