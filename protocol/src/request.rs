//! What a request is: a type tied to its verb, to the roles that may ask, and to the only answer it can get.
//!
//! Every request travels on a bidirectional stream of its own: the asker writes a [`Header`] frame and a body frame,
//! for an upload also chunks, and finishes; the other side writes one [`Answer`], for a feed [`FeedFrame`]s, and finishes.

use crate::{identity::RoleSet, ids::RequestId, refusal::Refusal};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt;

/// Number of a request on the wire. Never reused, not even after the request is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Verb(pub u16);

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "verb {}", self.0)
    }
}

/// Which streams go first when a connection is busy; a larger number goes first (`quinn::SendStream::set_priority`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Priority {
    /// Bundles: bulk that can wait.
    Bundle = -20,
    /// Log lines.
    Logs = -10,
    /// Lifecycle events and heartbeats.
    Event = 5,
    /// Commands of people and orders to machines.
    Command = 10,
    /// Stop and everything else that makes a machine safe.
    Safety = 20,
}

/// A question that one peer may ask another.
pub trait Request: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What the answering side owes when it says yes: one value, or each item of a feed. A no is a [`Refusal`].
    type Reply: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// Number on the wire.
    const VERB: Verb;
    /// Name in logs, tables and the audit.
    const NAME: &'static str;
    /// Roles that may ask. Checked once, before the body is decoded.
    const MAY_ASK: RoleSet;
    /// Whether the answer is one value, a feed, or comes after an upload.
    const SHAPE: Shape;
    /// How urgent its stream is, in both directions.
    const PRIORITY: Priority;
}

/// How the stream of a request goes on after its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One answer.
    Call,
    /// Any number of items, then an end or a refusal.
    Feed,
    /// The asker sends raw chunks after the body, then gets one answer.
    Upload,
}

/// First frame of every stream but the hello's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// What is asked.
    pub verb: Verb,
    /// Milliseconds the asker will wait; 0 for a feed without an end.
    pub deadline_ms: u32,
    /// Names this asking in the logs of both sides.
    pub request_id: RequestId,
}

/// The one answer of a [`Shape::Call`] or a [`Shape::Upload`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer<R> {
    /// Yes, and this is it.
    Reply(R),
    /// No.
    Refusal(Refusal),
}

/// One frame of a [`Shape::Feed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedFrame<I> {
    /// The next item.
    Item(I),
    /// Nothing new; the answering side is alive.
    Idle,
    /// The feed is whole; nothing follows.
    End,
    /// The feed ends here, unfinished.
    Refusal(Refusal),
}

/// Declares a request: its verb, name, roles, shape, priority and reply, in one line.
macro_rules! request {
    ($request:ty, $verb:literal, $name:literal, $roles:expr, $shape:ident, $priority:ident => $reply:ty) => {
        impl $crate::request::Request for $request {
            type Reply = $reply;
            const VERB: $crate::request::Verb = $crate::request::Verb($verb);
            const NAME: &'static str = $name;
            const MAY_ASK: $crate::identity::RoleSet = $roles;
            const SHAPE: $crate::request::Shape = $crate::request::Shape::$shape;
            const PRIORITY: $crate::request::Priority = $crate::request::Priority::$priority;
        }
    };
}
pub(crate) use request;

/// One row of the table of verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerbRow {
    /// Number on the wire.
    pub verb: Verb,
    /// Name.
    pub name: &'static str,
    /// Roles that may ask.
    pub may_ask: RoleSet,
    /// Shape of the stream.
    pub shape: Shape,
}

impl VerbRow {
    /// The row of one request.
    #[must_use]
    pub const fn of<R: Request>() -> Self {
        Self {
            verb: R::VERB,
            name: R::NAME,
            may_ask: R::MAY_ASK,
            shape: R::SHAPE,
        }
    }
}
