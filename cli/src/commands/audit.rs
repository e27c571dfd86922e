//! `audit`: who did what and when, listed or followed, and the check that nobody has changed it.

mod report;
mod verify;

use super::Context;
use crate::{
    args::Audit,
    asking::Asking,
    exit::Exit,
    failure::Failure,
    output::{Printer, audit::Entries},
};
use dora_remote_link::DialKind;
use dora_remote_protocol::audit::{AuditEntry, AuditItem, ReadAudit};

/// Lists, follows or checks the audit.
///
/// # Errors
/// See [`crate::asking::Asking`]; exit code 1 when a check finds that the audit was changed.
pub async fn run(context: &Context, audit: &Audit) -> Result<Exit, Failure> {
    let kind = if audit.follow { DialKind::Follow } else { DialKind::Command };
    let socket = audit.locally.admin_socket.as_deref();
    if audit.verify {
        return verify::run(context, audit).await;
    }
    context
        .asking(socket, kind, async |asking| show(context, asking, audit).await)
        .await
}

async fn show(context: &Context, asking: &Asking, audit: &Audit) -> Result<Exit, Failure> {
    let since_unix_ms = match audit.since {
        None => None,
        // The entries carry the coordinator's time, so it is that clock that counts.
        Some(since) => Some(since.unix_ms(asking.now_unix_ms().await?)),
    };
    let request = ReadAudit {
        after: 0,
        since_unix_ms,
        who: audit.who.clone(),
        verb: audit.verb.clone(),
        follow: audit.follow,
    };
    let mut shown = Shown::new(&context.printer, audit.follow);
    asking
        .follow(READ, request, async |item, request: &mut ReadAudit| {
            shown.take(item, request);
            shown.flush(false).await
        })
        .await?;
    shown.flush(true).await?;
    if !shown.any {
        context.printer.note("there are no such entries");
    }
    Ok(Exit::Ok)
}

/// Shows entries as they come; those of a mere listing in batches, so that columns find their width.
struct Shown {
    printer: Printer,
    entries: Entries,
    waiting: Vec<AuditEntry>,
    batch: usize,
    any: bool,
}

impl Shown {
    fn new(printer: &Printer, follow: bool) -> Self {
        Self {
            printer: printer.clone(),
            entries: Entries::new(printer),
            waiting: Vec::new(),
            batch: if follow { 1 } else { BATCH },
            any: false,
        }
    }

    /// Takes one item and moves the cursor behind it.
    fn take(&mut self, item: AuditItem, request: &mut ReadAudit) {
        match item {
            AuditItem::Anchor { first_seq, .. } => {
                // After a cut, entries that are not kept any more may have been missed; at the start, none was promised.
                if request.after > 0 && first_seq > request.after + 1 {
                    self.printer.warn(&format!(
                        "entries {} to {} are not kept any more and may be missing here",
                        request.after + 1,
                        first_seq - 1
                    ));
                }
            }
            // What was shown before a cut is not shown again.
            AuditItem::Entry(entry) if entry.seq > request.after => {
                request.after = entry.seq;
                self.waiting.push(entry);
            }
            AuditItem::Entry(_) => {}
        }
    }

    async fn flush(&mut self, all: bool) -> Result<(), Failure> {
        if self.waiting.is_empty() || (!all && self.waiting.len() < self.batch) {
            return Ok(());
        }
        self.any = true;
        let chunk = self.entries.render(&self.waiting);
        self.waiting.clear();
        Ok(self.printer.chunk(chunk).await?)
    }
}

/// What is done, for failures.
const READ: &str = "read the audit";
/// Entries whose columns are made equally wide.
const BATCH: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    fn entry(seq: u64) -> AuditItem {
        AuditItem::Entry(AuditEntry {
            seq,
            at_unix_ms: 0,
            who: "ann".to_owned(),
            serial: String::new(),
            from: String::new(),
            verb: "stop".to_owned(),
            target: String::new(),
            result: "ok".to_owned(),
            detail: String::new(),
            request_id: String::new(),
            hash: [0; 32],
        })
    }

    #[test]
    fn after_a_cut_no_entry_is_shown_twice() {
        let mut shown = Shown::new(&Printer::new(Format::Json, true), true);
        let mut request = ReadAudit {
            after: 0,
            since_unix_ms: None,
            who: None,
            verb: None,
            follow: true,
        };
        for item in [
            AuditItem::Anchor {
                first_seq: 4,
                before: [0; 32],
            },
            entry(4),
            entry(7),
            AuditItem::Anchor {
                first_seq: 6,
                before: [0; 32],
            },
            entry(7),
            entry(8),
        ] {
            shown.take(item, &mut request);
        }
        let seqs: Vec<_> = shown.waiting.iter().map(|entry| entry.seq).collect();
        assert_eq!((seqs, request.after), (vec![4, 7, 8], 8));
    }
}
