//! The audit and the backup, for admins.

use super::{Desk, note, note_refusal, to_the_end};
use crate::{asker::Asker, audit::follow, backup::Backup, out::Out};
use dora_remote_link::Router;
use dora_remote_protocol::{
    audit::{AuditItem, ListWitnesses, ReadAudit, Witness},
    backup::ReadBackup,
    chunk::Chunk,
    refusal::Refusal,
};
use tokio_util::sync::CancellationToken;

/// Adds the handlers of this file.
pub(super) fn add(router: Router, desk: &Desk) -> Router {
    let (reads, witnesses, backups) = (desk.clone(), desk.clone(), desk.clone());
    router
        .feed(move |context, request: ReadAudit, sink| {
            let (desk, asker) = (reads.clone(), Asker::of(&context));
            async move { read(desk, asker, request, Out::Peer(sink), context.shutdown).await }
        })
        .call(move |context, _: ListWitnesses| list(witnesses.clone(), Asker::of(&context)))
        .feed(move |context, _: ReadBackup, sink| back_up(backups.clone(), Asker::of(&context), Out::Peer(sink)))
}

pub(crate) async fn read(
    desk: Desk,
    asker: Asker,
    request: ReadAudit,
    out: Out<AuditItem>,
    shutdown: CancellationToken,
) -> Result<(), Refusal> {
    let read = follow::serve(&desk.audit, &request, &out, &shutdown).await;
    note_refusal::<ReadAudit, _>(&desk, &asker, &"the audit", &read).await;
    read
}

pub(crate) async fn list(desk: Desk, _asker: Asker) -> Result<Vec<Witness>, Refusal> {
    Ok(desk.witnesses.list().await)
}

/// Changes nothing, and is recorded all the same: a backup is worth stealing.
pub(crate) async fn back_up(desk: Desk, asker: Asker, out: Out<Chunk>) -> Result<(), Refusal> {
    let made = to_the_end(make(desk.clone(), asker.clone())).await?;
    let sent = made.send(&out).await;
    note_refusal::<ReadBackup, _>(&desk, &asker, &RECORDS, &sent).await;
    sent
}

async fn make(desk: Desk, asker: Asker) -> Result<Backup, Refusal> {
    let made = desk.backups.make(&desk).await;
    note::<ReadBackup, _>(&desk, &asker, &RECORDS, &made).await;
    made
}

/// What a backup is of, in the audit.
const RECORDS: &str = "all records";
