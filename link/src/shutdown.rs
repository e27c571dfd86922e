//! Tasks that end together: one token that asks them to, one tracker that waits for them, one second token that stops them.
//!
//! The order in which a side ends lies with its owner (`accept.rs`, `dial.rs`); this file only knows tasks.

use crate::error::LinkError;
use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A group of tasks. Clones are handles to the same group.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    asked: CancellationToken,
    stopped: CancellationToken,
    panicked: Arc<OnceLock<&'static str>>,
}

impl Tasks {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty group that is asked to end when `token` is cancelled.
    #[must_use]
    pub fn under(token: &CancellationToken) -> Self {
        Self {
            asked: token.child_token(),
            ..Self::default()
        }
    }

    /// The token that asks the tasks to end. Cancelling it does not wait for anything.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.asked
    }

    /// Starts a task. It is dropped at its next await when the grace of [`Tasks::end`] is over.
    ///
    /// A panic in it asks the whole group to end and is reported by [`Tasks::check`]: it is never swallowed.
    /// Must be called within a tokio runtime.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stopped = self.stopped.clone();
        let witness = Witness {
            name,
            asked: self.asked.clone(),
            panicked: Arc::clone(&self.panicked),
        };
        self.tracker.spawn(async move {
            let _witness = witness;
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Asks all tasks to end, waits for them for `grace`, then drops those that are left. True if none had to be dropped.
    ///
    /// Safe to call twice, also at the same time: every caller waits for the same end.
    pub async fn end(&self, grace: Duration) -> bool {
        self.asked.cancel();
        self.tracker.close();
        if tokio::time::timeout(grace, self.tracker.wait()).await.is_ok() {
            return true;
        }
        self.stopped.cancel();
        self.tracker.wait().await;
        false
    }

    /// Number of tasks that have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Says whether a task has panicked.
    ///
    /// # Errors
    /// [`LinkError::TaskPanicked`] with the name of the first one.
    pub fn check(&self) -> Result<(), LinkError> {
        match self.panicked.get() {
            Some(task) => Err(LinkError::TaskPanicked { task }),
            None => Ok(()),
        }
    }
}

/// Lies within a task and notices when it is dropped by a panic.
struct Witness {
    name: &'static str,
    asked: CancellationToken,
    panicked: Arc<OnceLock<&'static str>>,
}

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.name, "a task has panicked");
            // Only the first panic is kept: the others may be its consequence.
            let _ = self.panicked.set(self.name);
            self.asked.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn tasks_are_asked_and_ending_twice_is_safe() {
        let tasks = Tasks::new();
        let token = tasks.token().clone();
        tasks.spawn("patient", async move { token.cancelled().await });
        let (first, second) = tokio::join!(tasks.end(GRACE), tasks.end(GRACE));
        assert!(first && second && tasks.end(GRACE).await);
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test]
    async fn a_task_that_does_not_listen_is_dropped_after_the_grace() {
        let tasks = Tasks::new();
        tasks.spawn("deaf", std::future::pending());
        assert!(!tasks.end(Duration::from_millis(1)).await);
    }

    #[tokio::test]
    async fn a_panic_ends_the_group_and_is_reported() {
        let tasks = Tasks::new();
        tasks.spawn("broken", async { panic!("on purpose") });
        tasks.token().cancelled().await;
        assert!(tasks.end(GRACE).await);
        assert!(matches!(tasks.check(), Err(LinkError::TaskPanicked { task: "broken" })));
    }
}
