//! The thread that stores: everything that came while the last transaction was written goes into the next one.
//!
//! Its mailbox holds at most the latest state of each thing, so that it has a bound without ever being full. A disk that fails is tried
//! again; nothing is said to be stored before it is.

use super::{Changes, Store};
use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::sync::watch;

/// Number of a set of changes; later ones are larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// The way to the thread.
#[derive(Debug)]
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    stored: watch::Receiver<Ticket>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    mailbox: Mutex<Mailbox>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Mailbox {
    waiting: Changes,
    last: Ticket,
    is_closing: bool,
}

impl Keeper {
    /// Starts the thread.
    pub(crate) fn start(store: impl Store) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (tell, stored) = watch::channel(Ticket::default());
        let thread = thread::Builder::new().name("store".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(store, &tell)
        })?;
        Ok(Self {
            shared,
            stored,
            thread: Some(thread),
        })
    }

    /// Hands changes over, without waiting for the disk.
    pub(crate) fn put(&self, changes: Changes) -> Ticket {
        let mut mailbox = self.shared.lock();
        if !changes.is_empty() {
            mailbox.waiting.absorb(changes);
            mailbox.last.0 += 1;
            self.shared.changed.notify_one();
        }
        mailbox.last
    }

    /// Tells how far the disk is: everything up to and with this ticket is stored.
    pub(crate) fn stored(&self) -> watch::Receiver<Ticket> {
        self.stored.clone()
    }
}

impl Drop for Keeper {
    /// Waits until what was handed over is stored, or has failed once more.
    fn drop(&mut self) {
        self.shared.lock().is_closing = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread has panicked");
        }
    }
}

impl Shared {
    fn run(&self, mut store: impl Store, tell: &watch::Sender<Ticket>) {
        let mut has_failed = false;
        while let Some((changes, ticket)) = self.next() {
            match store.apply(&changes) {
                Ok(()) => {
                    if std::mem::take(&mut has_failed) {
                        tracing::info!("the store works again");
                    }
                    tell.send_replace(ticket);
                }
                Err(error) => {
                    if !std::mem::replace(&mut has_failed, true) {
                        tracing::error!(%error, "cannot store; trying again until it works");
                    }
                    if self.put_back(changes) {
                        tracing::error!(%error, "ending with changes that could not be stored");
                        return;
                    }
                }
            }
        }
    }

    /// The next changes; none when it is time to end.
    fn next(&self) -> Option<(Changes, Ticket)> {
        let mut mailbox = self.lock();
        while mailbox.waiting.is_empty() {
            if mailbox.is_closing {
                return None;
            }
            mailbox = self.changed.wait(mailbox).unwrap_or_else(PoisonError::into_inner);
        }
        Some((std::mem::take(&mut mailbox.waiting), mailbox.last))
    }

    /// Puts back what could not be stored and waits a moment; true when it is time to end.
    fn put_back(&self, mut changes: Changes) -> bool {
        let mut mailbox = self.lock();
        changes.absorb(std::mem::take(&mut mailbox.waiting));
        mailbox.waiting = changes;
        if !mailbox.is_closing {
            let (after, _) = self
                .changed
                .wait_timeout(mailbox, AGAIN_AFTER)
                .unwrap_or_else(PoisonError::into_inner);
            mailbox = after;
        }
        mailbox.is_closing
    }

    fn lock(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wait before a disk that failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dataflow::samples, store::StoreError};
    use dora_remote_protocol::dataflow::DataflowState;
    use std::sync::mpsc;

    struct Scripted {
        seen: mpsc::Sender<Changes>,
        failures: u32,
    }

    impl Store for Scripted {
        fn apply(&mut self, changes: &Changes) -> Result<(), StoreError> {
            if self.failures > 0 {
                self.failures -= 1;
                return Err(StoreError::record(&"test", postcard::Error::WontImplement));
            }
            self.seen.send(changes.clone()).unwrap();
            Ok(())
        }
    }

    #[tokio::test]
    async fn nothing_is_stored_before_the_disk_says_so_and_failures_are_tried_again() {
        let (seen, changes) = mpsc::channel();
        let keeper = Keeper::start(Scripted { seen, failures: 2 }).unwrap();
        let mut stored = keeper.stored();
        assert_eq!(*stored.borrow(), Ticket::default());
        let mut one = Changes::default();
        one.dataflow(samples::record_in(1, "one", DataflowState::Preparing));
        keeper.put(one);
        let mut again = Changes::default();
        again.dataflow(samples::record_in(1, "one", DataflowState::Running));
        let ticket = keeper.put(again);
        let waiting = stored.wait_for(|at| *at >= ticket);
        tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap();
        drop(keeper);
        let last = changes.iter().last().unwrap();
        let record = last.dataflows[&samples::id(1)].clone().unwrap();
        assert_eq!(record.state, DataflowState::Running, "the latest state won");
    }
}
