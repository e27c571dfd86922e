//! How fast to send: a controller that holds the queue in the network short, so that a command never waits behind our own
//! logs, whatever the buffers on the way.
//!
//! The standing delay settles at a target above what the path takes when it is empty. Loss of a few percent without a rise in
//! delay (radio) is not taken as congestion. Beside flows that fill the queue regardless, it competes with quinn's own Cubic, and
//! looks now and then whether they are gone. Nothing here may panic: a panic in a controller would hang its connection.

mod measure;
mod pace;
#[cfg(test)]
mod simulation;

use pace::Pace;
use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;
use std::{any::Any, sync::Arc, time::Instant};

/// Makes the controllers of an endpoint's connections.
#[derive(Debug)]
pub(crate) struct DelayTarget;

impl ControllerFactory for DelayTarget {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Pace::new(now, f64::from(current_mtu)))
    }
}

impl Controller for Pace {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.acknowledged(now, sent, bytes, app_limited, rtt);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.lost(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.set_mtu(new_mtu);
    }

    fn window(&self) -> u64 {
        self.bytes()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        Self::INITIAL_BYTES
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
