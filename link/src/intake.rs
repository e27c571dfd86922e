//! Where connection attempts come in: hands them to the gate, and does what the gate decides.

use crate::gate::{Gate, Permit};
use dora_remote_protocol::limits::HANDSHAKE_DEADLINE;
use quinn::{Endpoint, Incoming};
use std::time::Instant;
use tokio::{sync::mpsc, time::sleep_until};

/// Feeds the gate and starts what it lets through.
pub(crate) async fn run(endpoint: &Endpoint, permits: usize, start: impl Fn(Incoming, HeldPermit)) {
    let mut gate = Gate::new(permits);
    // One place for each permit, so that giving one back never waits.
    let (give_back, mut given_back) = mpsc::channel(permits.max(2));
    loop {
        while let Some((permit, incoming)) = gate.admit() {
            let held = HeldPermit {
                permit,
                ran_out_of_time: false,
                give_back: give_back.clone(),
            };
            start(incoming, held);
        }
        let oldest = gate.oldest();
        tokio::select! {
            biased;
            Some((permit, ran_out_of_time)) = given_back.recv() => gate.release(permit, ran_out_of_time),
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => arrive(&mut gate, incoming),
                None => return,
            },
            () = until_stale(oldest) => {
                for incoming in gate.stale(Instant::now(), HANDSHAKE_DEADLINE) {
                    incoming.ignore();
                }
            }
        }
    }
}

fn arrive(gate: &mut Gate<Incoming>, incoming: Incoming) {
    let validated = incoming.remote_address_validated();
    if let Some(unproven) = gate.arrive(Instant::now(), validated, incoming) {
        // Retry is always legal towards an address that is not validated.
        drop(unproven.retry());
    }
}

async fn until_stale(oldest: Option<Instant>) {
    match oldest {
        Some(since) => sleep_until((since + HANDSHAKE_DEADLINE).into()).await,
        None => std::future::pending().await,
    }
}

/// A permit that goes back to the gate when it is dropped.
pub(crate) struct HeldPermit {
    permit: Permit,
    ran_out_of_time: bool,
    give_back: mpsc::Sender<(Permit, bool)>,
}

impl HeldPermit {
    /// Notes that the handshake did not end in time, as those from spoofed addresses do not.
    pub(crate) fn run_out_of_time(&mut self) {
        self.ran_out_of_time = true;
    }
}

impl Drop for HeldPermit {
    fn drop(&mut self) {
        // The channel has a place for each permit; an error says that nobody accepts any more.
        let _ = self.give_back.try_send((self.permit, self.ran_out_of_time));
    }
}
