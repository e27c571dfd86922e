//! Reading: pages of lines behind a cursor.

use crate::{
    block::{Entry, entries, segments},
    error::LogStoreError,
    filter::Filter,
    store::{BLOCKS, BlockRow, FLOWS, Flow, LogStore, key},
    times::{BlockTimes, newest_evicted},
};
use dora_remote_protocol::{
    ids::DataflowId,
    limits::{LOG_BATCH_BYTES, LOG_BATCH_LINES},
    log_line::{LogItem, LogLine},
    packed::Packed,
};
use redb::ReadOnlyTable;

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
        let mut page = Building::after(after);
        if after < flow.evicted_to {
            if filter.wants_evicted(flow.evicted_to, newest_evicted(&transaction, dataflow)?) {
                // Which of the evicted numbers stood for several lost lines is no longer known, so only the whole count is exact.
                let lines = if after == 0 {
                    flow.evicted_lines
                } else {
                    flow.evicted_to - after
                };
                page.gap(lines, flow.evicted_to);
            }
            page.next_after = flow.evicted_to;
        }
        while page.next_after < flow.last_seq {
            // The next block would not fit: it need not be looked at to know that.
            if page.weight > max_bytes / 2 {
                return Ok(page.finish(false));
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
            let (last_seq, _, _, bytes) = row.value();
            let segments = segments(dataflow, first_seq, bytes)?;
            // What most readers read: lines of nodes, all of them wanted.
            if page.next_after + 1 == first_seq
                && let [segment] = segments.as_slice()
                && let Some(lines) = segment.passed_on(filter, first_seq, max_bytes)
                && lines.last == last_seq
            {
                page.pass_on(lines);
                continue;
            }
            let entries = entries(dataflow, first_seq, segments)?;
            let known = usize::try_from(page.next_after + 1 - first_seq).unwrap_or(usize::MAX);
            if known >= entries.len() {
                return Err(missing(dataflow, page.next_after + 1));
            }
            let wanted = filter.judge(first_seq, &entries);
            for ((seq, entry), wants) in (first_seq..).zip(entries).zip(wanted).skip(known) {
                if page.weight > 0 && page.weight + entry.weight() > max_bytes {
                    return Ok(page.finish(false));
                }
                page.weight += entry.weight();
                page.next_after = seq;
                match entry {
                    Entry::Line(line) if wants => page.push(line),
                    Entry::Lost(lost) if wants => page.gap(lost.lines, seq),
                    Entry::Line(_) | Entry::Lost(_) => {}
                }
            }
        }
        Ok(page.finish(true))
    }
}

/// A page that is not whole yet.
struct Building {
    items: Vec<LogItem>,
    /// Lines that are not packed yet.
    lines: Vec<LogLine>,
    /// Bytes of their texts.
    text_bytes: usize,
    next_after: u64,
    weight: usize,
}

impl Building {
    const fn after(next_after: u64) -> Self {
        Self {
            items: Vec::new(),
            lines: Vec::new(),
            text_bytes: 0,
            next_after,
            weight: 0,
        }
    }

    fn push(&mut self, line: LogLine) {
        // What is packed together must be fit to be unpacked.
        if self.lines.len() >= LOG_BATCH_LINES || self.text_bytes >= LOG_BATCH_BYTES {
            self.close();
        }
        self.text_bytes += line.text.len();
        self.lines.push(line);
    }

    fn gap(&mut self, lines: u64, next_after: u64) {
        self.close();
        self.items.push(LogItem::Gap { lines, next_after });
    }

    fn pass_on(&mut self, lines: &Packed) {
        self.close();
        self.weight += lines.raw_bytes();
        self.next_after = lines.last;
        self.items.push(LogItem::Lines(lines.clone()));
    }

    fn close(&mut self) {
        if !self.lines.is_empty() {
            self.items.push(LogItem::Lines(Packed::of_lines(&self.lines)));
            self.lines.clear();
            self.text_bytes = 0;
        }
    }

    fn finish(mut self, at_end: bool) -> Page {
        self.close();
        Page {
            items: self.items,
            next_after: self.next_after,
            at_end,
        }
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
