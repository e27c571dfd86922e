//! Many readers and much to read: what a coordinator and a command hold in memory does not depend on either.
//!
//! The bounds are those that docs/reliability.md states, with a wide margin for what an allocator keeps. How fast it goes is measured by
//! `scripts/bench logs` and `scripts/bench history`.

use dora_remote_tests::{
    cluster::Cluster,
    faults::{Consumer, Flood, History},
    patience, processes, python,
};
use nix::sys::signal::Signal;
use std::time::Duration;

/// Lines of a short flood, and those that the follower has seen when it is stopped.
const FLOOD: u64 = 60_000;
const INTO_THE_FLOOD: u64 = 2_000;
const FOLLOWERS: usize = 20;
/// Lines of a history.
const HISTORY: u64 = 150_000;
/// Longest time for any of it, on a slow machine.
const LONG: Duration = Duration::from_secs(180);

const MIB: u64 = 1 << 20;
/// Most memory of a coordinator for one follower that stands still: 3 MiB are stated.
const MOST_OF_A_FOLLOWER: u64 = 4 * MIB;
/// Most memory of a coordinator for its store: the cache of 32 MiB, and what one transaction takes.
const MOST_OF_THE_STORE: u64 = 64 * MIB;
/// Most memory of a command, its program included, whatever it reads: 40 MiB in a debug build.
const MOST_OF_A_COMMAND: u64 = 96 * MIB;

#[test]
fn of_twenty_followers_one_stands_still_and_nobody_misses_a_line() {
    if python::interpreter().is_none() {
        return;
    }
    let cluster = Cluster::start(&["robot"]);
    let flood = Flood::of_lines(&cluster, "flood", FLOOD);
    let cli = cluster.cli();
    let memory = processes::peak_memory(cluster.coordinator_pid());
    let follow = |_| Consumer::spawn(&cli, &["logs", "flood", "--follow"]);
    let mut followers: Vec<Consumer> = (0..FOLLOWERS).map(follow).collect();
    flood.go();
    let stopped = followers.remove(0);
    stopped.until_line(INTO_THE_FLOOD, LONG);
    processes::signal(stopped.pid(), Signal::SIGSTOP);
    for follower in &followers {
        follower.until_line(FLOOD, LONG);
    }
    assert!(stopped.seen().last < FLOOD, "it was stopped too late to say anything");
    let grew = processes::peak_memory(cluster.coordinator_pid()) - memory;
    processes::signal(stopped.pid(), Signal::SIGCONT);
    stopped.until_line(FLOOD, LONG);
    cli.run(&["stop", "flood"]).exits_with(0);
    followers.push(stopped);
    for follower in &mut followers {
        let status = follower.finish(patience::DEADLINE, |_| {});
        assert!(status.success(), "a follower ended with {status}");
        let seen = follower.seen();
        assert!(seen.is_whole() && seen.lines == FLOOD, "{seen:?}");
    }
    let most = FOLLOWERS as u64 * MOST_OF_A_FOLLOWER + MOST_OF_THE_STORE;
    assert!(grew <= most, "the coordinator took {grew} bytes more");
}

#[test]
fn a_long_history_is_read_in_constant_memory() {
    if python::interpreter().is_none() {
        return;
    }
    let history = History::of(HISTORY);
    let little = history.read(&["--node", "flood", "--tail", "10"]);
    assert_eq!((little.seen.lines, little.seen.last), (10, HISTORY));
    let whole = history.read(&[]);
    assert!(whole.seen.is_whole() && whole.seen.lines == HISTORY, "{:?}", whole.seen);
    assert!(whole.memory <= MOST_OF_A_COMMAND, "{whole:?}");
    assert!(whole.coordinator_grew <= MOST_OF_THE_STORE, "{whole:?}");
    assert!(!whole.lists.is_empty());
    let (began, last) = history.times();
    let newest = history.read(&["--since", &last]);
    assert!(
        newest.seen.is_whole() && newest.seen.last == HISTORY && newest.seen.lines < HISTORY / 2,
        "{newest:?}"
    );
    let before = history.read(&["--node", "flood", "--until", &began, "--tail", "10"]);
    assert!(before.seen.lines < 10, "{before:?}");
}
