//! Identifiers that programs make: one type per kind of thing, so that none is taken for another.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};
use thiserror::Error;
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_id! {
    /// One run of a dataflow; a UUID version 7 (RFC 9562 section 5.7), so that ids sort by age.
    DataflowId
}
uuid_id! {
    /// One command of one asker. Asking again with the same id repeats nothing.
    RequestId
}
uuid_id! {
    /// One state directory of a daemon or one CLI process; tells a restart from a cloned disk.
    InstanceId
}
uuid_id! {
    /// One boot of a machine (Linux: `/proc/sys/kernel/random/boot_id`).
    BootId
}
uuid_id! {
    /// One life of an engine process; every node it spawned carries it in its environment.
    EngineId
}

/// Id of a node within its dataflow, as dora writes it: 1 to [`MAX_NODE_ID_BYTES`] bytes, no `/`, no control characters.
/// Copies share the text: every log line has one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        if text.is_empty() || text.len() > MAX_NODE_ID_BYTES || text.contains(|c: char| c == '/' || c.is_control()) {
            return Err(NodeIdError {
                id: text.escape_debug().to_string(),
            });
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for NodeId {
    type Error = NodeIdError;

    fn try_from(text: String) -> Result<Self, NodeIdError> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no [`NodeId`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{id}` is not a node id (1 to {MAX_NODE_ID_BYTES} bytes, no `/`, no control characters)")]
pub struct NodeIdError {
    /// The text, escaped.
    pub id: String,
}

/// Longest node id in bytes: it becomes part of a file name (`log_<node>.jsonl`).
pub const MAX_NODE_ID_BYTES: usize = 255 - "log_.jsonl".len() - 10;

/// BLAKE3 hash of a bundle's archive, shown in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BundleHash(pub [u8; 32]);

impl fmt::Display for BundleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for BundleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BundleHash({self})")
    }
}
