//! Where connection attempts come in: hands them to the gate, and does what the gate decides.

use crate::gate::{Ended, Gate, Permit};
use dora_remote_protocol::limits::HANDSHAKE_DEADLINE;
use quinn::{Endpoint, Incoming};
use std::time::Instant;
use tokio::{sync::mpsc, time::sleep_until};

/// Feeds the gate and starts what it lets through.
pub(crate) async fn run(endpoint: &Endpoint, permits: usize, start: impl Fn(Incoming, HeldPermit)) {
    let mut gate = Gate::new(Instant::now(), permits);
    // One place for each permit, so that giving one back never waits.
    let (give_back, mut given_back) = mpsc::channel(permits.max(2));
    loop {
        while let Some((permit, incoming)) = gate.admit(Instant::now()) {
            let held = HeldPermit {
                permit,
                ended: Ended::Failed,
                give_back: give_back.clone(),
            };
            start(incoming, held);
        }
        let stale = gate.oldest().map(|since| since + HANDSHAKE_DEADLINE);
        let suspicion = gate.next_suspicion();
        tokio::select! {
            biased;
            Some((permit, ended)) = given_back.recv() => gate.release(Instant::now(), permit, ended),
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => arrive(&mut gate, incoming),
                None => return,
            },
            () = until(suspicion) => {
                for incoming in gate.suspects(Instant::now()) {
                    ask_for_proof(incoming);
                }
            }
            () = until(stale) => {
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
        ask_for_proof(unproven);
    }
}

fn ask_for_proof(incoming: Incoming) {
    // Retry is always legal towards an address that is not validated.
    drop(incoming.retry());
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// A permit that goes back to the gate when it is dropped.
pub(crate) struct HeldPermit {
    permit: Permit,
    ended: Ended,
    give_back: mpsc::Sender<(Permit, Ended)>,
}

impl HeldPermit {
    /// Gives the permit back and says how the handshake ended. Merely dropped, it counts as failed.
    pub(crate) fn end(mut self, ended: Ended) {
        self.ended = ended;
    }
}

impl Drop for HeldPermit {
    fn drop(&mut self) {
        // The channel has a place for each permit; an error says that nobody accepts any more.
        let _ = self.give_back.try_send((self.permit, self.ended));
    }
}
