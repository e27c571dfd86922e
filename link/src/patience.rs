//! How long an answering side waits for a peer, each wait by its name. Whoever makes us wait longer holds nothing any more.
//!
//! Where no wait is long enough to matter, a peer cannot hold resources by being slow: neither by dribbling a byte at a time,
//! nor by never reading, nor by staying without asking.

use dora_remote_protocol::limits::{HANDSHAKE_DEADLINE, HEADER_DEADLINE};
use std::time::Duration;

/// The waits of an answering side. Programs use the default; tests shorten single ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a handshake to finish, and again for the hello to arrive and for its answer to be written.
    pub handshake: Duration,
    /// For the header of a stream to arrive whole once the stream is open.
    pub header: Duration,
    /// For the body of a request to arrive whole once its header has, and again for the end of the request.
    pub body: Duration,
    /// For each [`Self::UPLOAD_BYTES`] of an upload to arrive, or its end.
    pub upload: Duration,
    /// For an answer to be written, and again for the asker's side to acknowledge it.
    pub answer: Duration,
    /// For a reader of a feed to take anything while more is waiting for it. A follower that was cut off here goes on at its
    /// cursor once it reads again.
    pub feed: Duration,
    /// For a peer that is no daemon to open a stream while none is open, whatever keep-alives it sends.
    pub idle: Duration,
    /// For a peer that was let in to join or to renew and for nothing else to be done with it.
    pub one_purpose: Duration,
}

impl Patience {
    /// Bytes of an upload that must arrive within [`Self::upload`]: far below the slowest line that anybody uploads over.
    pub const UPLOAD_BYTES: u64 = 4 << 10;
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            handshake: HANDSHAKE_DEADLINE,
            header: HEADER_DEADLINE,
            body: Duration::from_secs(60),
            upload: Duration::from_secs(30),
            answer: Duration::from_secs(30),
            feed: Duration::from_secs(600),
            idle: Duration::from_secs(300),
            one_purpose: Duration::from_secs(30),
        }
    }
}
