//! The file of the audit: entries under their numbers, the anchor before the oldest one, and the end as it was last written.
//!
//! What was written is never rewritten. The oldest entries go when there are too many, and the anchor keeps the hash of the last one
//! that went.

use crate::store::{
    StoreError,
    database::{self, META, copy_table},
};
use dora_remote_protocol::audit::{
    AuditEntry,
    chain::{Chain, GENESIS},
    verify::{Anchor, verify},
};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTableMetadata, TableDefinition, WriteTransaction};
use std::{path::Path, sync::Arc};

/// A place that keeps entries.
pub(crate) trait Ledger: Send + 'static {
    /// Stores all entries, or none of them; they are on the disk when it returns.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails; nothing is changed then.
    fn append(&mut self, entries: &[AuditEntry]) -> Result<(), StoreError>;
}

/// The file. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct AuditFile {
    db: Arc<Database>,
    /// Most entries that are kept.
    max: u64,
}

/// What was found when the file was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The end that the next entry is tied to.
    pub(crate) chain: Chain,
    /// What is wrong with the newest entries, or nothing.
    pub(crate) fault: Option<String>,
}

/// Some entries in their order.
#[derive(Debug)]
pub(crate) struct Page {
    /// Where the chain began when this was read.
    pub(crate) anchor: Anchor,
    pub(crate) entries: Vec<AuditEntry>,
    /// Number up to which was looked.
    pub(crate) next_after: u64,
    /// Whether nothing followed.
    pub(crate) at_end: bool,
}

/// Which entries are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) since_unix_ms: Option<u64>,
    /// In lower case.
    pub(crate) who: Option<String>,
    pub(crate) verb: Option<String>,
}

impl Filter {
    fn wants(&self, entry: &AuditEntry) -> bool {
        self.since_unix_ms.is_none_or(|since| entry.at_unix_ms >= since)
            && self
                .who
                .as_ref()
                .is_none_or(|who| entry.who.to_lowercase().contains(who.as_str()))
            && self.verb.as_ref().is_none_or(|verb| entry.verb == *verb)
    }
}

impl AuditFile {
    /// Opens the file `path`, or makes it, and looks at its newest entries. Keeps at most `max` of them.
    pub(crate) fn open(path: &Path, max: u64) -> Result<(Self, Opened), StoreError> {
        let db = database::open(path, FORMAT, CACHE_BYTES, |transaction, is_new| {
            let mut hashes = transaction.open_table(HASHES)?;
            if is_new {
                transaction.open_table(META)?.insert(FIRST_KEY, 1)?;
                hashes.insert(BEFORE_KEY, GENESIS)?;
            }
            transaction.open_table(ENTRIES)?;
            Ok(())
        })?;
        let file = Self { db: Arc::new(db), max };
        let opened = file.look()?;
        Ok((file, opened))
    }

    /// Remembers that entries which were witnessed up to now and are not here were lost in a restore, and that somebody was told.
    pub(crate) fn settle(&self, now_unix_ms: u64) -> Result<(), StoreError> {
        let transaction = self.db.begin_write()?;
        transaction.open_table(META)?.insert(SETTLED_KEY, now_unix_ms)?;
        transaction.commit()?;
        Ok(())
    }

    /// See [`Self::settle`]; 0 when there was no restore.
    pub(crate) fn settled_unix_ms(&self) -> Result<u64, StoreError> {
        let transaction = self.db.begin_read()?;
        let settled = transaction.open_table(META)?.get(SETTLED_KEY)?;
        Ok(settled.map_or(0, |value| value.value()))
    }

    /// The entry of this number, if it is kept.
    pub(crate) fn entry(&self, seq: u64) -> Result<Option<AuditEntry>, StoreError> {
        let transaction = self.db.begin_read()?;
        let row = transaction.open_table(ENTRIES)?.get(seq)?;
        Ok(row.map(|row| decode(seq, row.value())))
    }

    /// Reads entries above a number that the filter wants, as many as make one page.
    pub(crate) fn read(&self, after: u64, filter: &Filter) -> Result<Page, StoreError> {
        let transaction = self.db.begin_read()?;
        let anchor = anchor(&transaction)?;
        let mut page = Page {
            anchor,
            entries: Vec::new(),
            next_after: after,
            at_end: true,
        };
        let mut bytes = 0;
        for (looked_at, row) in transaction.open_table(ENTRIES)?.range(after.saturating_add(1)..)?.enumerate() {
            if looked_at >= PAGE_ROWS || bytes >= PAGE_BYTES {
                page.at_end = false;
                break;
            }
            let (seq, row) = row?;
            let (seq, row) = (seq.value(), row.value());
            page.next_after = seq;
            let entry = decode(seq, row);
            if filter.wants(&entry) {
                bytes += row.len();
                page.entries.push(entry);
            }
        }
        Ok(page)
    }

    /// The file itself, for a backup.
    pub(crate) fn database(&self) -> Arc<Database> {
        Arc::clone(&self.db)
    }

