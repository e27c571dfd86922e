//! What a machine remembers of its coordinator, across restarts of both.

use crate::{log::Log, trust::Trust, world::World};
use dora_remote_protocol::{
    coordinator_to_daemon::{KeepHead, KeepRevocations, Ping, ShowHeads},
    refusal::RefusalCode,
};

#[tokio::test]
async fn the_end_of_the_audit_is_kept_shown_and_told_after_a_restart() {
    let world = World::new();
    let daemon = world.joined().await;
    world.order(&Ping {}).await;
    assert!(world.order(&ShowHeads {}).await.is_empty());
    let (first, second) = (world.trust.head(7), world.trust.head(8));
    for head in [&first, &second] {
        world.order(&KeepHead { head: head.clone() }).await;
    }
    daemon.stop().await;
    let daemon = world.joined().await;
    world.book.change(|seen| {
        let join = seen.join.as_ref().expect("joined");
        assert_eq!(join.witnessed.as_ref(), Some(&second));
    });
    let shown = world.order(&ShowHeads {}).await;
    assert_eq!(shown.last(), Some(&second));
    daemon.stop().await;
}

#[tokio::test]
async fn what_no_coordinator_of_ours_has_signed_is_not_kept() {
    let world = World::new();
    let daemon = world.joined().await;
    let strangers = tempfile::tempdir().expect("a directory");
    let stranger = Trust::new(&strangers.path().join("authority"));
    let mut tampered = world.trust.head(7);
    tampered.head.count = 9;
    let mut signed_as_head = world.trust.revocations(&["old"]);
    signed_as_head.signature = world.trust.head(7).signature;
    for head in [stranger.head(7), tampered] {
        assert_eq!(world.refused(&KeepHead { head }).await, RefusalCode::BadRequest);
    }
    for revocations in [stranger.revocations(&["old"]), signed_as_head] {
        assert_eq!(world.refused(&KeepRevocations { revocations }).await, RefusalCode::BadRequest);
    }
    assert!(world.order(&ShowHeads {}).await.is_empty());
    daemon.stop().await;
}

#[tokio::test]
async fn a_shorter_audit_is_an_error_and_replaces_nothing() {
    let world = World::new();
    let mut log = Log::new();
    let daemon = world.joined().await;
    for count in [100, 90, 91] {
        let head = world.trust.head(count);
        world.order(&KeepHead { head }).await;
    }
    log.until(&["ERROR", "entries were removed or changed"]).await;
    let shown = world.order(&ShowHeads {}).await;
    let counts: Vec<_> = shown.iter().map(|head| head.head.count).collect();
    assert_eq!((counts.first(), counts.last()), (Some(&100), Some(&91)));
    assert_eq!(log.count(&["entries were removed or changed"]), 1);
    daemon.stop().await;
}

#[tokio::test]
async fn revocations_come_back_to_a_coordinator_whose_store_is_another_one() {
    let mut world = World::new();
    let mut log = Log::new();
    let daemon = world.joined().await;
    let revocations = world.trust.revocations(&["old", "older"]);
    let keep = KeepRevocations {
        revocations: revocations.clone(),
    };
    world.order(&keep).await;
    let told = |world: &World| {
        world
            .book
            .change(|seen| seen.join.as_ref().and_then(|join| join.revocations.clone()))
    };
    for (restored, expected) in [(false, None), (true, Some(revocations))] {
        world.stop_coordinator().await;
        if restored {
            world.trust.next_epoch();
        }
        world.coordinator_returns().await;
        assert_eq!(told(&world), expected, "restored: {restored}");
    }
    log.until(&["WARN", "the coordinator's store is another one"]).await;
    // A list that lacks something does not replace the one that has it, also in the same life of the store; a longer one does.
    let two = world.trust.revocations(&["old", "older"]);
    let three = world.trust.revocations(&["old", "older", "oldest"]);
    world
        .order(&KeepRevocations {
            revocations: two.clone(),
        })
        .await;
    let one = world.trust.revocations(&["old"]);
    assert_eq!(
        world.refused(&KeepRevocations { revocations: one }).await,
        RefusalCode::WrongState
    );
    log.until(&["ERROR", "the coordinator has forgotten revocations"]).await;
    daemon.stop().await;
    let daemon = world.joined().await;
    assert_eq!(told(&world).map(|told| told.revocations), Some(two.revocations));
    world.order(&KeepRevocations { revocations: three }).await;
    daemon.stop().await;
    let daemon = world.joined().await;
    assert_eq!(told(&world), None, "they are of this life of the store");
    daemon.stop().await;
}
