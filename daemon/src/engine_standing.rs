//! What others see of the engines of this machine: how the one stands that takes new runs, and how many older ones there are beside it.

use dora_remote_protocol::machine::EngineStatus;
use tokio::sync::watch;

/// Where the keepers say how their engines stand. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    status: watch::Sender<EngineStatus>,
    older: watch::Sender<u32>,
}

impl Standing {
    /// Begins with so many older engines.
    pub(crate) fn new(older: usize) -> Self {
        Self {
            status: watch::Sender::new(EngineStatus::Starting),
            older: watch::Sender::new(u32::try_from(older).unwrap_or(u32::MAX)),
        }
    }

    /// What others see.
    pub(crate) fn seen(&self) -> watch::Receiver<EngineStatus> {
        self.status.subscribe()
    }

    /// How the engine stands that takes new runs; the number of older ones is filled in.
    pub(crate) fn present(&self, status: EngineStatus) {
        self.status.send_replace(self.with_older(status));
    }

    /// An older engine has ended.
    pub(crate) fn older_has_ended(&self) {
        self.older.send_modify(|older| *older = older.saturating_sub(1));
        let status = self.status.borrow().clone();
        self.present(status);
    }

    fn with_older(&self, mut status: EngineStatus) -> EngineStatus {
        if let EngineStatus::Up { older, .. } = &mut status {
            *older = *self.older.borrow();
        }
        status
    }
}