    /// Checks the newest entries against each other, and the last one against the end that was last written.
    fn look(&self) -> Result<Opened, StoreError> {
        let transaction = self.db.begin_read()?;
        let anchor = anchor(&transaction)?;
        let rows = transaction.open_table(ENTRIES)?;
        let mut newest = Vec::new();
        for row in rows.range(anchor.first_seq..)?.rev().take(LOOKED_AT + 1) {
            let (seq, row) = row?;
            newest.push(decode(seq.value(), row.value()));
        }
        newest.reverse();
        // The oldest of them only vouches for the next one, unless it is the first that is kept.
        let (from, entries) = match newest.split_first() {
            Some((oldest, rest)) if newest.len() > LOOKED_AT => (
                Anchor {
                    first_seq: oldest.seq + 1,
                    before: oldest.hash,
                },
                rest,
            ),
            _ => (anchor, newest.as_slice()),
        };
        let found = entries.last().map_or_else(
            || Chain::ending(anchor.first_seq - 1, anchor.before),
            |last| Chain::ending(last.seq, last.hash),
        );
        let verdict = verify(from, entries, [], None);
        let mut fault = verdict.faults.first().map(ToString::to_string);
        let meta = transaction.open_table(META)?;
        let hashes = transaction.open_table(HASHES)?;
        let mut chain = found;
        if let (Some(seq), Some(hash)) = (meta.get(HEAD_KEY)?, hashes.get(HEAD_KEY)?) {
            let written = Chain::ending(seq.value(), hash.value());
            if written != found {
                let (last, end) = (found.last_seq(), written.last_seq());
                fault.get_or_insert_with(|| {
                    format!("the last entry is {last}, and entry {end} was the last one that was written")
                });
                // Numbers are not used twice: the gap stays for everybody to see.
                if end > last {
                    chain = written;
                }
            }
        }
        Ok(Opened { chain, fault })
    }
}

impl Ledger for AuditFile {
    fn append(&mut self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        let transaction = self.db.begin_write()?;
        {
            let mut rows = transaction.open_table(ENTRIES)?;
            let mut meta = transaction.open_table(META)?;
            let mut hashes = transaction.open_table(HASHES)?;
            for entry in entries {
                let bytes = postcard::to_stdvec(entry).map_err(|source| StoreError::Record {
                    what: format!("audit entry {}", entry.seq),
                    source,
                })?;
                rows.insert(entry.seq, bytes.as_slice())?;
            }
            if let Some(last) = entries.last() {
                meta.insert(HEAD_KEY, last.seq)?;
                hashes.insert(HEAD_KEY, last.hash)?;
            }
            let mut gone = None;
            for _ in self.max..rows.len()? {
                if let Some((seq, row)) = rows.pop_first()? {
                    gone = Some(decode(seq.value(), row.value()));
                }
            }
            if let Some(gone) = gone {
                meta.insert(FIRST_KEY, gone.seq + 1)?;
                hashes.insert(BEFORE_KEY, gone.hash)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Copies everything into a fresh file.
pub(crate) fn copy_tables(from: &ReadTransaction, to: &WriteTransaction) -> Result<(), StoreError> {
    copy_table(from, to, META)?;
    copy_table(from, to, HASHES)?;
    copy_table(from, to, ENTRIES)
}

fn anchor(transaction: &ReadTransaction) -> Result<Anchor, StoreError> {
    let first_seq = transaction.open_table(META)?.get(FIRST_KEY)?.map_or(1, |value| value.value());
    let before = transaction
        .open_table(HASHES)?
        .get(BEFORE_KEY)?
        .map_or(GENESIS, |value| value.value());
    Ok(Anchor { first_seq, before })
}

/// An entry that cannot be read any more stands there as one whose hash is wrong.
fn decode(seq: u64, row: &[u8]) -> AuditEntry {
    postcard::from_bytes(row).unwrap_or_else(|_| AuditEntry {
        seq,
        at_unix_ms: 0,
        who: String::new(),
        serial: String::new(),
        from: String::new(),
        verb: "unreadable".to_owned(),
        target: String::new(),
        result: "internal".to_owned(),
        detail: "the record of this entry is damaged".to_owned(),
        request_id: String::new(),
        hash: [0; 32],
    })
}

/// Hash before the first entry, hash of the last one that was written.
const HASHES: TableDefinition<'_, &str, [u8; 32]> = TableDefinition::new("hashes");
/// Number to [`AuditEntry`].
const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");

const FORMAT: u64 = 1;
const FIRST_KEY: &str = "first";
const BEFORE_KEY: &str = "before";
const HEAD_KEY: &str = "head";
const SETTLED_KEY: &str = "settled";

/// Newest entries that are looked at when the file is opened; `audit --verify` looks at all.
const LOOKED_AT: usize = 1_000;
/// Rows that one page looks at, so that a filter that wants nothing does not hold a reader for long.
const PAGE_ROWS: usize = 4_096;
/// Bytes of entries of one page.
const PAGE_BYTES: usize = 256 << 10;
/// Memory for pages of the file; redb would take 1 GiB.
const CACHE_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests;
