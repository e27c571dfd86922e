//! How many streams of a connection are open, and the wait until there was none for a while.

use std::time::Duration;
use tokio::{sync::watch, time::timeout};

/// Counts the open streams of one connection. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct OpenStreams(watch::Sender<usize>);

impl OpenStreams {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Counts one more, until what is returned is dropped.
    pub(crate) fn enter(&self) -> OpenStream {
        self.0.send_modify(|open| *open += 1);
        OpenStream(self.0.clone())
    }

    /// Returns when no stream was open for `quiet` without a break.
    pub(crate) async fn quiet_for(&self, quiet: Duration) {
        let mut open = self.0.subscribe();
        loop {
            // Neither wait can fail: this side holds the sender.
            drop(open.wait_for(|open| *open == 0).await);
            if timeout(quiet, open.changed()).await.is_err() {
                return;
            }
        }
    }
}

/// One open stream.
pub(crate) struct OpenStream(watch::Sender<usize>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{pin::pin, time::Instant};

    const QUIET: Duration = Duration::from_millis(400);

    #[tokio::test]
    async fn only_an_unbroken_quiet_counts() {
        let streams = OpenStreams::new();
        let held = streams.enter();
        assert!(timeout(QUIET * 2, streams.quiet_for(QUIET)).await.is_err(), "one is open");
        drop(held);
        let mut waiting = pin!(streams.quiet_for(QUIET));
        assert!(timeout(QUIET / 2, &mut waiting).await.is_err(), "not long enough");
        // Shorter than any look at the count, and it breaks the quiet all the same.
        drop(streams.enter());
        let began = Instant::now();
        waiting.await;
        assert!(began.elapsed() >= QUIET);
    }
}
