//! Moves the connection of a session that follows something along when the machine comes to another network.

use super::Shared;
use dora_remote_link::{NetworkChange, NetworkWatch};
use std::{sync::Arc, time::Instant};
use tokio::task::JoinHandle;

/// The task. Dropping it ends it.
pub(super) struct Mover {
    task: JoinHandle<()>,
}

impl Mover {
    /// Starts the task. Must be called within a tokio runtime.
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        Self {
            task: tokio::spawn(follow(shared)),
        }
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(shared: Arc<Shared>) {
    let mut network = NetworkWatch::new();
    loop {
        let remote = shared.current().await.remote_address();
        match network.changed(Some(remote)).await {
            NetworkChange::Moved => {
                // Where the connection does not come along, another one is sought.
                drop(shared.holder().dialer.rebind());
                shared.moved.send_replace(Some(Instant::now()));
            }
            NetworkChange::Other => shared.current().await.nudge(),
        }
    }
}
