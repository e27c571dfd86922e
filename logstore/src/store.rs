//! The database: its tables, and how lines get into it. Lines and the position that they were taken from are written in one
//! transaction, so that a line which is sent twice is stored once, whenever either side was killed.

use crate::{
    block::{BLOCK_BYTES, Entry, Lost, pack},
    error::LogStoreError,
    file::LogFile,
    times::{Times, TimesTables},
};
use dora_remote_protocol::{
    ids::DataflowId,
    log_line::{LogBatch, LogSource},
    name::MachineName,
};
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};
use std::{collections::BTreeMap, path::Path};

/// How much a store may hold, in bytes of compressed blocks. The file itself has some more: pages are not always full, and space
/// that was freed is reused and not given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Of all dataflows together; the oldest blocks go first.
    pub total_bytes: u64,
    /// Of one dataflow, so that a chatty one does not push out the others.
    pub per_dataflow_bytes: u64,
}

/// What became of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Whose lines.
    pub dataflow: DataflowId,
    /// Highest sequence number of the dataflow now, 0 while it has none.
    pub last_seq: u64,
    /// The sender may forget its lines up to and with this offset of the batch's epoch.
    pub acked_offset: u64,
    /// Lines that were new.
    pub stored_lines: u64,
}

/// Log lines of many dataflows in one file. Cheap to share behind an `Arc`; writers take turns.
#[derive(Debug)]
pub struct LogStore {
    pub(crate) db: LogFile,
    caps: Caps,
}

impl LogStore {
    /// Opens the store in the file `path`, or makes it.
    ///
    /// # Errors
    /// [`LogStoreError::Open`] when the file cannot be used or is in use, [`LogStoreError::Format`] when it is not of this format.
    pub fn open(path: &Path, caps: Caps) -> Result<Self, LogStoreError> {
        let db = LogFile::open(path)?;
        let transaction = db.begin_write()?;
        let found = {
            let mut meta = transaction.open_table(META)?;
            let found = meta.get(FORMAT_KEY)?.map(|value| value.value());
            if found.is_none() {
                meta.insert(FORMAT_KEY, FORMAT)?;
            }
            found.unwrap_or(FORMAT)
        };
        if found != FORMAT {
            return Err(LogStoreError::Format {
                path: path.to_owned(),
                found,
                known: FORMAT,
            });
        }
        // Readers need every table to exist.
        Tables::open(&transaction)?;
        transaction.commit()?;
        Ok(Self { db, caps })
    }

    /// Stores batches, all of them or none, and drops what was stored before. One answer for each batch, in their order.
    ///
    /// Of each (dataflow, machine, source) the store remembers how far it came. Lines at or below that offset of the same epoch are
    /// dropped, and everything of an older epoch. Lines that the machine lost, and lines that are evicted here, are later read as a gap.
    ///
    /// # Errors
    /// [`LogStoreError`] when the disk fails; nothing is stored then.
    pub fn append(&self, batches: &[(MachineName, LogBatch)]) -> Result<Vec<Appended>, LogStoreError> {
        self.db.judge(self.append_to_file(batches))
    }

    fn append_to_file(&self, batches: &[(MachineName, LogBatch)]) -> Result<Vec<Appended>, LogStoreError> {
        let transaction = self.db.begin_write()?;
        let mut answers = Vec::with_capacity(batches.len());
        {
            let mut tables = Tables::open(&transaction)?;
            let mut drafts = BTreeMap::new();
            for (machine, batch) in batches {
                answers.push(tables.take(&mut drafts, machine, batch)?);
            }
            for (id, mut draft) in drafts {
                tables.close_block(id, &mut draft)?;
                tables.evict_of_dataflow(id, &mut draft.flow, self.caps.per_dataflow_bytes)?;
                tables.put_flow(id, draft.flow)?;
            }
            tables.evict_of_all(self.caps.total_bytes)?;
        }
        transaction.commit()?;
        Ok(answers)
    }

    /// Removes everything of a dataflow, its numbers included.
    ///
    /// # Errors
    /// [`LogStoreError`] when the disk fails; nothing is removed then.
    pub fn forget(&self, dataflow: DataflowId) -> Result<(), LogStoreError> {
        let forget = || {
            let transaction = self.db.begin_write()?;
            Tables::open(&transaction)?.forget(dataflow)?;
            transaction.commit()?;
            Ok(())
        };
        self.db.judge(forget())
    }

    /// Highest sequence number of a dataflow, 0 while it has none.
    ///
    /// # Errors
    /// [`LogStoreError`] when the disk fails.
    pub fn last_seq(&self, dataflow: DataflowId) -> Result<u64, LogStoreError> {
        let flows = self.db.begin_read()?.open_table(FLOWS)?;
        Ok(flows
            .get(key(dataflow))?
            .map_or(0, |row| Flow::from_row(row.value()).last_seq))
    }

