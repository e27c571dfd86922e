//! When the accepting side ends a connection that stands: at the end of a certificate, of a purpose, or of a long quiet.
//!
//! Revocation is not waited for here: it is found on each stream, and its owner closes the connections that stand.

use crate::{
    close::CloseCode,
    idle::OpenStreams,
    patience::Patience,
    peer::{Peer, Rights},
};
use dora_remote_certs::Clock;
use dora_remote_protocol::identity::Role;
use std::{future::pending, time::Duration};
use tokio::time::sleep;

/// Returns when the connection of `peer` is to be closed, and with what.
pub(crate) async fn overstayed(
    peer: &Peer,
    clock: &dyn Clock,
    patience: &Patience,
    open: &OpenStreams,
) -> (CloseCode, &'static str) {
    match peer.rights() {
        Rights::Full => tokio::select! {
            () = certificate_end(peer, clock) => (CloseCode::CertificateLapsed, "the certificate has ended"),
            () = quiet(peer, patience, open) => (CloseCode::TimeOver, "nothing was asked for too long"),
        },
        // Whoever was let in for one purpose needs no longer for it, whatever is open.
        Rights::RenewOnly | Rights::JoinOnly(_) => {
            sleep(patience.one_purpose).await;
            (CloseCode::TimeOver, "the time for joining or renewing is over")
        }
    }
}

/// Returns when the certificate of the peer has ended; an extension on the way moves the end.
async fn certificate_end(peer: &Peer, clock: &dyn Clock) {
    let end = peer.certificate_end();
    loop {
        let Ok(left) = end.borrow().duration_since(clock.now()) else {
            return;
        };
        // The wall clock may be set while we wait, so no wait is long.
        sleep(left.min(CLOCK_CHECK) + Duration::from_millis(1)).await;
    }
}

/// Returns when a peer has asked nothing for so long that its keep-alives serve nobody.
async fn quiet(peer: &Peer, patience: &Patience, open: &OpenStreams) {
    // A daemon is there to be given orders, and may have nothing to say for long.
    if peer.identity().role == Role::Daemon {
        pending::<()>().await;
    }
    open.quiet_for(patience.idle).await;
}

/// Longest time between two looks at the wall clock for a certificate's end.
const CLOCK_CHECK: Duration = Duration::from_secs(60);
