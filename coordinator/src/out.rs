//! Where the items of a feed go: to a peer on the network, or to a user of this host on the admin socket.

use dora_remote_link::{FeedSink, Gone};
use serde::Serialize;
use tokio::sync::mpsc;

/// The filling end of a feed.
#[derive(Debug)]
pub(crate) enum Out<I> {
    /// To a peer.
    Peer(FeedSink<I>),
    /// To a user of this host.
    Local(mpsc::Sender<I>),
}

impl<I: Serialize> Out<I> {
    /// Queues one item; waits while the reader is slow. Cancel safe.
    pub(crate) async fn send(&self, item: I) -> Result<(), Gone> {
        match self {
            Self::Peer(sink) => sink.send(item).await,
            Self::Local(queue) => queue.send(item).await.map_err(|_| Gone),
        }
    }

    /// Waits until nobody reads any more. Cancel safe.
    pub(crate) async fn gone(&self) {
        match self {
            Self::Peer(sink) => sink.gone().await,
            Self::Local(queue) => queue.closed().await,
        }
    }
}
