//! A link that swallows everything without a word, as radio does.

use crate::{
    relay::Relay,
    world::{World, stop},
};
use dora_remote_protocol::machine::Lifecycle;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_machine_finds_its_way_back_as_soon_as_the_link_does() {
    let world = World::new();
    let mut relay = Relay::to(world.address()).await;
    let daemon = world.joined_at(relay.address).await;
    let dataflow = world.start("nodes: []").await;
    let engine = world.book.change(|seen| seen.engine_up());
    relay.cut(true);
    // Silence was noticed, and several further connections are on their way.
    relay.swallowed(4).await;
    world.book.change(|seen| seen.engine = None);
    relay.cut(false);
    let healed = Instant::now();
    // A join or a heartbeat, whichever comes first.
    world.book.until("a word of the machine", |seen| seen.engine_up()).await;
    assert!(healed.elapsed() < Duration::from_secs(10), "it took {:?}", healed.elapsed());
    world.book.change(|seen| assert_eq!(seen.engine_up(), engine));
    let finished = |what: &Lifecycle| matches!(what, Lifecycle::Finished { .. });
    // The connection that was found first may be followed by another one that took over.
    let ordered = async {
        while world.ask(&stop(dataflow)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ordered)
        .await
        .expect("a stop gets through");
    world
        .book
        .until("the end", |seen| seen.of(dataflow).iter().any(finished).then_some(()))
        .await;
    daemon.stop().await;
}
