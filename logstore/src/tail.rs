//! "The last so many": the cursor behind which they follow, searched from the end in steps, so that a long search holds up nobody.

use crate::{
    block::{Entry, entries, segments},
    error::LogStoreError,
    filter::Filter,
    read::missing,
    store::{BLOCKS, FLOWS, Flow, LogStore, key},
    times::BlockTimes,
};
use dora_remote_protocol::ids::DataflowId;

/// A search for the last so many wanted lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailSearch {
    dataflow: DataflowId,
    wanted: u64,
    /// Everything from this number on was looked at.
    before: u64,
}

impl LogStore {
    /// Begins a search for the cursor behind which the last `lines` wanted lines follow.
    ///
    /// # Errors
    /// [`LogStoreError`] when the disk fails.
    pub fn tail(&self, dataflow: DataflowId, lines: u64) -> Result<TailSearch, LogStoreError> {
        Ok(TailSearch {
            dataflow,
            wanted: lines,
            before: self.last_seq(dataflow)? + 1,
        })
    }

    /// Goes on with a search, over about `max_bytes` of lines. Gives the cursor once it is found; when there are fewer lines, that
    /// behind which all follow that exist.
    ///
    /// # Errors
    /// [`LogStoreError`] when the disk fails or a block is damaged.
    pub fn tail_step(&self, search: &mut TailSearch, filter: &Filter, max_bytes: usize) -> Result<Option<u64>, LogStoreError> {
        let TailSearch {
            dataflow,
            wanted,
            before,
        } = search;
        if *wanted == 0 {
            return Ok(Some(*before - 1));
        }
        let transaction = self.db.begin_read()?;
        let flow = transaction
            .open_table(FLOWS)?
            .get(key(*dataflow))?
            .map(|row| Flow::from_row(row.value()));
        let evicted_to = flow.unwrap_or_default().evicted_to;
        let blocks = transaction.open_table(BLOCKS)?;
        let times = BlockTimes::open(&transaction, *dataflow)?;
        let mut weight = 0;
        while weight < max_bytes {
            if filter.has_times() {
                *before = times.skip_back(*before, usize::MAX, |times| !filter.wants_times(times))?;
            }
            if *before <= evicted_to + 1 {
                return Ok(Some(evicted_to));
            }
            let row = blocks.range((key(*dataflow), 0)..(key(*dataflow), *before))?.next_back();
            let Some((block, value)) = row.transpose()? else {
                return Err(missing(*dataflow, *before - 1));
            };
            let first_seq = block.value().1;
            let (_, _, _, bytes) = value.value();
            let entries = entries(*dataflow, first_seq, segments(*dataflow, first_seq, bytes)?)?;
            weight += entries.iter().map(Entry::weight).sum::<usize>().max(1);
            for (at, _) in filter
                .judge(first_seq, &entries)
                .iter()
                .enumerate()
                .rev()
                .filter(|(_, wants)| **wants)
            {
                *wanted -= 1;
                if *wanted == 0 {
                    return Ok(Some(first_seq + at as u64 - 1));
                }
            }
            *before = first_seq;
        }
        Ok(None)
    }
}
