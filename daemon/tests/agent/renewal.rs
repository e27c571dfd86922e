//! Certificates that end: renewed in time, proven before use, and recovered when they have ended.

use crate::{
    log::Log,
    trust::{DAY, Trust},
    world::{World, lives},
};
use dora_remote_certs::Credentials;
use dora_remote_protocol::{
    machine::Lifecycle,
    refusal::{Refusal, RefusalCode},
};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    time::{Duration, SystemTime},
};

const SHORT: Duration = Duration::from_secs(9);

fn short_lived(life: Duration) -> World {
    World::trusting(|dir| Trust::with(dir, SystemTime::now(), life))
}

/// A machine that was away for longer than its certificate lived, at a coordinator that lets it recover.
fn lapsed() -> World {
    let world = World::trusting(|dir| Trust::with(dir, SystemTime::now() - DAY * 300, DAY * 7));
    world.trust.set_renewed_life(DAY * 7);
    world.trust.gate.change(|snapshot| snapshot.set_renew_window(DAY * 365));
    world
}

fn on_disk(world: &World) -> String {
    let credentials = Credentials::load(&world.identity()).expect("whole");
    credentials.certificate().serial.clone()
}

fn granted(world: &World) -> Vec<String> {
    world.book.change(|seen| seen.renewals.iter().flatten().cloned().collect())
}

fn refusal(code: RefusalCode, text: &str) -> Option<Refusal> {
    Some(Refusal::new(code, text))
}

#[tokio::test]
async fn a_run_goes_on_over_several_generations_of_certificates_on_one_connection() {
    let world = short_lived(SHORT);
    let mut log = Log::new();
    let daemon = world.joined().await;
    let dataflow = world.start("nodes: []").await;
    log.times(3, &["the certificate of this machine is renewed"]).await;
    let serials = granted(&world);
    assert_eq!(serials.len(), 3, "one for each generation");
    assert_eq!(on_disk(&world), serials[2]);
    world.book.change(|seen| {
        assert_eq!(seen.joins, 1, "the connection was never cut");
        let pids = seen.of(dataflow).into_iter().filter_map(|what| match what {
            Lifecycle::NodeStarted { pid, .. } => Some(pid),
            _ => None,
        });
        assert_eq!(pids.filter(|pid| lives(*pid)).count(), 2);
    });
    daemon.stop().await;
    // What was saved is what the next life begins with.
    let daemon = world.joined().await;
    world.book.change(|seen| {
        let (_, serial) = seen.joined_as.last().expect("joined");
        assert!(serials.contains(serial) || seen.renewals.iter().flatten().any(|known| known == serial));
        assert_ne!(*serial, world.trust.machine.certificate().serial);
    });
    daemon.stop().await;
}

#[tokio::test]
async fn credentials_that_the_coordinator_does_not_welcome_never_replace_the_good_ones() {
    let world = short_lived(Duration::from_secs(20));
    let mut log = Log::new();
    world.trust.gate.spoil_next();
    let daemon = world.joined().await;
    log.until(&["is not renewed", "does not let this machine in", "revoked"])
        .await;
    assert_eq!(granted(&world).len(), 1);
    assert_eq!(on_disk(&world), world.trust.machine.certificate().serial, "the old ones stay");
    log.until(&["the certificate of this machine is renewed"]).await;
    assert_eq!(on_disk(&world), granted(&world)[1]);
    world.book.change(|seen| assert_eq!(seen.joins, 1));
    daemon.stop().await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_told_before_anything_is_issued() {
    let world = short_lived(Duration::from_secs(15));
    let mut log = Log::new();
    let daemon = world.joined().await;
    // Not even root can make a file where a directory has the name.
    fs::create_dir_all(world.identity().join(".writable.tmp/in-the-way")).expect("made");
    fs::set_permissions(world.identity(), Permissions::from_mode(0o700)).expect("set");
    log.until(&["is not renewed", "could not be saved"]).await;
    assert!(granted(&world).is_empty(), "nothing was asked for");
    fs::remove_dir_all(world.identity().join(".writable.tmp")).expect("removed");
    log.until(&["the certificate of this machine is renewed"]).await;
    assert_eq!(on_disk(&world), granted(&world)[0]);
    daemon.stop().await;
}

#[tokio::test]
async fn other_credentials_that_were_put_in_place_are_taken_and_not_overwritten() {
    let world = short_lived(SHORT);
    let mut log = Log::new();
    let daemon = world.joined().await;
    let other = world.trust.issue_again();
    other.save(&world.identity(), true).expect("saved");
    log.until(&["other credentials were put in place"]).await;
    assert_eq!(on_disk(&world), other.certificate().serial);
    assert!(granted(&world).is_empty());
    daemon.stop().await;
}

#[tokio::test]
async fn a_machine_whose_certificate_has_ended_long_ago_renews_and_joins() {
    let world = lapsed();
    let daemon = world.joined().await;
    let serials = granted(&world);
    assert_eq!(serials.len(), 1);
    world.book.change(|seen| {
        assert_eq!(seen.joined_as.len(), 1);
        assert_eq!(seen.joined_as[0].1, serials[0], "it joined with the new one");
    });
    assert_eq!(on_disk(&world), serials[0]);
    daemon.stop().await;
}

#[tokio::test]
async fn a_recovery_that_is_refused_is_told_once_and_tried_again() {
    let world = lapsed();
    let mut log = Log::new();
    world
        .book
        .change(|seen| seen.refuse_renewals = refusal(RefusalCode::LimitReached, "not before noon"));
    let daemon = world.daemon_at(world.address());
    log.until(&["ERROR", "not before noon"]).await;
    world
        .book
        .until("another try", |seen| (seen.renewals.len() >= 2).then_some(()))
        .await;
    assert_eq!(log.count(&["not before noon"]), 1, "told once");
    world.book.change(|seen| seen.refuse_renewals = None);
    world.book.until("a join", |seen| (seen.joins > 0).then_some(())).await;
    assert_eq!(granted(&world).len(), 1);
    daemon.stop().await;
}

#[tokio::test]
async fn a_machine_in_quarantine_keeps_asking_and_says_so_once() {
    let world = World::new();
    let mut log = Log::new();
    world
        .book
        .change(|seen| seen.refuse_joins = refusal(RefusalCode::Quarantined, "another machine answers"));
    let daemon = world.daemon_at(world.address());
    log.until(&["ERROR", "another machine answers"]).await;
    world.book.change(|seen| seen.refuse_joins = None);
    world.book.until("a join", |seen| (seen.joins > 0).then_some(())).await;
    assert_eq!(log.count(&["another machine answers"]), 1);
    daemon.stop().await;
}
