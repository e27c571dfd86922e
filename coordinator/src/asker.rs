//! Who asks: a peer on the network, or a user of this host on the admin socket. What handlers know of either.

use crate::registry::invite_label;
use dora_remote_certs::JoinKey;
use dora_remote_link::{Context, Peer, Rights};
use dora_remote_protocol::{identity::Identity, ids::RequestId};

/// The one who asks, as the log, the audit and the records see it.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    /// A SPIFFE id, `invite` with its id, or `local` with the user's number.
    pub(crate) who: String,
    /// The identity of a peer, or the one that its invite is for; none on the admin socket, where everybody is an admin.
    pub(crate) identity: Option<Identity>,
    /// Serial of its certificate; empty on the admin socket.
    pub(crate) serial: String,
    /// Address that it comes from; empty on the admin socket.
    pub(crate) from: String,
    /// Names this asking.
    pub(crate) request_id: RequestId,
}

impl Asker {
    /// The peer of a request.
    pub(crate) fn of(context: &Context) -> Self {
        Self::of_peer(&context.peer, context.request_id)
    }

    /// A peer that asks under that id.
    pub(crate) fn of_peer(peer: &Peer, request_id: RequestId) -> Self {
        let who = match peer.rights() {
            Rights::JoinOnly(JoinKey(key)) => invite_label(&key),
            Rights::Full | Rights::RenewOnly => peer.identity().to_string(),
        };
        Self {
            who,
            identity: Some(peer.identity().clone()),
            serial: peer.certificate().serial.clone(),
            from: peer.remote_address().to_string(),
            request_id,
        }
    }
}
