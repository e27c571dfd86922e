//! The chain of hashes through the audit: how an entry is tied to the one before it, and what is signed of the chain's end.

use super::{AuditEntry, AuditHead};
use crate::access::Revocation;

/// The hash before the first entry of all.
pub const GENESIS: [u8; 32] = [0; 32];

/// The end of a chain, to which the next entry is tied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    last_seq: u64,
    hash: [u8; 32],
}

impl Default for Chain {
    fn default() -> Self {
        Self::ending(0, GENESIS)
    }
}

impl Chain {
    /// A chain whose last entry has this number and this hash; number 0 and [`GENESIS`] for one without entries.
    #[must_use]
    pub const fn ending(last_seq: u64, hash: [u8; 32]) -> Self {
        Self { last_seq, hash }
    }

    /// Number of the last entry; 0 when there is none.
    #[must_use]
    pub const fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Hash of the last entry.
    #[must_use]
    pub const fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Ties an entry to the end: sets its number and its hash, whatever they were.
    ///
    /// # Errors
    /// When the entry cannot be encoded; the chain is as it was then.
    pub fn append(&mut self, mut entry: AuditEntry) -> Result<AuditEntry, postcard::Error> {
        entry.seq = self.last_seq + 1;
        entry.hash = entry_hash(&self.hash, &entry)?;
        *self = Self::ending(entry.seq, entry.hash);
        Ok(entry)
    }
}

/// The hash that an entry must have after the hash `before`: BLAKE3 of `before` and of the entry with its hash zero, both as
/// they stand on the wire.
///
/// # Errors
/// When the entry cannot be encoded.
pub fn entry_hash(before: &[u8; 32], entry: &AuditEntry) -> Result<[u8; 32], postcard::Error> {
    let mut bare = entry.clone();
    bare.hash = [0; 32];
    let mut hasher = blake3::Hasher::new();
    hasher.update(before);
    hasher.update(&postcard::to_stdvec(&bare)?);
    Ok(*hasher.finalize().as_bytes())
}

impl AuditHead {
    /// What is signed, after [`super::HEAD_CONTEXT`]: the head as it stands on the wire.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn signed_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(self)
    }
}

/// What is signed of revocations, after [`super::REVOCATIONS_CONTEXT`]: the list as it stands on the wire.
///
/// # Errors
/// When it cannot be encoded.
pub fn revocations_signed_bytes(revocations: &[Revocation]) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_stdvec(revocations)
}
