//! Watches for how long the coordinator was not heard, and tells the supervisor, which stops what must not go on alone.
//!
//! Time is that of the boot clock: it goes on while the machine sleeps, nobody sets it, and it is the same before and after a
//! restart of the daemon. What stands on disk is never earlier than the truth, so that a restart stops nothing too early, and at
//! most a quarter of the shortest silence later. Over a reboot all nodes are gone anyway.

use crate::{
    clock::since_boot,
    store::StoreError,
    store_thread::StoreHandle,
    supervisor::{Input, SupervisorHandle},
};
use dora_remote_protocol::{ids::BootId, limits::MIN_LINK_SILENCE};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

/// How often silence is looked at while some run must not go on alone.
const LOOK: Duration = Duration::from_secs(1);

/// When the coordinator was last heard, by the boot clock. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Heard(Arc<watch::Sender<Duration>>);

impl Heard {
    fn since(at: Duration) -> Self {
        Self(Arc::new(watch::Sender::new(at)))
    }

    /// An answer came, on a joined connection.
    pub(crate) fn now(&self) {
        self.0.send_replace(since_boot());
    }

    fn get(&self) -> Duration {
        *self.0.borrow()
    }
}

/// What survives a restart of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeardRecord {
    /// Times of another boot mean nothing.
    pub(crate) boot: BootId,
    /// The coordinator was last heard at this time since boot, or before.
    pub(crate) not_after: Duration,
}

/// When the coordinator was last heard, by what a former daemon has written; now when nothing is known.
pub(crate) fn resume(record: Option<HeardRecord>, boot: BootId) -> Heard {
    Heard::since(resumed(record, boot, since_boot()))
}

fn resumed(record: Option<HeardRecord>, boot: BootId, now: Duration) -> Duration {
    record
        .filter(|record| record.boot == boot)
        .map_or(now, |record| record.not_after.min(now))
}

/// Watches until the supervisor ends.
///
/// # Errors
/// [`StoreError`] when it cannot be written down: a restart would then stop too much or too little.
pub(crate) async fn run(heard: Heard, supervisor: SupervisorHandle, store: StoreHandle, boot: BootId) -> Result<(), StoreError> {
    let mut view = supervisor.view();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let record = store.run(|store| store.heard()).await?;
    let mut written = record.filter(|record| record.boot == boot).map(|record| record.not_after);
    loop {
        let (shortest, alone) = {
            let view = view.borrow_and_update();
            (view.shortest_silence, view.stops_alone)
        };
        let wanted = to_write(heard.get(), written, shortest);
        if wanted != written {
            let record = wanted.map(|not_after| HeardRecord { boot, not_after });
            store.run(move |store| store.set_heard(record.as_ref())).await?;
            written = wanted;
        }
        let silence = since_boot().saturating_sub(heard.get());
        if alone || shortest.is_some_and(|shortest| silence >= shortest) {
            supervisor.tell(Input::Silence(silence)).await;
        }
        let watching = shortest.is_some() || alone;
        tokio::select! {
            _ = look.tick(), if watching => {}
            // Asking alone rings the view, so that only a difference counts.
            changed = view.wait_for(|view| (view.shortest_silence, view.stops_alone) != (shortest, alone)) => {
                if changed.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// What should stand on disk: nothing while every run may go on, else a time that `heard` does not pass too soon.
fn to_write(heard: Duration, written: Option<Duration>, shortest: Option<Duration>) -> Option<Duration> {
    let step = shortest?.max(MIN_LINK_SILENCE) / 4;
    let latest = heard.saturating_add(step);
    written.filter(|written| (heard..=latest).contains(written)).or(Some(latest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_disk_is_spared_and_never_says_that_the_coordinator_was_heard_earlier_than_it_was() {
        let shortest = Some(s(40));
        let (mut written, mut writes) = (None, 0);
        for heard in 0..1000 {
            let wanted = to_write(s(heard), written, shortest);
            writes += usize::from(wanted != written);
            written = wanted;
            let not_after = written.expect("written");
            assert!(not_after >= s(heard) && not_after <= s(heard + 10), "{heard}: {not_after:?}");
        }
        assert!(writes <= 1000 / 10 + 1, "{writes} writes");
        assert_eq!(
            to_write(s(1000), Some(s(1000)), shortest),
            Some(s(1000)),
            "silence writes nothing"
        );
    }

    #[test]
    fn a_shorter_silence_is_written_more_exactly_and_none_leaves_nothing() {
        assert_eq!(to_write(s(100), Some(s(120)), Some(s(8))), Some(s(102)));
        assert_eq!(to_write(s(100), Some(s(101)), Some(s(400))), Some(s(101)), "exact enough");
        assert_eq!(to_write(s(100), Some(s(101)), None), None);
    }

    #[test]
    fn a_restart_goes_on_counting_and_a_reboot_begins() {
        let (boot, other) = (BootId(Uuid::from_u128(1)), BootId(Uuid::from_u128(2)));
        let record = Some(HeardRecord { boot, not_after: s(50) });
        assert_eq!(resumed(record, boot, s(90)), s(50));
        assert_eq!(resumed(record, boot, s(49)), s(49), "the future was not heard");
        assert_eq!(resumed(record, other, s(90)), s(90));
        assert_eq!(resumed(None, boot, s(90)), s(90));
    }
}
