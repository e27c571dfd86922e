//! How many connections each identity and each invite has, and the bounds on that: never per address, because many robots
//! may stand behind one NAT.

use dora_remote_certs::JoinKey;
use dora_remote_protocol::identity::Identity;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// The connections of each holder.
#[derive(Debug, Default)]
pub(crate) struct Present(Mutex<BTreeMap<Holder, usize>>);

/// Whose connections are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// One who has shown a certificate of ours.
    Identity(Identity),
    /// Whoever holds an invite. Not counted against the invited, who may be there already.
    Invite(JoinKey),
}

impl Holder {
    const fn most(&self) -> usize {
        match self {
            Self::Identity(_) => MAX_CONNECTIONS_PER_IDENTITY,
            Self::Invite(_) => MAX_CONNECTIONS_PER_INVITE,
        }
    }
}

impl Present {
    /// A place for one more connection, unless the holder has too many.
    pub(crate) fn take(&self, holder: Holder) -> Option<Place<'_>> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = places.entry(holder.clone()).or_default();
        if *taken >= holder.most() {
            return None;
        }
        *taken += 1;
        Some(Place { present: self, holder })
    }
}

/// A place among the connections of one holder; given back when dropped.
pub(crate) struct Place<'a> {
    present: &'a Present,
    holder: Holder,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut places = self.present.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = places.get_mut(&self.holder) {
            *taken -= 1;
            if *taken == 0 {
                places.remove(&self.holder);
            }
        }
    }
}

/// Connections of one identity at once. A script that runs many commands in parallel fits; a loop gone wild does not.
const MAX_CONNECTIONS_PER_IDENTITY: usize = 256;
/// Connections with one invite at once: a joiner dials once, and again when a reply is lost.
const MAX_CONNECTIONS_PER_INVITE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_has_only_so_many_places_and_gets_them_back() {
        let holder = |name: &str| Holder::Identity(name.parse().expect("good"));
        let other = holder("spiffe://lab/operator/otto");
        for (holder, most) in [
            (holder("spiffe://lab/operator/olga"), MAX_CONNECTIONS_PER_IDENTITY),
            (Holder::Invite(JoinKey([7; 32])), MAX_CONNECTIONS_PER_INVITE),
        ] {
            let present = Present::default();
            let mut places: Vec<_> = (0..1_000).map_while(|_| present.take(holder.clone())).collect();
            assert_eq!(places.len(), most);
            assert!(present.take(holder.clone()).is_none() && present.take(other.clone()).is_some());
            drop(places.pop());
            assert!(present.take(holder).is_some());
            drop(places);
            assert!(present.0.lock().expect("not poisoned").is_empty());
        }
    }
}
