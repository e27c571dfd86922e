//! What this machine witnesses of its coordinator: ends of the audit's chain, and revocations. A coordinator that forgets, or that
//! was restored from a backup, is found out by what its machines remember.
//!
//! Everything is checked against the pinned root before it is kept, and is kept as it was signed.

mod heads;

pub(crate) use heads::{Contradiction, Heads};

use crate::{
    clock::unix_ms,
    session::Keys,
    store::{RevocationsKept, StoreError},
    store_thread::StoreHandle,
};
use dora_remote_certs::Clock;
use dora_remote_protocol::{
    audit::{HEAD_CONTEXT, REVOCATIONS_CONTEXT, SignedHead, SignedRevocations},
    refusal::{Refusal, RefusalCode},
};
use serde::Serialize;
use std::sync::Arc;
use tracing::{debug, error, info};

/// The witness. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Witness {
    store: StoreHandle,
    keys: Arc<Keys>,
}

impl Witness {
    /// A witness who keeps what he is given in `store`, and knows coordinators by `keys`.
    pub(crate) fn new(store: StoreHandle, keys: Arc<Keys>) -> Self {
        Self { store, keys }
    }

    /// Keeps the end of the audit's chain.
    ///
    /// # Errors
    /// When its signature is not that of a coordinator of ours; nothing was kept then.
    pub(crate) async fn keep_head(&self, head: SignedHead) -> Result<(), Refusal> {
        verify_head(&self.keys, &head).map_err(|reason| refused("the end of the audit", &reason))?;
        let now = unix_ms(self.keys.clock().now());
        let (epoch, count) = (head.head.store_epoch, head.head.count);
        let found = self
            .store
            .once(move |store| store.keep_head(head, now))
            .await
            .map_err(|error| not_kept(&error))?;
        debug!(epoch, count, "the end of the audit is kept");
        if let Some(Contradiction { before, now }) = found {
            error!(
                epoch,
                before,
                now,
                "the coordinator's audit was longer or other than it is now: entries were removed or changed; both ends are kept"
            );
        }
        Ok(())
    }

    /// Keeps the revocations.
    ///
    /// # Errors
    /// As [`Self::keep_head`], and [`RefusalCode::WrongState`] when some are missing that were given before: those are kept then.
    pub(crate) async fn keep_revocations(&self, signed: SignedRevocations) -> Result<(), Refusal> {
        verify_revocations(&self.keys, &signed).map_err(|reason| refused("the revocations", &reason))?;
        let count = signed.revocations.len();
        let keys = Arc::clone(&self.keys);
        let is_ours = move |kept: &SignedRevocations| verify_revocations(&keys, kept).is_ok();
        let kept = self.store.once(move |store| store.keep_revocations(signed, is_ours)).await;
        match kept.map_err(|error| not_kept(&error))? {
            RevocationsKept::Same => Ok(()),
            RevocationsKept::New => {
                info!(count, "the revocations are kept");
                Ok(())
            }
            RevocationsKept::Lacking(lacking) => {
                error!(
                    lacking,
                    "the coordinator has forgotten revocations; the former ones are kept, and told when this machine joins"
                );
                let text = format!("{lacking} of the revocations that this machine keeps are missing");
                Err(Refusal::new(RefusalCode::WrongState, text).hint("have it join again: it tells them then"))
            }
        }
    }

    /// The ends that are kept, oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) async fn heads(&self) -> Result<Vec<SignedHead>, Refusal> {
        let heads = self.store.run(crate::store::Store::heads).await;
        let Heads(kept) = heads.map_err(|error| not_kept(&error))?;
        Ok(kept.into_iter().map(|kept| kept.head).collect())
    }

    /// What a joining machine tells a coordinator whose store is in its life `store_epoch`: the newest end of the audit's chain, and
    /// the revocations if they came in another life. What a former authority of this machine has signed is left out.
    pub(crate) async fn testimony(
        &self,
        store_epoch: u64,
    ) -> Result<(Option<SignedHead>, Option<SignedRevocations>), StoreError> {
        let (head, revocations) = self.store.run(move |store| store.testimony(store_epoch)).await?;
        Ok((
            head.filter(|head| verify_head(&self.keys, head).is_ok()),
            revocations.filter(|revocations| verify_revocations(&self.keys, revocations).is_ok()),
        ))
    }
}

fn verify_head(keys: &Keys, signed: &SignedHead) -> Result<(), String> {
    verify(keys, HEAD_CONTEXT, &signed.head, &signed.chain, &signed.signature)
}

fn verify_revocations(keys: &Keys, signed: &SignedRevocations) -> Result<(), String> {
    verify(
        keys,
        REVOCATIONS_CONTEXT,
        &signed.revocations,
        &signed.chain,
        &signed.signature,
    )
}

fn verify(keys: &Keys, context: &[u8], signed: &impl Serialize, chain: &[Vec<u8>], signature: &[u8]) -> Result<(), String> {
    let message = postcard::to_stdvec(signed).map_err(|error| error.to_string())?;
    let verified = keys.credentials().verify_coordinator(chain, context, &message, signature);
    verified.map(drop).map_err(|error| error.to_string())
}

fn refused(what: &str, reason: &str) -> Refusal {
    error!(what, reason, "refused to keep what no coordinator of ours has signed");
    Refusal::new(RefusalCode::BadRequest, format!("{what} is not kept: {reason}"))
}

fn not_kept(error: &StoreError) -> Refusal {
    Refusal::new(RefusalCode::Internal, error.to_string())
}
