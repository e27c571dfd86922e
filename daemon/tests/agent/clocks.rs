//! Machines whose clocks are wrong: in 1970, a year ahead, jumping back.

use crate::{
    log::Log,
    trust::{DAY, SetClock, Trust},
    world::World,
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

fn world_at(clock: &Arc<SetClock>) -> World {
    let mut world = World::new();
    world.clock = clock.clone();
    world
}

#[tokio::test]
async fn a_board_that_boots_in_1970_joins_and_says_that_its_clock_is_behind() {
    let clock = SetClock::at(UNIX_EPOCH);
    let world = world_at(&clock);
    let mut log = Log::new();
    let daemon = world.joined().await;
    log.until(&["WARN", "the clock of this machine is behind that of the coordinator"])
        .await;
    daemon.stop().await;
    // Now it knows of a time that has passed, and its clock has forgotten again.
    clock.set(UNIX_EPOCH);
    let daemon = world.joined().await;
    log.until(&["WARN", "shows a time that has passed"]).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_board_without_a_clock_renews_by_the_time_of_its_coordinator() {
    let clock = SetClock::at(UNIX_EPOCH);
    let mut world = World::trusting(|dir| Trust::with(dir, SystemTime::now(), Duration::from_secs(9)));
    world.clock = clock;
    let mut log = Log::new();
    let daemon = world.joined().await;
    log.until(&["the certificate of this machine is renewed"]).await;
    world.book.change(|seen| assert_eq!(seen.joins, 1));
    daemon.stop().await;
}

#[tokio::test]
async fn a_clock_that_is_a_year_ahead_fails_loudly_and_leaves_no_trace() {
    let clock = SetClock::at(SystemTime::now() + DAY * 366);
    let world = world_at(&clock);
    let mut log = Log::new();
    let daemon = world.daemon_at(world.address());
    log.until(&["ERROR", "the certificate of the server", "ended at"]).await;
    world.book.change(|seen| assert_eq!(seen.joins, 0));
    clock.set(SystemTime::now());
    world.book.until("a join", |seen| (seen.joins > 0).then_some(())).await;
    daemon.stop().await;
    // The next life does not remember the wrong time.
    let daemon = world.joined().await;
    daemon.stop().await;
    assert_eq!(log.count(&["ERROR", "ended at"]), 1, "told once");
    assert_eq!(log.count(&["shows a time that has passed"]), 0);
    assert_eq!(log.count(&["the clock of this machine is"]), 0);
}

#[tokio::test]
async fn a_clock_that_jumps_back_under_a_running_daemon_does_not_strand_it() {
    let clock = SetClock::at(SystemTime::now());
    let mut world = world_at(&clock);
    let mut log = Log::new();
    let daemon = world.joined().await;
    world.stop_coordinator().await;
    clock.set(SystemTime::now() - DAY * 366);
    world.coordinator_returns().await;
    log.until(&["WARN", "the clock of this machine is behind"]).await;
    daemon.stop().await;
}
