//! `audit --verify`: asks daemons what they witness, reads every entry, and checks the one against the other.

use super::{
    READ,
    report::{Report, Witnessing},
};
use crate::{args::Audit, asking::Asking, commands::Context, exit::Exit, failure::Failure, output::progress};
use dora_remote_certs::PinnedRoot;
use dora_remote_link::DialKind;
use dora_remote_protocol::{
    audit::{
        AuditItem, HEAD_CONTEXT, ListWitnesses, ReadAudit, SignedHead, Witness,
        chain::GENESIS,
        verify::{Anchor, Verifier, WitnessedHead},
    },
    limits::ORDER_DEADLINE,
};
use std::{cell::Cell, time::Duration};

/// Checks the audit and says what was found, and what cannot be proven.
///
/// # Errors
/// Exit code 1 when the audit is not what was written; exit code 6 for a root that cannot be used.
pub(super) async fn run(context: &Context, audit: &Audit) -> Result<Exit, Failure> {
    let named = audit.root.as_ref().map(|file| {
        PinnedRoot::read(file)
            .map_err(|error| Failure::of_certificates(&format!("use the root in {}", file.display()), &error).looking())
    });
    let named = named.transpose()?;
    let socket = audit.locally.admin_socket.as_deref();
    context
        .asking(socket, DialKind::Command, async |asking| {
            let (root, epoch) = match asking {
                // The socket shows that this is the coordinator's host, and not which root it answers to.
                Asking::Local(..) => (named, None),
                Asking::Remote(session) => {
                    let welcome = session.peer().await.welcome().await;
                    let welcome = welcome.map_err(|error| Failure::of_call("connect", &error).looking())?;
                    let root = match named {
                        Some(root) => root,
                        None => PinnedRoot::of(&session.credentials()),
                    };
                    (Some(root), Some(welcome.store_epoch))
                }
            };
            let report = check(context, asking, root.as_ref(), epoch).await?;
            report.show(&context.printer)
        })
        .await
}

async fn check(context: &Context, asking: &Asking, root: Option<&PinnedRoot>, epoch: Option<u64>) -> Result<Report, Failure> {
    // Before the entries: a head that is younger than the last entry read would look like an end that was cut off.
    let told = asking
        .call("ask the machines what they witness", &ListWitnesses {}, WITNESS_DEADLINE)
        .await
        .map_err(Failure::looking)?;
    let witnesses: Vec<Witnessing> = told.into_iter().map(|witness| judged(witness, root)).collect();
    let read = Cell::new(0_u64);
    let reading = async {
        let everything = ReadAudit {
            after: 0,
            since_unix_ms: None,
            who: None,
            verb: None,
            follow: false,
        };
        let mut items = asking.feed(READ, &everything).await?;
        let anchor = match items.next().await? {
            Some(AuditItem::Anchor { first_seq, before }) => Anchor { first_seq, before },
            Some(AuditItem::Entry(_)) | None => return Err(Failure::new(Exit::Failed, "the audit came without its beginning")),
        };
        let heads = witnesses.iter().flat_map(|witness| {
            witness.heads.iter().map(|head| WitnessedHead {
                witness: witness.machine.to_string(),
                head: head.clone(),
            })
        });
        let mut verifier = Verifier::new(anchor, heads, epoch);
        let mut last_hash = anchor.before;
        while let Some(item) = items.next().await? {
            if let AuditItem::Entry(entry) = item {
                verifier.entry(&entry);
                last_hash = entry.hash;
                read.set(read.get() + 1);
            }
        }
        Ok((verifier.finish(), last_hash))
    };
    let counting = || format!("checking the audit, {} entries so far", read.get());
    let (verdict, last_hash) = progress::showing(&context.printer, counting, reading).await?;
    Ok(Report {
        verdict,
        last_hash: (last_hash != GENESIS).then_some(last_hash),
        witnesses,
        are_signatures_checked: root.is_some(),
    })
}

/// Keeps the heads that a coordinator of ours has signed; where there is no root to check by, all of them.
fn judged(witness: Witness, root: Option<&PinnedRoot>) -> Witnessing {
    let mut judged = Witnessing {
        machine: witness.machine,
        heads: Vec::new(),
        problems: Vec::new(),
    };
    match witness.heads {
        Err(reason) => judged.problems.push(reason),
        Ok(heads) => {
            for signed in heads {
                match root.map_or(Ok(()), |root| check_signature(&signed, root)) {
                    Ok(()) => judged.heads.push(signed.head),
                    Err(reason) => judged
                        .problems
                        .push(format!("the head at entry {} does not count: {reason}", signed.head.count)),
                }
            }
        }
    }
    judged
}

fn check_signature(signed: &SignedHead, root: &PinnedRoot) -> Result<(), String> {
    let bytes = signed.head.signed_bytes().map_err(|error| error.to_string())?;
    root.verify_coordinator(&signed.chain, HEAD_CONTEXT, &bytes, &signed.signature)
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Time for all machines to tell what they keep; the coordinator gives each of them [`ORDER_DEADLINE`].
const WITNESS_DEADLINE: Duration = ORDER_DEADLINE.saturating_mul(2);
