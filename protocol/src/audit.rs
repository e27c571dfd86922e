//! The audit: who did what and when, in a chain of hashes whose end is witnessed by daemons. Verbs 26 and 27.

pub mod chain;
pub mod verify;

use crate::{access::Revocation, identity::RoleSet, name::MachineName, request::request};
use serde::{Deserialize, Serialize};

/// One entry: a command that changes something, or one that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Number, from 1, without holes.
    pub seq: u64,
    /// When, in milliseconds since the Unix epoch, by the coordinator's clock.
    pub at_unix_ms: u64,
    /// Who: a SPIFFE id, `invite` with its id, `local` with the user's number, or `coordinator` for what it did by itself.
    pub who: String,
    /// Serial of the certificate; empty where there was none.
    pub serial: String,
    /// Address it came from; empty where there was none.
    pub from: String,
    /// Name of the verb.
    pub verb: String,
    /// What it was about: a dataflow, a machine, an identity. Never a value of a variable, never a secret.
    pub target: String,
    /// `ok`, or the code of the refusal.
    pub result: String,
    /// What else is to be said, at most [`MAX_AUDIT_DETAIL_BYTES`].
    pub detail: String,
    /// Request id of the command.
    pub request_id: String,
    /// BLAKE3 of the hash before and of this entry with this field zero, both as they stand on the wire.
    pub hash: [u8; 32],
}

/// Reads the audit, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadAudit {
    /// Only entries with a number above this.
    pub after: u64,
    /// Only entries since then, in milliseconds since the Unix epoch.
    pub since_unix_ms: Option<u64>,
    /// Only entries whose `who` contains this text, ignoring case.
    pub who: Option<String>,
    /// Only entries of this verb.
    pub verb: Option<String>,
    /// Go on with entries as they are made.
    pub follow: bool,
}
request!(ReadAudit, 26, "audit", RoleSet::ADMIN, Feed, Command => AuditItem);

/// What the feed of the audit brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuditItem {
    /// First item: the hash before the first entry that is kept, and that entry's number.
    Anchor {
        /// Number of the first entry that is kept.
        first_seq: u64,
        /// Hash of the entry before it; zero when it is the first of all.
        before: [u8; 32],
    },
    /// An entry.
    Entry(AuditEntry),
}

/// Asks for what the connected daemons witness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListWitnesses {}
request!(ListWitnesses, 27, "audit-witnesses", RoleSet::ADMIN, Call, Command => Vec<Witness>);

/// What one daemon witnesses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// Which machine.
    pub machine: MachineName,
    /// The heads that it keeps, oldest first; or why it did not tell.
    pub heads: Result<Vec<SignedHead>, String>,
}

/// The end of the chain at one moment, signed by the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHead {
    /// What is signed.
    pub head: AuditHead,
    /// Chain of the certificate that signed, leaf and issuing certificate in DER form.
    pub chain: Vec<Vec<u8>>,
    /// ECDSA P-256 with SHA-256 over [`HEAD_CONTEXT`] and the head as it stands on the wire.
    pub signature: Vec<u8>,
}

/// The end of the chain at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// Which life of the coordinator's store.
    pub store_epoch: u64,
    /// Number of the last entry.
    pub count: u64,
    /// Its hash.
    pub hash: [u8; 32],
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
}

/// All revocations at one moment, signed by the coordinator, so that a restored one gets them back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRevocations {
    /// At most [`crate::access::MAX_REVOCATIONS`].
    pub revocations: Vec<Revocation>,
    /// As [`SignedHead::chain`].
    pub chain: Vec<Vec<u8>>,
    /// ECDSA P-256 with SHA-256 over [`REVOCATIONS_CONTEXT`] and the revocations as they stand on the wire.
    pub signature: Vec<u8>,
}

/// Stands before what is signed of a head, so that no signature passes for another.
pub const HEAD_CONTEXT: &[u8] = b"dora-remote audit head 1\0";
/// Stands before what is signed of revocations.
pub const REVOCATIONS_CONTEXT: &[u8] = b"dora-remote revocations 1\0";
/// Longest detail of an entry in bytes; longer text is cut.
pub const MAX_AUDIT_DETAIL_BYTES: usize = 512;
/// Entries that are kept; the oldest go, and the anchor says so.
pub const MAX_AUDIT_ENTRIES: u64 = 1_000_000;
/// Heads that a daemon keeps: the newest of each hour of the last day, and the newest of all.
pub const MAX_WITNESSED_HEADS: usize = 25;
