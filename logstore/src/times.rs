//! The times in each block, kept apart from the blocks: a small table that is walked to find the few blocks worth reading.
//!
//! Machines' clocks differ and may be set back, so that times do not rise with the numbers. Nothing is searched by halving
//! therefore; each block is judged by the oldest and the newest time in it.

use crate::{block::Entry, error::LogStoreError, store::key};
use dora_remote_protocol::ids::DataflowId;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

/// The times of the lines of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// Number of its last line.
    pub(crate) last_seq: u64,
    /// Oldest time in it, in milliseconds since the Unix epoch.
    pub(crate) oldest: u64,
    /// Newest time in it.
    pub(crate) newest: u64,
}

impl Times {
    /// The times of a block that ends with `last_seq`; none when it ends with lost lines, as their time is that of what follows.
    pub(crate) fn of(last_seq: u64, entries: &[Entry]) -> Option<Self> {
        entries.last()?.at_unix_ms()?;
        let times = || entries.iter().filter_map(Entry::at_unix_ms);
        Some(Self {
            last_seq,
            oldest: times().min()?,
            newest: times().max()?,
        })
    }

    const fn from_row((last_seq, oldest, newest): TimesRow) -> Self {
        Self {
            last_seq,
            oldest,
            newest,
        }
    }
}

/// Both tables, open for writing.
pub(crate) struct TimesTables<'t> {
    blocks: Table<'t, (u128, u64), TimesRow>,
    evicted: Table<'t, u128, u64>,
}

impl<'t> TimesTables<'t> {
    pub(crate) fn open(transaction: &'t WriteTransaction) -> Result<Self, LogStoreError> {
        Ok(Self {
            blocks: transaction.open_table(TIMES)?,
            evicted: transaction.open_table(EVICTED)?,
        })
    }

    /// Takes down the times of a new block.
    pub(crate) fn put(&mut self, id: DataflowId, first_seq: u64, times: Option<Times>) -> Result<(), LogStoreError> {
        if let Some(Times {
            last_seq,
            oldest,
            newest,
        }) = times
        {
            self.blocks.insert((key(id), first_seq), (last_seq, oldest, newest))?;
        }
        Ok(())
    }

    /// Removes the times of a block that was evicted, and remembers the newest time that is gone with it.
    pub(crate) fn evict(&mut self, id: DataflowId, first_seq: u64) -> Result<(), LogStoreError> {
        let newest = self.remove(id, first_seq)?.map_or(u64::MAX, |times| times.newest);
        let known = self.evicted.get(key(id))?.map_or(0, |row| row.value());
        self.evicted.insert(key(id), known.max(newest))?;
        Ok(())
    }

    /// Removes the times of a block.
    pub(crate) fn remove(&mut self, id: DataflowId, first_seq: u64) -> Result<Option<Times>, LogStoreError> {
        Ok(self
            .blocks
            .remove((key(id), first_seq))?
            .map(|row| Times::from_row(row.value())))
    }

    /// Forgets what is known of a dataflow's evicted lines.
    pub(crate) fn forget(&mut self, id: DataflowId) -> Result<(), LogStoreError> {
        self.evicted.remove(key(id))?;
        Ok(())
    }
}

/// The times of the blocks of one dataflow, for a reader.
pub(crate) struct BlockTimes {
    table: ReadOnlyTable<(u128, u64), TimesRow>,
    id: u128,
}

impl BlockTimes {
    pub(crate) fn open(transaction: &ReadTransaction, id: DataflowId) -> Result<Self, LogStoreError> {
        Ok(Self {
            table: transaction.open_table(TIMES)?,
            id: key(id),
        })
    }

    /// Goes on from the block that begins with `first_seq` over all that `skips` accepts, `most` at most. Gives the last number that
    /// was passed over, `first_seq - 1` when there was none. Stops at a block whose times are not known.
    pub(crate) fn skip(&self, first_seq: u64, most: usize, skips: impl Fn(Times) -> bool) -> Result<u64, LogStoreError> {
        let mut passed = first_seq - 1;
        for row in self.table.range((self.id, first_seq)..=(self.id, u64::MAX))?.take(most) {
            let (block, value) = row?;
            let times = Times::from_row(value.value());
            if block.value().1 != passed + 1 || !skips(times) {
                break;
            }
            passed = times.last_seq;
        }
        Ok(passed)
    }

    /// The same towards the past: from the block that ends before `before`. Gives the first number that was passed over, `before` when
    /// there was none.
    pub(crate) fn skip_back(&self, before: u64, most: usize, skips: impl Fn(Times) -> bool) -> Result<u64, LogStoreError> {
        let mut passed = before;
        for row in self.table.range((self.id, 0)..(self.id, before))?.rev().take(most) {
            let (block, value) = row?;
            let times = Times::from_row(value.value());
            if times.last_seq + 1 != passed || !skips(times) {
                break;
            }
            passed = block.value().1;
        }
        Ok(passed)
    }
}

/// The newest time of the evicted lines of a dataflow; the end of times where that is not known.
pub(crate) fn newest_evicted(transaction: &ReadTransaction, id: DataflowId) -> Result<u64, LogStoreError> {
    let evicted = transaction.open_table(EVICTED)?;
    Ok(evicted.get(key(id))?.map_or(u64::MAX, |row| row.value()))
}

/// Last sequence number, oldest and newest time.
type TimesRow = (u64, u64, u64);

/// Dataflow and first sequence number of a block to the times in it.
const TIMES: TableDefinition<'_, (u128, u64), TimesRow> = TableDefinition::new("times");
/// Dataflow to the newest time of its evicted lines.
const EVICTED: TableDefinition<'_, u128, u64> = TableDefinition::new("evicted-times");
