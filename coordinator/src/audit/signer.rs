//! Signs the end of the audit's chain and the list of revocations, so that daemons can keep them for others to check.
//!
//! What was signed a moment ago is used again: a thousand daemons are told with one signature.

use crate::registry::Published;
use dora_remote_certs::{CertError, Credentials};
use dora_remote_protocol::{
    access::Revocation,
    audit::{
        AuditHead, HEAD_CONTEXT, REVOCATIONS_CONTEXT, SignedHead, SignedRevocations,
        chain::{Chain, revocations_signed_bytes},
    },
};
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;
use tokio::sync::watch;

/// Signs with the certificate that the coordinator has at the moment.
#[derive(Debug)]
pub(crate) struct Signer {
    credentials: watch::Receiver<Credentials>,
    store_epoch: u64,
    head: Mutex<Option<SignedHead>>,
    revocations: Mutex<Option<(Arc<[Revocation]>, SignedRevocations)>>,
}

impl Signer {
    pub(crate) fn new(credentials: watch::Receiver<Credentials>, store_epoch: u64) -> Self {
        Self {
            credentials,
            store_epoch,
            head: Mutex::default(),
            revocations: Mutex::default(),
        }
    }

    /// Signs this end of the chain.
    pub(crate) fn head(&self, end: Chain, now_unix_ms: u64) -> Result<SignedHead, SignError> {
        let mut latest = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signed) = &*latest {
            let age = now_unix_ms.checked_sub(signed.head.at_unix_ms);
            if signed.head.count == end.last_seq() && signed.head.hash == end.hash() && age.is_some_and(|age| age < FRESH_MS) {
                return Ok(signed.clone());
            }
        }
        let head = AuditHead {
            store_epoch: self.store_epoch,
            count: end.last_seq(),
            hash: end.hash(),
            at_unix_ms: now_unix_ms,
        };
        let credentials = self.credentials.borrow().clone();
        let signature = credentials.sign(HEAD_CONTEXT, &head.signed_bytes()?)?;
        let signed = SignedHead {
            head,
            chain: credentials.chain_der(),
            signature,
        };
        *latest = Some(signed.clone());
        Ok(signed)
    }

    /// Signs all revocations. Reasons are left out when the list would not fit into a frame with them.
    pub(crate) fn revocations(&self, published: &Published) -> Result<SignedRevocations, SignError> {
        let all = published.revocations();
        let mut latest = self.revocations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, signed)) = &*latest
            && Arc::ptr_eq(of, all)
        {
            return Ok(signed.clone());
        }
        let mut list = all.to_vec();
        let mut bytes = revocations_signed_bytes(&list)?;
        if bytes.len() > MAX_LIST_BYTES {
            for revocation in &mut list {
                revocation.reason.clear();
            }
            bytes = revocations_signed_bytes(&list)?;
        }
        let credentials = self.credentials.borrow().clone();
        let signed = SignedRevocations {
            revocations: list,
            chain: credentials.chain_der(),
            signature: credentials.sign(REVOCATIONS_CONTEXT, &bytes)?,
        };
        *latest = Some((Arc::clone(all), signed.clone()));
        Ok(signed)
    }

    /// Sees that a head was signed by a coordinator of our trust domain.
    pub(crate) fn check_head(&self, signed: &SignedHead) -> Result<(), SignError> {
        let bytes = signed.head.signed_bytes()?;
        let credentials = self.credentials.borrow().clone();
        credentials.verify_coordinator(&signed.chain, HEAD_CONTEXT, &bytes, &signed.signature)?;
        Ok(())
    }

    /// Sees that revocations were signed by a coordinator of our trust domain.
    pub(crate) fn check_revocations(&self, signed: &SignedRevocations) -> Result<(), SignError> {
        let bytes = revocations_signed_bytes(&signed.revocations)?;
        let credentials = self.credentials.borrow().clone();
        credentials.verify_coordinator(&signed.chain, REVOCATIONS_CONTEXT, &bytes, &signed.signature)?;
        Ok(())
    }
}

/// Why something cannot be signed, or a signature is not good.
#[derive(Debug, Error)]
pub(crate) enum SignError {
    #[error(transparent)]
    Certificate(#[from] CertError),
    #[error("it cannot be encoded: {0}")]
    Encode(#[from] postcard::Error),
}

/// Age up to which a signature over the same end is used again, in milliseconds.
const FRESH_MS: u64 = 30_000;
/// Bytes of a list of revocations above which their reasons are left out; an order must fit into a frame.
const MAX_LIST_BYTES: usize = 3 << 20;
