//! Daemons as witnesses: each that is connected is given the signed end of the chain and the revocations to keep, and what it kept from
//! earlier tells whether this coordinator's records are older than what it has seen.
//!
//! One task per connected daemon, so that a slow one holds up nobody.

use super::{AuditHandle, signer::Signer};
use crate::{
    moment::Moment,
    registry::{Published, RegistryHandle},
};
use dora_remote_link::{CallError, CloseCode, Peer, Tasks};
use dora_remote_protocol::{
    access::{MAX_REVOCATIONS, Revocation},
    audit::{MAX_WITNESSED_HEADS, SignedHead, SignedRevocations, Witness, chain::Chain},
    coordinator_to_daemon::{KeepHead, KeepRevocations, ShowHeads},
    daemon_to_coordinator::JoinMachine,
    limits::MAX_FRAME_BYTES,
    name::MachineName,
    refusal::RefusalCode,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

/// The connected daemons, as witnesses. Clones are handles.
#[derive(Clone, Debug)]
pub(crate) struct Witnesses(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    audit: AuditHandle,
    registry: RegistryHandle,
    signer: Signer,
    /// By the peer's id.
    peers: Mutex<BTreeMap<u64, Peer>>,
    tasks: Tasks,
}

impl Witnesses {
    pub(crate) fn new(audit: AuditHandle, registry: RegistryHandle, signer: Signer, tasks: Tasks) -> Self {
        Self(Arc::new(Inner {
            audit,
            registry,
            signer,
            peers: Mutex::default(),
            tasks,
        }))
    }

    /// Looks at what a daemon kept from earlier, before its machine is used: why these records are older than what it has seen, and what it
    /// knows of revocations; nothing when they are not.
    pub(crate) async fn examine(&self, machine: &MachineName, request: &JoinMachine) -> Option<(String, Vec<Revocation>)> {
        let revocations = match &request.revocations {
            Some(kept) => self.0.believed(machine, kept),
            None => Vec::new(),
        };
        let forgotten = self.0.forgotten(&revocations);
        let lost = match &request.witnessed {
            Some(head) => self.0.contradiction(machine, head).await,
            None => None,
        };
        if lost.is_none() && forgotten == 0 {
            return None;
        }
        let why = lost.unwrap_or_else(|| format!("machine `{machine}` keeps {forgotten} revocations that are forgotten here"));
        tracing::error!(
            %machine,
            forgotten,
            why,
            "THE RECORDS OF THIS COORDINATOR ARE OLDER THAN WHAT A DAEMON HAS WITNESSED: they were restored from a backup, or tampered with; \
             open invites are void and lapsed daemons cannot recover until `dora-remote coordinator accept-restore`"
        );
        Some((why, revocations))
    }

    /// A daemon is in use: it is told of the end of the chain and of revocations from now on, until its connection ends.
    pub(crate) fn joined(&self, peer: Peer) {
        let this = Arc::clone(&self.0);
        let token = this.tasks.token().clone();
        this.peers().insert(peer.id(), peer.clone());
        let tasks = this.tasks.clone();
        tasks.spawn("witness", async move {
            this.attend(&peer, &token).await;
            this.peers().remove(&peer.id());
        });
    }

    /// Asks every connected daemon what it witnesses. Of many daemons each tells less, so that the answer fits into a frame.
    pub(crate) async fn list(&self) -> Vec<Witness> {
        let peers: Vec<_> = self.0.peers().values().cloned().collect();
        let each = heads_each(peers.len());
        let at_once = Arc::new(Semaphore::new(ASKED_AT_ONCE));
        let mut asking = JoinSet::new();
        for peer in peers {
            let at_once = Arc::clone(&at_once);
            asking.spawn(async move {
                let machine = peer.identity().name.clone();
                if each == 0 {
                    let heads = Err("not asked: too many machines are connected".to_owned());
                    return Witness { machine, heads };
                }
                let _permit = at_once.acquire().await;
                let heads = peer.call(&ShowHeads {}, ASK_DEADLINE).await;
                Witness {
                    machine,
                    heads: heads.map(|heads| thin_out(heads, each)).map_err(|error| error.to_string()),
                }
            });
        }
        let mut witnesses = Vec::new();
        while let Some(asked) = asking.join_next().await {
            witnesses.extend(asked.ok());
        }
        witnesses.sort_by(|a, b| a.machine.cmp(&b.machine));
        witnesses
    }
}

impl Inner {
    fn peers(&self) -> MutexGuard<'_, BTreeMap<u64, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The revocations that a daemon kept, if a coordinator of ours has signed them.
    fn believed(&self, machine: &MachineName, kept: &SignedRevocations) -> Vec<Revocation> {
        match self.signer.check_revocations(kept) {
            Ok(()) => kept.revocations.clone(),
            Err(error) => {
                tracing::warn!(%machine, %error, "a daemon keeps revocations that no coordinator of ours has signed");
                Vec::new()
            }
        }
    }

    /// How many of these are not known here.
    fn forgotten(&self, revocations: &[Revocation]) -> usize {
        if revocations.is_empty() {
            return 0;
        }
        let published = self.registry.published();
        let known: BTreeSet<_> = published.revocations().iter().map(|it| &it.target).collect();
        revocations.iter().filter(|it| !known.contains(&it.target)).count()
    }

    /// What a head that a daemon kept says against this audit, unless a restore that is known explains it.
    async fn contradiction(&self, machine: &MachineName, signed: &SignedHead) -> Option<String> {
        if let Err(error) = self.signer.check_head(signed) {
            tracing::warn!(%machine, %error, "a daemon keeps an end of the audit that no coordinator of ours has signed");
            return None;
        }
        let head = &signed.head;
        let here = self.audit.end().borrow().last_seq();
        let found = if head.count > here {
            format!(
                "machine `{machine}` has witnessed {} entries of the audit, and there are {here} here",
                head.count
            )
        } else {
            let entry = match self.audit.entry(head.count).await {
                Ok(entry) => entry?,
                Err(refusal) => {
                    tracing::error!(reason = %refusal, "cannot compare the audit with what a daemon has witnessed");
                    return None;
                }
            };
            if entry.hash == head.hash {
                return None;
            }
            format!("machine `{machine}` has witnessed another entry {} of the audit", head.count)
        };
        let settled = self.audit.settled_unix_ms().await.unwrap_or_default();
        (head.at_unix_ms > settled).then_some(found)
    }

    /// Tells one daemon, at once and whenever there is something new.
    async fn attend(&self, peer: &Peer, shutdown: &CancellationToken) {
        let mut changes = self.registry.changes();
        let mut end = self.audit.end();
        let mut told = None;
        loop {
            let published = changes.borrow_and_update().clone();
            // They only ever become more. None are told too: a daemon that knows some says so.
            let count = published.revocations().len();
            if told != Some(count) {
                match self.tell_revocations(peer, &published).await {
                    Ok(()) => told = Some(count),
                    Err(CallError::Refused(refusal)) if refusal.code == RefusalCode::WrongState && count < MAX_REVOCATIONS => {
                        tracing::error!(peer = %peer.identity(), reason = %refusal, "a daemon knows revocations that are forgotten here");
                        // It tells them when it joins.
                        peer.close(CloseCode::Done, "join again and tell the revocations");
                        return;
                    }
                    Err(error) => tracing::debug!(peer = %peer.identity(), %error, "a daemon did not take the revocations"),
                }
            }
            let present = *end.borrow_and_update();
            if let Err(error) = self.tell_head(peer, present).await {
                tracing::debug!(peer = %peer.identity(), %error, "a daemon did not take the end of the audit");
            }
            let is_few = self.peers().len() <= FEW;
            let entries = async {
                match is_few {
                    true if end.changed().await.is_ok() => sleep(SOON).await,
                    _ => std::future::pending().await,
                }
            };
            let something = async {
                tokio::select! {
                    // The registry lives as long as this does. A revocation never waits for entries to be told with it.
                    _ = changes.changed() => {}
                    () = entries => {}
                    () = sleep(EVERY) => {}
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = peer.closed() => return,
                () = something => {}
            }
        }
    }

    async fn tell_head(&self, peer: &Peer, end: Chain) -> Result<(), CallError> {
        match self.signer.head(end, Moment::now().unix_ms) {
            Ok(head) => peer.call(&KeepHead { head }, ASK_DEADLINE).await,
            Err(error) => {
                tracing::error!(%error, "cannot sign the end of the audit");
                Ok(())
            }
        }
    }

    async fn tell_revocations(&self, peer: &Peer, published: &Published) -> Result<(), CallError> {
        match self.signer.revocations(published) {
            Ok(revocations) => peer.call(&KeepRevocations { revocations }, ASK_DEADLINE).await,
            Err(error) => {
                tracing::error!(%error, "cannot sign the revocations");
                Ok(())
            }
        }
    }
}

/// Heads that each of so many daemons may tell.
fn heads_each(daemons: usize) -> usize {
    let room = (MAX_FRAME_BYTES - (64 << 10)) / HEAD_BYTES;
    room.checked_div(daemons).unwrap_or_default().min(MAX_WITNESSED_HEADS)
}

/// Keeps the newest and the oldest head and some of those between.
fn thin_out(mut heads: Vec<SignedHead>, most: usize) -> Vec<SignedHead> {
    while heads.len() > most {
        let between = if heads.len() > 2 { heads.len() / 2 } else { 0 };
        heads.remove(between);
    }
    heads
}

/// Interval at which each daemon is told of the end of the chain.
const EVERY: Duration = Duration::from_secs(60);
/// Wait after a change before few daemons are told, so that several changes are told together.
const SOON: Duration = Duration::from_secs(2);
/// Daemons up to which each is told soon after a change, and not only every minute.
const FEW: usize = 32;
/// Time for a daemon to answer.
const ASK_DEADLINE: Duration = Duration::from_secs(5);
/// Daemons that are asked at once.
const ASKED_AT_ONCE: usize = 256;
/// Bytes of one head with its chain of two certificates, generously.
const HEAD_BYTES: usize = 2_560;

#[cfg(test)]
mod tests {
    use super::*;
    use dora_remote_protocol::audit::AuditHead;

    #[test]
    fn what_many_daemons_tell_fits_into_a_frame() {
        assert_eq!((heads_each(0), heads_each(1), heads_each(60)), (0, 25, 25));
        for daemons in [100, 500, 1_000, 1_600] {
            assert!(heads_each(daemons) > 0);
            assert!(heads_each(daemons) * daemons * HEAD_BYTES < MAX_FRAME_BYTES);
        }
        assert_eq!(heads_each(20_000), 0);
    }

    #[test]
    fn the_newest_head_is_told_whatever_goes() {
        let head = |count| SignedHead {
            head: AuditHead {
                store_epoch: 1,
                count,
                hash: [0; 32],
                at_unix_ms: 0,
            },
            chain: Vec::new(),
            signature: Vec::new(),
        };
        let heads: Vec<_> = (1..=25).map(head).collect();
        for most in [1, 2, 3, 10, 25, 30] {
            let thin = thin_out(heads.clone(), most);
            assert_eq!(thin.len(), most.min(25));
            assert_eq!(thin.last().map(|it| it.head.count), Some(25));
        }
    }
}
