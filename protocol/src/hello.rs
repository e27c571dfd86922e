//! The first exchange on a connection: who speaks which versions, which build, which life of the process.
//!
//! The dialling side opens the first bidirectional stream and writes one [`Hello`]; the accepting side answers with one
//! [`HelloAnswer`]. Both may be in flight together with first commands, but no command is looked at before the hello is accepted.

use crate::{
    identity::Role,
    ids::{BootId, InstanceId},
    refusal::Refusal,
    version::{Version, VersionRange},
};
use serde::{Deserialize, Serialize};

/// What the dialling side says first. New fields come with a new major version (ALPN); facts that may grow go to `features`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Versions spoken.
    pub versions: VersionRange,
    /// Build of the program, for people: `0.1.0`.
    pub build: String,
    /// Names of optional abilities.
    pub features: Vec<String>,
    /// State directory (daemon) or process (CLI) that speaks.
    pub instance: InstanceId,
    /// Boot of the machine that speaks.
    pub boot: BootId,
    /// Counts the connections of this instance upwards, never back.
    pub counter: u64,
}

/// What the accepting side answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelloAnswer {
    /// The connection counts as established.
    Welcome(Welcome),
    /// It does not, and will be closed.
    Refusal(Refusal),
}

/// An accepted hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Version that both sides speak from here on.
    pub version: Version,
    /// Build of the accepting side.
    pub build: String,
    /// Names of its optional abilities.
    pub features: Vec<String>,
    /// Role under which the asker was admitted.
    pub role: Role,
    /// Milliseconds since the Unix epoch at the accepting side.
    pub time_unix_ms: u64,
    /// Which life of the coordinator's store speaks; changes when a backup is restored.
    pub store_epoch: u64,
}
