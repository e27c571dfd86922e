//! One reader of the audit: the past, then what comes. It waits for its own stream alone, and reads from the file, so that however slow it
//! is, nobody waits for it.

use super::{AuditHandle, ledger::Filter};
use crate::out::Out;
use dora_remote_protocol::{
    audit::{AuditItem, ReadAudit},
    refusal::{Refusal, RefusalCode},
};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Sends what was asked for; a follower until it goes away or this side ends.
pub(crate) async fn serve(
    audit: &AuditHandle,
    request: &ReadAudit,
    out: &Out<AuditItem>,
    shutdown: &CancellationToken,
) -> Result<(), Refusal> {
    let filter = Arc::new(Filter {
        since_unix_ms: request.since_unix_ms,
        who: request.who.as_ref().map(|who| who.to_lowercase()),
        verb: request.verb.clone(),
    });
    // Taken before the first look at the file, so that nothing is missed between the look and the wait.
    let mut end = audit.end();
    let mut cursor = request.after;
    let mut is_first = true;
    loop {
        end.borrow_and_update();
        let page = audit.read(cursor, &filter).await?;
        if std::mem::take(&mut is_first) {
            let anchor = AuditItem::Anchor {
                first_seq: page.anchor.first_seq,
                before: page.anchor.before,
            };
            if out.send(anchor).await.is_err() {
                return Ok(());
            }
        } else if page.anchor.first_seq > cursor + 1 && !page.entries.is_empty() {
            return Err(Refusal::new(
                RefusalCode::Busy,
                "the oldest entries of the audit were given up while they were read",
            )
            .hint("read again"));
        }
        cursor = page.next_after;
        for entry in page.entries {
            if out.send(AuditItem::Entry(entry)).await.is_err() {
                return Ok(());
            }
        }
        if !page.at_end {
            continue;
        }
        if !request.follow {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Err(Refusal::new(RefusalCode::ShuttingDown, "the coordinator is ending")),
            () = out.gone() => return Ok(()),
            // The writer lives as long as the handle.
            _ = end.changed() => {}
        }
    }
}
