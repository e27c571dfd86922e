//! Whether log lines of a run are to be shipped now: always, or, on a metered link, while somebody reads them.
//!
//! A reader is known by a lease that the coordinator renews: when the word that the last one went is lost, lines flow for a while
//! longer, and no more. Leases are not kept over a restart; the coordinator renews them soon.

use dora_remote_protocol::{ids::DataflowId, limits::LOGS_LEASE, machine::LogShipping};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Who wants which lines. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Demand {
    shipping: LogShipping,
    leases: Arc<Mutex<BTreeMap<DataflowId, Instant>>>,
}

impl Demand {
    /// Nobody reads yet.
    pub(crate) fn new(shipping: LogShipping) -> Self {
        Self {
            shipping,
            leases: Arc::default(),
        }
    }

    /// When lines are shipped on this machine.
    pub(crate) const fn shipping(&self) -> LogShipping {
        self.shipping
    }

    /// Somebody reads a run for so long, unless that is renewed; nobody does for a lease of zero. Longer leases than
    /// [`LOGS_LEASE`] are cut.
    pub(crate) fn lease(&self, dataflow: DataflowId, lease: Duration, now: Instant) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        // Bounded by the runs that somebody has read within one lease.
        leases.retain(|_, end| *end > now);
        if lease.is_zero() {
            leases.remove(&dataflow);
        } else {
            leases.insert(dataflow, now + lease.min(LOGS_LEASE));
        }
    }

    /// Whether lines of a run are to be shipped now.
    pub(crate) fn wants(&self, dataflow: DataflowId, now: Instant) -> bool {
        match self.shipping {
            LogShipping::Always => true,
            LogShipping::OnDemand => {
                let leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
                leases.get(&dataflow).is_some_and(|end| *end > now)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn lines_flow_while_a_lease_lasts_and_a_lost_end_costs_one_lease() {
        let (id, other) = (DataflowId(Uuid::from_u128(1)), DataflowId(Uuid::from_u128(2)));
        let (demand, now) = (Demand::new(LogShipping::OnDemand), Instant::now());
        assert!(!demand.wants(id, now));
        demand.lease(id, LOGS_LEASE * 10, now);
        assert!(demand.wants(id, now) && !demand.wants(other, now));
        let nearly = now + LOGS_LEASE - Duration::from_millis(1);
        assert!(
            demand.wants(id, nearly) && !demand.wants(id, now + LOGS_LEASE),
            "a lease is cut to its bound"
        );
        demand.lease(id, LOGS_LEASE, nearly);
        assert!(demand.wants(id, now + LOGS_LEASE), "it is renewed");
        demand.lease(id, Duration::ZERO, now + LOGS_LEASE);
        assert!(!demand.wants(id, now + LOGS_LEASE));
        assert!(Demand::new(LogShipping::Always).wants(id, now));
    }
}
