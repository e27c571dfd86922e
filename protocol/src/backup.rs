//! A copy of the coordinator's records. Verb 29.

use crate::{chunk::Chunk, identity::RoleSet, request::request};
use serde::{Deserialize, Serialize};

/// Reads a consistent copy of everything that a coordinator must not forget, as one archive. Holds no private key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBackup {}
request!(ReadBackup, 29, "backup", RoleSet::ADMIN, Feed, Bundle => Chunk);
