//! A state directory that was copied is not the original.

use crate::{
    log::Log,
    world::{World, lives},
};
use dora_remote_protocol::machine::Lifecycle;
use std::{fs, path::Path};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("read") {
        let entry = entry.expect("an entry");
        let (kind, target) = (entry.file_type().expect("known"), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[tokio::test]
async fn a_copied_state_directory_is_another_instance_and_tells_nothing_twice() {
    let mut world = World::new();
    let mut log = Log::new();
    let daemon = world.joined().await;
    let dataflow = world.start("nodes: []").await;
    let pids = world
        .book
        .until("both nodes", |seen| {
            let pid = |what: Lifecycle| match what {
                Lifecycle::NodeStarted { pid, .. } => Some(pid),
                _ => None,
            };
            let pids: Vec<_> = seen.of(dataflow).into_iter().filter_map(pid).collect();
            (pids.len() == 2).then_some(pids)
        })
        .await;
    daemon.stop().await;
    let copied = world.path().join("copied");
    copy(&world.state(), &copied);

    // The copy counts its events anew: the coordinator, whose account begins afresh too, would see a hole or an old run otherwise.
    world.stop_coordinator().await;
    let events = world.book.change(|seen| std::mem::take(&mut seen.events));
    world.start_coordinator();
    let copy = world.daemon_in(copied, world.address());
    world.book.until("the copy", |seen| (seen.joins == 2).then_some(())).await;
    log.until(&["WARN", "this state directory is a copy"]).await;
    world.book.change(|seen| {
        let join = seen.join.as_ref().expect("joined");
        assert_eq!((join.last_seq, join.runs.len()), (0, 0));
        assert_ne!(seen.joined_as[0].0, seen.joined_as[1].0, "another instance");
    });
    copy.stop().await;
    assert!(pids.iter().all(|pid| lives(*pid)), "the nodes of the original are left alone");

    world.book.change(|seen| {
        assert!(seen.events.is_empty());
        seen.events = events;
    });
    let daemon = world.joined().await;
    world.book.change(|seen| {
        assert_eq!(seen.joined_as[0].0, seen.joined_as[2].0, "the original is who it was");
        let runs = &seen.join.as_ref().expect("joined").runs;
        assert!(runs.iter().any(|run| run.dataflow == dataflow));
    });
    assert_eq!(log.count(&["this state directory is a copy"]), 1);
    daemon.stop().await;
}
