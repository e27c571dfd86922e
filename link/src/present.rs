//! How many connections each identity has, and the bound on that: per identity, never per address, because many robots may
//! stand behind one NAT.

use dora_remote_protocol::identity::Identity;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// The connections of each identity.
#[derive(Debug, Default)]
pub(crate) struct Present(Mutex<BTreeMap<Identity, usize>>);

impl Present {
    /// A place for one more connection, unless the identity has too many.
    pub(crate) fn take(&self, identity: &Identity) -> Option<Place<'_>> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = places.entry(identity.clone()).or_default();
        if *taken >= MAX_CONNECTIONS_PER_IDENTITY {
            return None;
        }
        *taken += 1;
        Some(Place {
            present: self,
            identity: identity.clone(),
        })
    }
}

/// A place among the connections of one identity; given back when dropped.
pub(crate) struct Place<'a> {
    present: &'a Present,
    identity: Identity,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut places = self.present.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = places.get_mut(&self.identity) {
            *taken -= 1;
            if *taken == 0 {
                places.remove(&self.identity);
            }
        }
    }
}

/// Connections of one identity at once. A script that runs many commands in parallel fits; a loop gone wild does not.
const MAX_CONNECTIONS_PER_IDENTITY: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_only_so_many_places_and_gets_them_back() {
        let identity: Identity = "spiffe://lab/operator/olga".parse().expect("good");
        let other: Identity = "spiffe://lab/operator/otto".parse().expect("good");
        let present = Present::default();
        let mut places: Vec<_> = (0..MAX_CONNECTIONS_PER_IDENTITY)
            .map_while(|_| present.take(&identity))
            .collect();
        assert_eq!(places.len(), MAX_CONNECTIONS_PER_IDENTITY);
        assert!(present.take(&identity).is_none() && present.take(&other).is_some());
        drop(places.pop());
        assert!(present.take(&identity).is_some());
        drop(places);
        assert!(present.0.lock().expect("not poisoned").is_empty());
    }
}
