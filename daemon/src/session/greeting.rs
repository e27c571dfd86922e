//! What a welcome teaches: the time, by which a machine without a clock lives, and which life of the coordinator's store speaks.

use super::{renew::PeerTime, way::Way};
use crate::{
    clock::unix_ms,
    store::{Acquaintance, StoreError},
    store_thread::StoreHandle,
};
use dora_remote_certs::{Clock, FloorClock, Utc};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::Instant;
use tracing::{info, warn};

/// Difference of two clocks that is worth a warning.
const WORTH_TELLING: Duration = Duration::from_secs(60);
/// Shortest time between two writes of the last good time.
const SPARE_THE_DISK: Duration = Duration::from_secs(60);

/// Learns from welcomes.
pub(super) struct Greeter {
    /// The clock of the machine, as it is.
    machine: Arc<dyn Clock>,
    floor: Arc<FloorClock>,
    store: StoreHandle,
    drift: Drift,
    written: Option<Instant>,
}

/// How the clock of this machine stands to the coordinator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drift {
    Right,
    Behind,
    Ahead,
}

impl Drift {
    fn of(machine: SystemTime, coordinator: SystemTime) -> Self {
        let exceeds = |later: SystemTime, earlier: SystemTime| {
            later
                .duration_since(earlier)
                .is_ok_and(|difference| difference > WORTH_TELLING)
        };
        if exceeds(coordinator, machine) {
            Self::Behind
        } else if exceeds(machine, coordinator) {
            Self::Ahead
        } else {
            Self::Right
        }
    }
}

impl Greeter {
    /// Says so at once when the clock of the machine is behind a time that has passed.
    pub(super) fn new(machine: Arc<dyn Clock>, floor: Arc<FloorClock>, store: StoreHandle) -> Self {
        if let Some(behind) = floor.behind() {
            warn!(
                clock = %Utc(machine.now()),
                passed = %Utc(floor.floor()),
                ?behind,
                "the clock of this machine shows a time that has passed; certificates are judged by the later one"
            );
        }
        Self {
            machine,
            floor,
            store,
            drift: Drift::Right,
            written: None,
        }
    }

    /// Takes a welcome in, before anything else is said on its connection.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be kept.
    pub(super) async fn greeted(&mut self, way: &Way) -> Result<PeerTime, StoreError> {
        let time = PeerTime {
            told: UNIX_EPOCH + Duration::from_millis(way.welcome.time_unix_ms.min(FAR_FUTURE_MS)),
            at: way.at,
        };
        self.compare(time.told);
        // A coordinator cannot prove a time beyond its own certificate.
        let good = time.told.min(way.peer.certificate().not_after);
        self.floor.advance(good);
        let is_due = self.written.is_none_or(|written| written.elapsed() >= SPARE_THE_DISK);
        let acquaintance = Acquaintance {
            store_epoch: way.welcome.store_epoch,
            counter: way.dialer.counter(),
            last_good_unix_ms: is_due.then(|| unix_ms(good)),
        };
        let epoch = acquaintance.store_epoch;
        // Without room it is written at the next one.
        let former = self.store.unless_full(move |store| store.welcomed(&acquaintance)).await?;
        if is_due && former.is_some() {
            self.written = Some(Instant::now());
        }
        if let Some(former) = former.flatten().filter(|former| *former != epoch) {
            warn!(
                former,
                now = epoch,
                "the coordinator's store is another one: it was restored or replaced"
            );
        }
        Ok(time)
    }

    /// Logs each change of the difference once.
    fn compare(&mut self, coordinator: SystemTime) {
        let machine = self.machine.now();
        let drift = Drift::of(machine, coordinator);
        if std::mem::replace(&mut self.drift, drift) == drift {
            return;
        }
        let (machine, coordinator) = (Utc(machine), Utc(coordinator));
        match drift {
            Drift::Right => info!(%machine, %coordinator, "the clock of this machine is right again"),
            Drift::Behind => warn!(%machine, %coordinator, "the clock of this machine is behind that of the coordinator"),
            Drift::Ahead => warn!(%machine, %coordinator, "the clock of this machine is ahead of that of the coordinator"),
        }
    }
}

/// The latest time that is believed, in milliseconds since the Unix epoch: the end of the year 9999 (RFC 5280 section 4.1.2.5).
const FAR_FUTURE_MS: u64 = 253_402_300_799_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_by_a_minute_agree() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(Drift::of(at(1_000), at(1_060)), Drift::Right);
        assert_eq!(Drift::of(at(1_060), at(1_000)), Drift::Right);
        assert_eq!(Drift::of(at(1_000), at(1_061)), Drift::Behind);
        assert_eq!(Drift::of(at(1_061), at(1_000)), Drift::Ahead);
        assert_eq!(Drift::of(at(0), at(1_800_000_000)), Drift::Behind);
    }
}
