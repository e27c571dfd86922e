//! What a handler is told beside the request: who asks, and for how long.

use crate::peer::Peer;
use dora_remote_protocol::ids::RequestId;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a handler is told beside the request. The request is already known to be allowed.
#[derive(Clone, Debug)]
pub struct Context {
    /// Who asks.
    pub peer: Peer,
    /// Names this asking in the logs of both sides.
    pub request_id: RequestId,
    /// When the asker stops waiting; the handler is dropped then. `None` for a feed without an end.
    pub deadline: Option<Instant>,
    /// Cancelled when this side is ending; feeds should end then.
    pub shutdown: CancellationToken,
}
