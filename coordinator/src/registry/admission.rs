//! What everybody may read of the registry without waiting: whom the link lets in, and what is revoked.

use super::Holder;
use dora_remote_certs::{Admission, AdmissionSnapshot};
use dora_remote_protocol::access::{Revocation, RevokeTarget};
use std::{collections::BTreeSet, sync::Arc};
use tokio::sync::watch;

/// The records of one moment, as far as they concern the door.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    snapshot: Arc<AdmissionSnapshot>,
    revocations: Arc<[Revocation]>,
    holders: Arc<BTreeSet<Holder>>,
    serials: Arc<BTreeSet<String>>,
}

impl Published {
    pub(super) fn new(snapshot: AdmissionSnapshot, revocations: Vec<Revocation>) -> Self {
        let mut holders = BTreeSet::new();
        let mut serials = BTreeSet::new();
        for revocation in &revocations {
            match &revocation.target {
                RevokeTarget::Holder { role: Some(role), name } => {
                    holders.insert(Holder::new(*role, name));
                }
                RevokeTarget::Serial(serial) => {
                    serials.insert(serial.clone());
                }
                RevokeTarget::Holder { role: None, .. } => {}
            }
        }
        Self {
            snapshot: Arc::new(snapshot),
            revocations: revocations.into(),
            holders: Arc::new(holders),
            serials: Arc::new(serials),
        }
    }

    /// All revocations, oldest first.
    pub(crate) fn revocations(&self) -> &Arc<[Revocation]> {
        &self.revocations
    }

    /// Tells whether a holder, or one of these certificates, is shut out.
    pub(crate) fn revokes<'a>(&self, holder: &Holder, serials: impl IntoIterator<Item = &'a str>) -> bool {
        self.holders.contains(holder) || serials.into_iter().any(|serial| self.serials.contains(serial))
    }
}

/// Gives the link the newest snapshot.
#[derive(Clone, Debug)]
pub(crate) struct LiveAdmission(pub(super) watch::Receiver<Published>);

impl Admission for LiveAdmission {
    fn snapshot(&self) -> Arc<AdmissionSnapshot> {
        Arc::clone(&self.0.borrow().snapshot)
    }
}