    /// Bytes of all compressed blocks.
    ///
    /// # Errors
    /// [`LogStoreError`] when the disk fails.
    pub fn bytes(&self) -> Result<u64, LogStoreError> {
        let meta = self.db.begin_read()?.open_table(META)?;
        Ok(meta.get(BYTES_KEY)?.map_or(0, |value| value.value()))
    }
}

/// What is known of a dataflow as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Highest number that was given.
    pub(crate) last_seq: u64,
    /// Bytes of its blocks.
    pub(crate) bytes: u64,
    /// Entries up to and with this number were evicted.
    pub(crate) evicted_to: u64,
    /// Lines among them, lost ones included.
    pub(crate) evicted_lines: u64,
}

impl Flow {
    pub(crate) const fn from_row((last_seq, bytes, evicted_to, evicted_lines): (u64, u64, u64, u64)) -> Self {
        Self {
            last_seq,
            bytes,
            evicted_to,
            evicted_lines,
        }
    }
}

/// Lines of a dataflow that are not in a block yet.
struct Draft {
    flow: Flow,
    entries: Vec<Entry>,
    weight: usize,
}

/// All tables, open for writing.
pub(crate) struct Tables<'t> {
    meta: Table<'t, &'static str, u64>,
    pub(crate) flows: Table<'t, u128, (u64, u64, u64, u64)>,
    pub(crate) blocks: Table<'t, (u128, u64), BlockRow>,
    pub(crate) ages: Table<'t, u64, (u128, u64)>,
    pub(crate) times: TimesTables<'t>,
    sources: Table<'t, (u128, &'static str, &'static [u8]), (u64, u64)>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, LogStoreError> {
        Ok(Self {
            meta: transaction.open_table(META)?,
            flows: transaction.open_table(FLOWS)?,
            blocks: transaction.open_table(BLOCKS)?,
            ages: transaction.open_table(AGES)?,
            times: TimesTables::open(transaction)?,
            sources: transaction.open_table(SOURCES)?,
        })
    }

    /// Takes what is new of a batch into the draft of its dataflow.
    fn take(
        &mut self,
        drafts: &mut BTreeMap<DataflowId, Draft>,
        machine: &MachineName,
        batch: &LogBatch,
    ) -> Result<Appended, LogStoreError> {
        let id = batch.dataflow;
        let source = source_key(id, &batch.source)?;
        let source_row = (key(id), machine.as_str(), source.as_slice());
        let known = self.sources.get(source_row)?.map(|row| row.value());
        let mut draft = match drafts.remove(&id) {
            Some(draft) => draft,
            None => Draft {
                flow: self.flow(id)?,
                entries: Vec::new(),
                weight: 0,
            },
        };
        let last_offset = batch.records.last().map(|record| record.offset);
        let mut answer = Appended {
            dataflow: id,
            last_seq: draft.flow.last_seq,
            acked_offset: last_offset.unwrap_or(0),
            stored_lines: 0,
        };
        let mut offset = match known {
            Some((epoch, _)) if epoch > batch.epoch => {
                drafts.insert(id, draft);
                return Ok(answer);
            }
            Some((epoch, offset)) if epoch == batch.epoch => Some(offset),
            _ => None,
        };
        // The gap belongs before the first line: once that line is known, so is the gap. A gap without lines begins an epoch.
        let is_first_new = match batch.records.first() {
            Some(first) => offset.is_none_or(|known| first.offset > known),
            None => offset.is_none(),
        };
        if batch.lost_before > 0 && is_first_new {
            let lost = Entry::Lost(Lost {
                machine: machine.clone(),
                source: batch.source.clone(),
                lines: batch.lost_before,
            });
            self.push(id, &mut draft, lost)?;
        }
        for record in &batch.records {
            if offset.is_some_and(|known| record.offset <= known) {
                continue;
            }
            offset = Some(record.offset);
            answer.stored_lines += 1;
            let entry = Entry::line(draft.flow.last_seq + 1, machine, &batch.source, record);
            self.push(id, &mut draft, entry)?;
        }
        self.sources.insert(source_row, (batch.epoch, offset.unwrap_or(0)))?;
        answer.last_seq = draft.flow.last_seq;
        answer.acked_offset = offset.unwrap_or(0).max(answer.acked_offset);
        drafts.insert(id, draft);
        Ok(answer)
    }

    fn push(&mut self, id: DataflowId, draft: &mut Draft, entry: Entry) -> Result<(), LogStoreError> {
        if !draft.entries.is_empty() && draft.weight + entry.weight() > BLOCK_BYTES {
            self.close_block(id, draft)?;
        }
        draft.weight += entry.weight();
        draft.entries.push(entry);
        draft.flow.last_seq += 1;
        Ok(())
    }

    fn close_block(&mut self, id: DataflowId, draft: &mut Draft) -> Result<(), LogStoreError> {
        if draft.entries.is_empty() {
            return Ok(());
        }
        let first_seq = draft.flow.last_seq + 1 - draft.entries.len() as u64;
        let lines = draft.entries.iter().map(Entry::lines).sum();
        let times = Times::of(draft.flow.last_seq, &draft.entries);
        let packed = pack(id, first_seq, std::mem::take(&mut draft.entries))?;
        let age = self.next_age()?;
        let row = (draft.flow.last_seq, age, lines, packed.as_slice());
        self.blocks.insert((key(id), first_seq), row)?;
        self.ages.insert(age, (key(id), first_seq))?;
        self.times.put(id, first_seq, times)?;
        let bytes = block_bytes(&packed);
        draft.flow.bytes += bytes;
        self.set_total(self.total()? + bytes)?;
        draft.weight = 0;
        Ok(())
    }

    fn forget(&mut self, dataflow: DataflowId) -> Result<(), LogStoreError> {
        let id = key(dataflow);
        let mut freed = 0;
        let mut first_seqs = Vec::new();
        for row in self.blocks.range((id, 0)..=(id, u64::MAX))? {
            let (block, value) = row?;
            let (_, age, _, bytes) = value.value();
            freed += block_bytes(bytes);
            first_seqs.push((block.value().1, age));
        }
        for (first_seq, age) in first_seqs {
            self.blocks.remove((id, first_seq))?;
            self.ages.remove(age)?;
            self.times.remove(dataflow, first_seq)?;
        }
        self.times.forget(dataflow)?;
        let mut sources = Vec::new();
        for row in self.sources.range((id, "", [].as_slice())..)? {
            let (row, _) = row?;
            let (of, machine, source) = row.value();
            if of != id {
                break;
            }
            sources.push((machine.to_owned(), source.to_owned()));
        }
        for (machine, source) in sources {
            self.sources.remove((id, machine.as_str(), source.as_slice()))?;
        }
        self.flows.remove(id)?;
        self.set_total(self.total()?.saturating_sub(freed))
    }

    pub(crate) fn flow(&self, id: DataflowId) -> Result<Flow, LogStoreError> {
        Ok(self
            .flows
            .get(key(id))?
            .map(|row| Flow::from_row(row.value()))
            .unwrap_or_default())
    }

    pub(crate) fn put_flow(&mut self, id: DataflowId, flow: Flow) -> Result<(), LogStoreError> {
        self.flows
            .insert(key(id), (flow.last_seq, flow.bytes, flow.evicted_to, flow.evicted_lines))?;
        Ok(())
    }

    pub(crate) fn total(&self) -> Result<u64, LogStoreError> {
        Ok(self.meta.get(BYTES_KEY)?.map_or(0, |value| value.value()))
    }

    pub(crate) fn set_total(&mut self, bytes: u64) -> Result<(), LogStoreError> {
        self.meta.insert(BYTES_KEY, bytes)?;
        Ok(())
    }

    fn next_age(&mut self) -> Result<u64, LogStoreError> {
        let age = self.meta.get(AGE_KEY)?.map_or(0, |value| value.value()) + 1;
        self.meta.insert(AGE_KEY, age)?;
        Ok(age)
    }
}

