//! The files of runs: fetched and unpacked, or already there, and refused when they are not what they should be.

use crate::world::{World, stop};
use dora_remote_protocol::{
    coordinator_to_daemon::{ForgetRun, PrepareRun, SpawnRun},
    dataflow::{BundleRef, Files},
    ids::BundleHash,
    machine::Lifecycle,
    refusal::RefusalCode,
};
use std::{fs, time::Duration};

/// Puts an archive where the machine can fetch it.
fn offer(world: &World, tar: &[u8]) -> BundleRef {
    let archive = zstd::encode_all(tar, 1).expect("compressed");
    let hash = *blake3::hash(&archive).as_bytes();
    let bundle = BundleRef {
        hash: BundleHash(hash),
        bytes: archive.len() as u64,
        unpacked_bytes: 1 << 20,
        entries: 10,
    };
    world.book.change(|seen| seen.bundles.insert(hash, archive));
    bundle
}

fn tar(path: &str, body: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_size(body.len() as u64);
    header.set_mode(0o644);
    let name = &mut header.as_old_mut().name;
    name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
    bytes
}

fn with(prepare: PrepareRun, bundle: BundleRef) -> PrepareRun {
    PrepareRun {
        files: Files::Bundle(bundle),
        ..prepare
    }
}

pub(crate) fn run_dirs(world: &World) -> Vec<String> {
    let entries = fs::read_dir(world.state().join("runs")).expect("there").flatten();
    entries.map(|entry| entry.file_name().into_string().expect("text")).collect()
}

async fn all_gone(world: &World) {
    let looking = async {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while !run_dirs(world).is_empty() {
            look.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looking)
        .await
        .expect("the directory goes");
}

#[tokio::test]
async fn a_bundle_becomes_a_fresh_directory_and_goes_when_the_run_is_forgotten() {
    let world = World::new();
    let daemon = world.joined().await;
    let noise: Vec<u8> = (0..200_000_u32)
        .flat_map(|n| blake3::hash(&n.to_be_bytes()).as_bytes()[..4].to_vec())
        .collect();
    let mut prepare = world.prepare("nodes: []");
    let dataflow = prepare.dataflow;
    prepare = with(prepare, offer(&world, &tar("deep/er/node.py", &noise)));
    world.order(&prepare).await;
    assert_eq!(run_dirs(&world), [dataflow.to_string()]);
    let unpacked = world.state().join(format!("runs/{dataflow}/deep/er/node.py"));
    assert_eq!(fs::read(unpacked).expect("there"), noise);
    world.order(&SpawnRun { dataflow }).await;
    world.order(&stop(dataflow)).await;
    world.order(&ForgetRun { dataflow }).await;
    all_gone(&world).await;
    world
        .book
        .change(|seen| assert_eq!(seen.of(dataflow).last(), Some(&Lifecycle::LogsShipped)));
    daemon.stop().await;
}

#[tokio::test]
async fn a_prepared_run_that_is_forgotten_leaves_nothing() {
    let world = World::new();
    let daemon = world.joined().await;
    let prepare = world.prepare("nodes: []");
    let dataflow = prepare.dataflow;
    world.order(&with(prepare, offer(&world, &tar("x", b"x")))).await;
    world.order(&ForgetRun { dataflow }).await;
    all_gone(&world).await;
    daemon.stop().await;
    let daemon = world.joined().await;
    world
        .book
        .change(|seen| assert_eq!(seen.join.as_ref().expect("joined").runs, []));
    daemon.stop().await;
}

#[tokio::test]
async fn bad_files_are_refused_and_nothing_is_left_behind() {
    let world = World::new();
    let daemon = world.joined().await;
    let escaping = offer(&world, &tar("../evil", b"x"));
    let good = offer(&world, &tar("x", b"x"));
    let longer = BundleRef {
        bytes: good.bytes - 1,
        ..good
    };
    let other = BundleRef {
        bytes: good.bytes,
        hash: escaping.hash,
        ..good
    };
    let absent = BundleRef {
        hash: BundleHash([7; 32]),
        ..good
    };
    for bundle in [escaping, longer, other, absent] {
        let prepare = with(world.prepare("nodes: []"), bundle);
        assert_eq!(world.refused(&prepare).await, RefusalCode::BadBundle);
    }
    let prepare = with(world.prepare("missing"), good);
    assert_eq!(
        world.refused(&prepare).await,
        RefusalCode::NotPrepared,
        "the engine's own refusal"
    );
    for dir in ["relative", "/absent/from/this/machine", "/dev/null"] {
        let prepare = PrepareRun {
            files: Files::OnMachine(dir.to_owned()),
            ..world.prepare("nodes: []")
        };
        assert_eq!(world.refused(&prepare).await, RefusalCode::NotPrepared, "{dir}");
    }
    assert!(run_dirs(&world).is_empty(), "{:?}", run_dirs(&world));
    assert!(!world.state().join("evil").exists());
    world.book.change(|seen| assert!(seen.events.is_empty()));
    daemon.stop().await;
}
