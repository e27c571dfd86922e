//! Reading: pages of lines behind a cursor.

use crate::{
    block::unpack,
    error::LogStoreError,
    filter::Filter,
    store::{BLOCKS, BlockRow, FLOWS, Flow, LogStore, key},
    times::{BlockTimes, newest_evicted},
};
use dora_remote_protocol::{ids::DataflowId, log_line::LogItem};
use redb::{ReadOnlyTable, ReadableDatabase};

/// Some consecutive lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Lines and gaps, sequence numbers rising; may be empty though more follows, when a filter let nothing pass.
    pub items: Vec<LogItem>,
    /// Cursor for the next page.
    pub next_after: u64,
    /// Whether the page reaches the last line that there was.
    pub at_end: bool,
}

impl LogStore {
    /// Reads what follows `after`, about `max_bytes` of it and at least one line.
    ///
    /// A cursor in an evicted range yields one gap first, unless all that was evicted is older than what is wanted. Its count is of
    /// all lines, wanted or not. Blocks whose times are not wanted are passed over unread.
    ///
    /// # Errors
    /// [`LogStoreError`] when the disk fails or a block is damaged.
    pub fn read(&self, dataflow: DataflowId, after: u64, filter: &Filter, max_bytes: usize) -> Result<Page, LogStoreError> {
        let transaction = self.db.begin_read()?;
        let flow = transaction
            .open_table(FLOWS)?
            .get(key(dataflow))?
            .map(|row| Flow::from_row(row.value()));
        let flow = flow.unwrap_or_default();
        let blocks = transaction.open_table(BLOCKS)?;
        let times = BlockTimes::open(&transaction, dataflow)?;
        let mut page = Page {
            items: Vec::new(),
            next_after: after,
            at_end: true,
        };
        if after < flow.evicted_to {
            if filter.wants_evicted(flow.evicted_to, newest_evicted(&transaction, dataflow)?) {
                // Which of the evicted numbers stood for several lost lines is no longer known, so only the whole count is exact.
                let lines = if after == 0 {
                    flow.evicted_lines
                } else {
                    flow.evicted_to - after
                };
                page.items.push(LogItem::Gap {
                    lines,
                    next_after: flow.evicted_to,
                });
            }
            page.next_after = flow.evicted_to;
        }
        let mut weight = 0;
        while page.next_after < flow.last_seq {
            // The next block would not fit: it need not be unpacked to know that.
            if weight > max_bytes / 2 {
                page.at_end = false;
                return Ok(page);
            }
            if filter.has_times() {
                let passed = times.skip(page.next_after + 1, usize::MAX, |times| !filter.wants_times(times))?;
                page.next_after = passed.min(flow.last_seq);
                if page.next_after == flow.last_seq {
                    break;
                }
            }
            let Some(first_seq) = block_with(&blocks, dataflow, page.next_after + 1)? else {
                return Err(missing(dataflow, page.next_after + 1));
            };
            let Some(row) = blocks.get((key(dataflow), first_seq))? else {
                return Err(missing(dataflow, first_seq));
            };
            let (_, _, _, raw_bytes, bytes) = row.value();
            let entries = unpack(dataflow, first_seq, raw_bytes, bytes)?;
            let known = usize::try_from(page.next_after + 1 - first_seq).unwrap_or(usize::MAX);
            if known >= entries.len() {
                return Err(missing(dataflow, page.next_after + 1));
            }
            let wanted = filter.judge(first_seq, &entries);
            for ((at, entry), wants) in entries.into_iter().enumerate().zip(wanted).skip(known) {
                if weight > 0 && weight + entry.weight() > max_bytes {
                    page.at_end = false;
                    return Ok(page);
                }
                weight += entry.weight();
                page.next_after = first_seq + at as u64;
                if wants {
                    entry.push_to(&mut page.items, page.next_after);
                }
            }
        }
        Ok(page)
    }
}

/// First number of the block that starts at or before `seq`.
fn block_with(
    blocks: &ReadOnlyTable<(u128, u64), BlockRow>,
    dataflow: DataflowId,
    seq: u64,
) -> Result<Option<u64>, LogStoreError> {
    let before = blocks
        .range((key(dataflow), 0)..=(key(dataflow), seq))?
        .next_back()
        .transpose()?;
    Ok(before.map(|(block, _)| block.value().1))
}

pub(crate) fn missing(dataflow: DataflowId, first_seq: u64) -> LogStoreError {
    LogStoreError::Block {
        dataflow,
        first_seq,
        reason: "it is counted and does not exist".to_owned(),
    }
}
