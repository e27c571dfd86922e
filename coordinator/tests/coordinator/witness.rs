//! A daemon that keeps what it is given to witness, and readers of the audit.

use crate::{
    joining::address,
    support::{PATIENCE, Person, World, next, soon},
};
use dora_remote_certs::Credentials;
use dora_remote_link::{Feed, Peer, Router};
use dora_remote_protocol::{
    audit::{
        AuditEntry, AuditItem, HEAD_CONTEXT, ListWitnesses, ReadAudit, SignedHead, SignedRevocations,
        verify::{Anchor, Verdict, WitnessedHead, verify},
    },
    coordinator_to_daemon::{KeepHead, KeepRevocations, Ping, ShowHeads},
    daemon_to_coordinator::{JoinMachine, Joined},
    dataflow::Labels,
    identity::Role,
    ids::InstanceId,
    machine::{EngineStatus, LogShipping, MachineFacts},
    refusal::{Refusal, RefusalCode},
};
use std::{net::SocketAddr, sync::Arc};
use tokio::sync::watch;
use uuid::Uuid;

/// What a daemon has kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    pub(crate) heads: Vec<SignedHead>,
    pub(crate) revocations: Option<SignedRevocations>,
    /// The life of the store that knows them; none when it is not certain that one does.
    epoch: Option<u64>,
}

/// A daemon that keeps what it is told to, over its connections.
#[derive(Clone)]
pub(crate) struct Robot {
    instance: InstanceId,
    pub(crate) kept: Arc<watch::Sender<Kept>>,
}

/// Its connection.
pub(crate) struct Connected {
    pub(crate) peer: Peer,
    _dialer: dora_remote_link::Dialer,
}

impl Robot {
    pub(crate) fn new() -> Self {
        Self {
            instance: InstanceId(Uuid::new_v4()),
            kept: Arc::new(watch::Sender::default()),
        }
    }

    /// Joins as machine `a`, and says what it has witnessed if it is to.
    pub(crate) async fn join(&self, world: &World, at: SocketAddr, testifies: bool) -> Connected {
        let (heads, revocations, shows) = (Arc::clone(&self.kept), Arc::clone(&self.kept), Arc::clone(&self.kept));
        let router = Router::new()
            .call(move |_, order: KeepHead| {
                heads.send_modify(|kept| kept.heads.push(order.head));
                std::future::ready(Ok(()))
            })
            .call(move |_, order: KeepRevocations| {
                let mut lacks = false;
                revocations.send_modify(|kept| {
                    let count = |signed: &SignedRevocations| signed.revocations.len();
                    lacks = kept
                        .revocations
                        .as_ref()
                        .is_some_and(|old| count(old) > count(&order.revocations));
                    if lacks {
                        kept.epoch = None;
                    } else {
                        kept.revocations = Some(order.revocations);
                    }
                });
                let refusal = Refusal::new(RefusalCode::WrongState, "some are missing");
                std::future::ready(if lacks { Err(refusal) } else { Ok(()) })
            })
            .call(move |_, _: ShowHeads| std::future::ready(Ok(shows.borrow().heads.clone())))
            .call(|_, _: Ping| std::future::ready(Ok(())));
        let dialer = world.dialer(Role::Daemon, "a", self.instance);
        let peer = soon("a connection", dialer.dial_with_router(&address(at), router))
            .await
            .unwrap();
        let epoch = Some(peer.welcome().await.unwrap().store_epoch);
        let mut kept = self.kept.borrow().clone();
        let knows = kept.epoch == epoch;
        self.kept.send_modify(|kept| kept.epoch = epoch);
        let request = JoinMachine {
            facts: MachineFacts {
                labels: Labels::new(),
                build: "test".to_owned(),
                platform: "linux x86_64".to_owned(),
                engine: EngineStatus::Starting,
                logs: LogShipping::Always,
            },
            runs: Vec::new(),
            last_seq: 0,
            witnessed: kept
                .heads
                .iter()
                .max_by_key(|it| it.head.count)
                .filter(|_| testifies)
                .cloned(),
            revocations: kept.revocations.take().filter(|_| testifies && !knows),
        };
        let _: Joined = peer.call(&request, PATIENCE).await.unwrap();
        Connected { peer, _dialer: dialer }
    }

    /// Waits until it keeps what is wanted.
    pub(crate) async fn keeps(&self, what: &str, is_wanted: impl Fn(&Kept) -> bool) -> Kept {
        let mut kept = self.kept.subscribe();
        let waiting = async { kept.wait_for(is_wanted).await.unwrap().clone() };
        soon(what, waiting).await
    }
}

/// Everything that is on record, as far as a request wants it.
pub(crate) fn everything() -> ReadAudit {
    ReadAudit {
        after: 0,
        since_unix_ms: None,
        who: None,
        verb: None,
        follow: false,
    }
}

/// Reads to the end.
pub(crate) async fn read(admin: &Person, request: &ReadAudit) -> (Anchor, Vec<AuditEntry>) {
    let mut feed = admin.peer.feed(request, None).await.unwrap();
    let anchor = anchor(&mut feed).await;
    let mut entries = Vec::new();
    while let Some(item) = next(&mut feed).await.unwrap() {
        entries.push(entry(item));
    }
    (anchor, entries)
}

pub(crate) async fn anchor(feed: &mut Feed<AuditItem>) -> Anchor {
    match next(feed).await.unwrap() {
        Some(AuditItem::Anchor { first_seq, before }) => Anchor { first_seq, before },
        other => panic!("the anchor comes first, not {other:?}"),
    }
}

pub(crate) fn entry(item: AuditItem) -> AuditEntry {
    match item {
        AuditItem::Entry(entry) => entry,
        AuditItem::Anchor { .. } => panic!("only one anchor"),
    }
}

/// Does what `audit --verify` does: heads first, each with a good signature, then the chain.
pub(crate) async fn judge(admin: &Person, trusted: &Credentials) -> Verdict {
    let witnesses = admin.ask(ListWitnesses {}).await.unwrap();
    let mut heads = Vec::new();
    for witness in witnesses {
        for signed in witness.heads.unwrap() {
            let bytes = signed.head.signed_bytes().unwrap();
            let signer = trusted
                .verify_coordinator(&signed.chain, HEAD_CONTEXT, &bytes, &signed.signature)
                .unwrap();
            assert_eq!(signer.identity.role, Role::Coordinator);
            heads.push(WitnessedHead {
                witness: witness.machine.to_string(),
                head: signed.head,
            });
        }
    }
    let (anchor, entries) = read(admin, &everything()).await;
    let epoch = admin.peer.welcome().await.unwrap().store_epoch;
    verify(anchor, &entries, heads, Some(epoch))
}
