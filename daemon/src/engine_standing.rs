//! What others see of the engines of this machine: how the one stands that takes new runs, and which older ones there are beside it.

use crate::{
    seat::{SEATS, Seat},
    supervisor::View,
};
use dora_remote_protocol::machine::{EngineStatus, OlderEngine};
use std::collections::BTreeMap;
use tokio::sync::watch;

/// Where the keepers say how their engines stand. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    status: watch::Sender<EngineStatus>,
    older: watch::Sender<BTreeMap<Seat, OlderEngine>>,
}

impl Standing {
    /// Begins with older engines that live, each by its place and its process.
    pub(crate) fn new(older: impl IntoIterator<Item = (Seat, u32)>) -> Self {
        let unheard = |(seat, pid)| {
            let engine = OlderEngine {
                pid,
                dora_version: None,
                runs: 0,
                trouble: None,
            };
            (seat, engine)
        };
        Self {
            status: watch::Sender::new(EngineStatus::Starting),
            older: watch::Sender::new(older.into_iter().map(unheard).collect()),
        }
    }

    /// What others see.
    pub(crate) fn seen(&self) -> watch::Receiver<EngineStatus> {
        self.status.subscribe()
    }

    /// How the engine stands that takes new runs; the older ones are filled in.
    pub(crate) fn present(&self, mut status: EngineStatus) {
        if let EngineStatus::Up { older, .. } = &mut status {
            *older = self.older.borrow().values().cloned().collect();
        }
        self.status
            .send_if_modified(|known| std::mem::replace(known, status.clone()) != status);
    }

    /// How an older engine stands.
    pub(crate) fn older(&self, seat: Seat, status: EngineStatus) {
        self.change(|older| {
            let Some(engine) = older.get_mut(&seat) else {
                return;
            };
            match status {
                EngineStatus::Up { dora_version, .. } => {
                    engine.dora_version = Some(dora_version);
                    engine.trouble = None;
                }
                EngineStatus::Down { reason } => engine.trouble = Some(reason),
                EngineStatus::Starting => {}
            }
        });
    }

    /// An older engine has ended.
    pub(crate) fn older_has_ended(&self, seat: Seat) {
        self.change(|older| drop(older.remove(&seat)));
    }

    /// Follows how many runs the older engines have, until there is no supervisor any more.
    pub(crate) async fn count(self, mut view: watch::Receiver<View>) {
        loop {
            let runs: [usize; SEATS] = view.borrow_and_update().runs;
            self.change(|older| {
                for (seat, engine) in older {
                    engine.runs = u32::try_from(runs[seat.index()]).unwrap_or(u32::MAX);
                }
            });
            if view.changed().await.is_err() {
                return;
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Seat, OlderEngine>)) {
        self.older.send_modify(change);
        let status = self.status.borrow().clone();
        self.present(status);
    }
}
