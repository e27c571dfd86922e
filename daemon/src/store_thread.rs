//! The thread that owns the store, and the handle through which everyone else asks for it.
//!
//! Disk writes wait for the disk; the network's thread must not. Jobs run in the order in which they were sent.

use crate::store::{Store, StoreError};
use std::{io, thread, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};
use tracing::debug;

/// Jobs that may wait; when it is full, askers wait.
const QUEUE: usize = 64;

/// Pause before something is stored again for which there was no room.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

type Job = Box<dyn FnOnce(&Store) + Send>;

/// A handle of the store. Cheap to clone; the store closes when the last one is gone.
#[derive(Clone)]
pub(crate) struct StoreHandle {
    jobs: mpsc::Sender<Job>,
}

impl StoreHandle {
    /// Moves the store to a thread of its own; the receiver fires once the store is closed.
    pub(crate) fn start(store: Store) -> io::Result<(Self, oneshot::Receiver<()>)> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let (closed, done) = oneshot::channel();
        thread::Builder::new().name("store".to_owned()).spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                job(&store);
            }
            drop(store);
            // Whoever waited for the end may have given up.
            let _ = closed.send(());
        })?;
        Ok((Self { jobs }, done))
    }

    /// Runs one job on the store's thread and waits for its result. While the disk is full it is tried again and again: whoever
    /// cannot wait for that asks with [`Self::unless_full`].
    ///
    /// A job that was sent is carried out even when the asker goes away.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        mut job: impl FnMut(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        loop {
            let (same, result) = self
                .once(move |store| {
                    let result = job(store);
                    Ok((job, result))
                })
                .await?;
            match result {
                Err(error) if error.is_full() => {
                    debug!(%error, "something waits until there is room to store it");
                    job = same;
                    sleep(RETRY).await;
                }
                other => return other,
            }
        }
    }

    /// Runs one job once; none when the disk is full.
    pub(crate) async fn unless_full<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Option<T>, StoreError> {
        match self.once(job).await {
            Err(error) if error.is_full() => Ok(None),
            other => other.map(Some),
        }
    }

    /// Runs one job once.
    pub(crate) async fn once<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |store| {
            let _ = reply.send(job(store));
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}
