//! Who is connected: so that those who are shut out are gone at once, and everybody can see how many connections an identity has.

use crate::{
    asker::Asker,
    audit::{AuditHandle, Draft},
    registry::{Holder, Published, RegistryHandle},
};
use dora_remote_certs::{JoinKey, facts::info_of};
use dora_remote_link::{CloseCode, CloseReason, Peer, PeerWatcher, RefusedCommand, Rights};
use dora_remote_protocol::refusal::RefusalCode;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The live connections. Clones are handles.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster(Arc<Mutex<BTreeMap<u64, Live>>>);

/// One connection.
#[derive(Debug)]
struct Live {
    peer: Peer,
    who: Who,
    /// Commands on it that may shut out its own holder. While there are some, it is not closed but noted as doomed.
    spared: u32,
    doomed: bool,
}

/// By what a connection is known.
#[derive(Debug)]
enum Who {
    Invited(JoinKey),
    Holder {
        holder: Holder,
        /// Of the certificate that was shown, of the one that signed it, and of those that were issued on the connection.
        serials: Vec<String>,
    },
}

impl Roster {
    /// Notes that a peer has come; closes it if it was shut out between its handshake and now, when the others were closed.
    pub(crate) fn add(&self, peer: &Peer, published: impl FnOnce() -> Published) {
        let who = match peer.rights() {
            Rights::JoinOnly(key) => Who::Invited(key),
            Rights::Full | Rights::RenewOnly => {
                let issuing = peer.chain().get(1).and_then(|certificate| info_of(certificate).ok());
                let own = peer.certificate().serial.clone();
                Who::Holder {
                    holder: Holder::of(peer.identity()),
                    serials: std::iter::once(own).chain(issuing.map(|info| info.serial)).collect(),
                }
            }
        };
        let known = match &who {
            Who::Invited(_) => None,
            Who::Holder { holder, serials } => Some((holder.clone(), serials.clone())),
        };
        let live = Live {
            peer: peer.clone(),
            who,
            spared: 0,
            doomed: false,
        };
        self.lock().insert(peer.id(), live);
        // Read only now: whoever revokes from here on finds this connection.
        if let Some((holder, serials)) = known
            && published().revokes(&holder, serials.iter().map(String::as_str))
        {
            peer.close(CloseCode::Revoked, REVOKED);
        }
    }

    /// Notes that a peer is gone.
    pub(crate) fn remove(&self, peer: &Peer) {
        self.lock().remove(&peer.id());
    }

    /// Notes that a certificate was issued on a connection: when it is revoked, the connection ends too.
    pub(crate) fn renewed(&self, connection: u64, serial: String) {
        if let Some(Live {
            who: Who::Holder { serials, .. },
            ..
        }) = self.lock().get_mut(&connection)
        {
            // The shown one, its issuer and the latest ones: no more is needed, however long a connection lives.
            if serials.len() >= MAX_SERIALS {
                serials.remove(2);
            }
            serials.push(serial);
        }
    }

    /// Puts off the end of a connection whose holder may be about to shut out itself, so that it reads the answer.
    pub(crate) fn spare(&self, connection: u64) {
        if let Some(live) = self.lock().get_mut(&connection) {
            live.spared += 1;
        }
    }

    /// Ends a connection that was spared, if it was to end meanwhile.
    pub(crate) fn spare_no_more(&self, connection: u64) {
        let doomed = match self.lock().get_mut(&connection) {
            Some(live) => {
                live.spared = live.spared.saturating_sub(1);
                (live.doomed && live.spared == 0).then(|| live.peer.clone())
            }
            None => None,
        };
        if let Some(peer) = doomed {
            peer.close(CloseCode::Revoked, REVOKED);
        }
    }

    /// Closes every connection of those who are shut out, and gives their number.
    pub(crate) fn shut_out(&self, published: &Published) -> u64 {
        if published.revocations().is_empty() {
            return 0;
        }
        self.close(REVOKED, |who| match who {
            Who::Invited(_) => false,
            Who::Holder { holder, serials } => published.revokes(holder, serials.iter().map(String::as_str)),
        })
    }

    /// Closes every connection that came with one of these invites, and gives their number.
    pub(crate) fn void(&self, invites: &BTreeSet<JoinKey>) -> u64 {
        if invites.is_empty() {
            return 0;
        }
        self.close("the invite was taken back", |who| match who {
            Who::Invited(key) => invites.contains(key),
            Who::Holder { .. } => false,
        })
    }

    /// Connections by holder.
    pub(crate) fn counts(&self) -> BTreeMap<Holder, u64> {
        let mut counts = BTreeMap::new();
        for live in self.lock().values() {
            if let Who::Holder { holder, .. } = &live.who {
                *counts.entry(holder.clone()).or_default() += 1;
            }
        }
        counts
    }

    fn close(&self, reason: &str, is_meant: impl Fn(&Who) -> bool) -> u64 {
        let mut count = 0;
        let mut meant: Vec<Peer> = Vec::new();
        for live in self.lock().values_mut() {
            if !is_meant(&live.who) || live.peer.is_closed() || live.doomed {
                continue;
            }
            count += 1;
            if live.spared == 0 {
                meant.push(live.peer.clone());
            } else {
                live.doomed = true;
            }
        }
        for peer in &meant {
            peer.close(CloseCode::Revoked, reason);
        }
        count
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Live>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hears of the link who comes and goes, and what was refused before a handler saw it.
pub(crate) struct Watcher {
    pub(crate) roster: Roster,
    pub(crate) registry: RegistryHandle,
    pub(crate) audit: AuditHandle,
}

impl PeerWatcher for Watcher {
    fn arrived(&self, peer: Peer) {
        self.roster.add(&peer, || self.registry.published());
        if peer.rights() == Rights::Full {
            self.registry.arrived(peer.certificate());
        }
    }

    fn left(&self, peer: &Peer, _reason: &CloseReason) {
        self.roster.remove(peer);
    }

    fn refused(&self, peer: &Peer, command: &RefusedCommand) {
        if command.refusal.code == RefusalCode::ShuttingDown {
            return;
        }
        let asker = Asker::of_peer(peer, command.header.request_id);
        let refused: Result<(), _> = Err(command.refusal.clone());
        let verb = command.name.unwrap_or("an unknown verb");
        self.audit
            .refused(Draft::new(&asker, verb, command.header.verb).result(&refused));
    }
}

const REVOKED: &str = "the certificate was revoked";
/// Serials that one connection is known by.
const MAX_SERIALS: usize = 8;
