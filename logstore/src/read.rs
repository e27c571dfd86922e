//! Reading: pages of lines behind a cursor, and the cursor from which the last so many lines follow.

use crate::{
    block::unpack,
    error::LogStoreError,
    store::{BLOCKS, BlockRow, FLOWS, Flow, LogStore, key},
};
use dora_remote_protocol::{
    ids::{DataflowId, NodeId},
    log_line::{LogItem, LogSource},
};
use redb::{ReadOnlyTable, ReadableDatabase};
use std::collections::BTreeSet;

/// Which lines a reader wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    nodes: BTreeSet<NodeId>,
}

impl Filter {
    /// The lines of these nodes alone; without any, the lines of everybody.
    pub fn nodes(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        Self {
            nodes: nodes.into_iter().collect(),
        }
    }

    /// Tells whether a line of `source` is wanted.
    #[must_use]
    pub fn passes(&self, source: &LogSource) -> bool {
        self.nodes.is_empty() || matches!(source, LogSource::Node(node) if self.nodes.contains(node))
    }
}

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
    /// A cursor in an evicted range yields one gap first. Its count is of all lines, wanted or not.
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
        let mut page = Page {
            items: Vec::new(),
            next_after: after,
            at_end: true,
        };
        if after < flow.evicted_to {
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
            page.next_after = flow.evicted_to;
        }
        let mut weight = 0;
        while page.next_after < flow.last_seq {
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
            for (at, entry) in entries.into_iter().enumerate().skip(known) {
                if weight > 0 && weight + entry.weight() > max_bytes {
                    page.at_end = false;
                    return Ok(page);
                }
                weight += entry.weight();
                page.next_after = first_seq + at as u64;
                if filter.passes(entry.source()) {
                    entry.push_to(&mut page.items, page.next_after);
                }
            }
        }
        Ok(page)
    }

    /// The cursor behind which the last `lines` wanted lines follow, or all that exist when there are fewer.
    ///
    /// Reads from the end and stops as soon as it has found them.
    ///
    /// # Errors
    /// [`LogStoreError`] when the disk fails or a block is damaged.
    pub fn tail_cursor(&self, dataflow: DataflowId, lines: u64, filter: &Filter) -> Result<u64, LogStoreError> {
        let transaction = self.db.begin_read()?;
        let flow = transaction
            .open_table(FLOWS)?
            .get(key(dataflow))?
            .map(|row| Flow::from_row(row.value()));
        let flow = flow.unwrap_or_default();
        if lines == 0 {
            return Ok(flow.last_seq);
        }
        let blocks = transaction.open_table(BLOCKS)?;
        let mut wanted = lines;
        for row in blocks.range((key(dataflow), 0)..=(key(dataflow), u64::MAX))?.rev() {
            let (block, value) = row?;
            let first_seq = block.value().1;
            let (_, _, _, raw_bytes, bytes) = value.value();
            let entries = unpack(dataflow, first_seq, raw_bytes, bytes)?;
            for (at, entry) in entries.iter().enumerate().rev() {
                if filter.passes(entry.source()) {
                    wanted -= 1;
                    if wanted == 0 {
                        return Ok(first_seq + at as u64 - 1);
                    }
                }
            }
        }
        Ok(flow.evicted_to)
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

fn missing(dataflow: DataflowId, first_seq: u64) -> LogStoreError {
    LogStoreError::Block {
        dataflow,
        first_seq,
        reason: "it is counted and does not exist".to_owned(),
    }
}