/// The key of a dataflow in all tables.
pub(crate) const fn key(dataflow: DataflowId) -> u128 {
    dataflow.0.as_u128()
}

/// What a block counts against the caps: its bytes and its share of the tables.
pub(crate) const fn block_bytes(bytes: &[u8]) -> u64 {
    const ROW_OVERHEAD: u64 = 64;
    bytes.len() as u64 + ROW_OVERHEAD
}

fn source_key(dataflow: DataflowId, source: &LogSource) -> Result<Vec<u8>, LogStoreError> {
    postcard::to_stdvec(source).map_err(|error| LogStoreError::Block {
        dataflow,
        first_seq: 0,
        reason: error.to_string(),
    })
}

/// Last sequence number, age, lines, bytes.
pub(crate) type BlockRow = (u64, u64, u64, &'static [u8]);

/// Format, bytes of all blocks, last age that was given.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Dataflow to [`Flow`].
pub(crate) const FLOWS: TableDefinition<'_, u128, (u64, u64, u64, u64)> = TableDefinition::new("flows");
/// Dataflow and first sequence number to a block.
pub(crate) const BLOCKS: TableDefinition<'_, (u128, u64), BlockRow> = TableDefinition::new("blocks");
/// Age to block, so that the oldest of all is found at once.
const AGES: TableDefinition<'_, u64, (u128, u64)> = TableDefinition::new("ages");
/// Dataflow, machine and source to epoch and offset.
const SOURCES: TableDefinition<'_, (u128, &str, &[u8]), (u64, u64)> = TableDefinition::new("sources");

const FORMAT: u64 = 3;
const FORMAT_KEY: &str = "format";
const BYTES_KEY: &str = "bytes";
const AGE_KEY: &str = "age";

#[cfg(test)]
mod tests;
