//! Who asks: a peer on the network, or a user of this host on the admin socket. What handlers know of either.

use dora_remote_link::Context;
use dora_remote_protocol::{
    identity::{Identity, Role},
    ids::RequestId,
};

/// The one who asks, as the log, the audit and the records see it.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    /// A SPIFFE id, or `local` with the user's number.
    pub(crate) who: String,
    /// The identity of a peer; none on the admin socket, where everybody is an admin.
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
        let peer = &context.peer;
        Self {
            who: peer.identity().to_string(),
            identity: Some(peer.identity().clone()),
            serial: peer.certificate().serial.clone(),
            from: peer.remote_address().to_string(),
            request_id: context.request_id,
        }
    }

    /// What it may do: the role of its certificate, and admin on the admin socket.
    pub(crate) fn role(&self) -> Role {
        self.identity.as_ref().map_or(Role::Admin, |identity| identity.role)
    }
}
