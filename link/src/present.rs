//! How many connections each identity and each invite has, and the bounds on that: never per address, because many robots
//! may stand behind one NAT.

use dora_remote_certs::JoinKey;
use dora_remote_protocol::{identity::Identity, limits::MAX_FRAME_BYTES};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The connections of each holder.
#[derive(Debug, Default)]
pub(crate) struct Present(Mutex<BTreeMap<Holder, Share>>);

/// What all connections of one holder have together.
#[derive(Debug)]
struct Share {
    connections: usize,
    bodies: BodyBudget,
}

/// Bytes of requests that are being read for one holder at once, on all of its connections and streams: more wait for those
/// before them. Without it, a member could make us hold one largest frame for each stream that it may open.
#[derive(Clone, Debug)]
pub(crate) struct BodyBudget(Arc<Semaphore>);

impl BodyBudget {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(BODY_BUDGET_BYTES / BODY_UNIT_BYTES)))
    }

    /// A place for that many bytes, until what is returned is dropped. Cancel safe.
    pub(crate) async fn take(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let units = bytes.min(MAX_FRAME_BYTES).div_ceil(BODY_UNIT_BYTES);
        self.0.acquire_many(u32::try_from(units).ok()?).await.ok()
    }
}

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
        let share = places.entry(holder.clone()).or_insert_with(|| Share {
            connections: 0,
            bodies: BodyBudget::new(),
        });
        if share.connections >= holder.most() {
            return None;
        }
        share.connections += 1;
        let bodies = share.bodies.clone();
        Some(Place {
            present: self,
            holder,
            bodies,
        })
    }
}

/// A place among the connections of one holder; given back when dropped.
pub(crate) struct Place<'a> {
    present: &'a Present,
    holder: Holder,
    bodies: BodyBudget,
}

impl Place<'_> {
    /// The budget that it shares with the other connections of its holder.
    pub(crate) fn bodies(&self) -> &BodyBudget {
        &self.bodies
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut places = self.present.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = places.get_mut(&self.holder) {
            share.connections -= 1;
            if share.connections == 0 {
                places.remove(&self.holder);
            }
        }
    }
}

/// Connections of one identity at once. A script that runs many commands in parallel fits; a loop gone wild does not.
const MAX_CONNECTIONS_PER_IDENTITY: usize = 256;
/// Bytes of [`BodyBudget`]: several of the largest frames, and thousands of usual ones.
const BODY_BUDGET_BYTES: usize = 32 << 20;
/// In what pieces it is counted.
const BODY_UNIT_BYTES: usize = 1 << 10;
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
            assert!(present.take(holder.clone()).is_some());
            drop(places);
            assert!(present.0.lock().expect("not poisoned").is_empty());
        }
    }

    #[tokio::test]
    async fn the_connections_of_a_holder_share_one_budget() {
        let present = Present::default();
        let take = || present.take(Holder::Invite(JoinKey([7; 32]))).expect("a place");
        let (one, other) = (take(), take());
        let mut held = Vec::new();
        for _ in 0..BODY_BUDGET_BYTES / MAX_FRAME_BYTES {
            held.push(one.bodies().take(MAX_FRAME_BYTES).await.expect("open"));
        }
        assert!(other.bodies().0.try_acquire().is_err());
        drop(held.pop());
        assert!(other.bodies().take(1).await.is_some());
    }
}
