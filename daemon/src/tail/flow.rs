//! The sources of one run: the files of its nodes, messages about it, and its build output.

use super::{
    POLL,
    drain::Drains,
    line,
    series::{Give, Series},
};
use crate::{records::LogCursor, store::StoreError, store_thread::StoreHandle};
use dora_remote_protocol::{
    engine_to_agent::NodeOutput,
    ids::DataflowId,
    limits::{LOG_BATCH_BYTES, LOG_BATCH_LINES},
    log_line::{LogBatch, LogSource},
};
use std::{collections::BTreeMap, time::Duration};
use tokio::{sync::oneshot, time::Instant};
use tracing::warn;

/// One run that is followed.
#[derive(Debug)]
pub(crate) struct Flow {
    nodes: BTreeMap<LogSource, NodeSource>,
    messages: BTreeMap<LogSource, Messages>,
    ended: Option<Instant>,
    drains: Drains,
}

#[derive(Debug)]
struct NodeSource {
    series: Series,
    /// When it is read again, so that what comes meanwhile travels together.
    rests_until: Option<Instant>,
    /// Whether a failure to read was logged and has not been cured.
    failing: bool,
}

#[derive(Debug)]
struct Messages {
    cursor: LogCursor,
    /// Whether there may be some beyond the cursor.
    more: bool,
    /// Number and time of the last one under way.
    pending: Option<(u64, u64)>,
}

impl Flow {
    /// Follows the given outputs, and messages, from where the cursors say.
    pub(crate) fn new(outputs: &[NodeOutput], cursors: Vec<(LogSource, LogCursor)>) -> Self {
        let mut cursors: BTreeMap<LogSource, LogCursor> = cursors.into_iter().collect();
        let nodes = outputs.iter().filter_map(|output| {
            let path = output.path.clone()?;
            let source = LogSource::Node(output.node.clone());
            let series = Series::new(path.into(), cursors.remove(&source));
            let node = NodeSource {
                series,
                rests_until: None,
                failing: false,
            };
            Some((source, node))
        });
        let nodes = nodes.collect();
        let messages = [LogSource::Machine, LogSource::Build].map(|source| {
            let messages = Messages {
                cursor: cursors.remove(&source).unwrap_or_default(),
                more: true,
                pending: None,
            };
            (source, messages)
        });
        Self {
            nodes,
            messages: messages.into(),
            ended: None,
            drains: Drains::default(),
        }
    }

    /// Notes the end of the run.
    pub(crate) fn end(&mut self, at: Instant) {
        self.ended.get_or_insert(at);
    }

    /// Notes that there are new messages.
    pub(crate) fn more_messages(&mut self) {
        for messages in self.messages.values_mut() {
            messages.more = true;
        }
    }

    /// Whether the run ended more than `settle` ago.
    pub(crate) fn settled(&self, now: Instant, settle: Duration) -> bool {
        self.ended.is_some_and(|ended| now.duration_since(ended) >= settle)
    }

    /// Looks for rotations of the files.
    pub(crate) fn look(&mut self, dataflow: DataflowId, now: u64) {
        for (source, node) in &mut self.nodes {
            let looked = node.series.look(now);
            node.note(dataflow, source, looked.err());
        }
    }

    /// Sources that may have something to ship, in their order.
    pub(crate) fn ready(&self, now: Instant) -> impl Iterator<Item = LogSource> + '_ {
        let nodes = self
            .nodes
            .iter()
            .filter(move |(_, node)| !node.series.in_flight() && node.rests_until.is_none_or(|until| now >= until))
            .map(|(source, _)| source);
        let messages = self
            .messages
            .iter()
            .filter(|(_, m)| m.more && m.pending.is_none())
            .map(|(source, _)| source);
        nodes.chain(messages).cloned()
    }

    /// Batches under way.
    pub(crate) fn in_flight(&self) -> usize {
        let nodes = self.nodes.values().filter(|node| node.series.in_flight()).count();
        nodes + self.messages.values().filter(|messages| messages.pending.is_some()).count()
    }

    /// The next batch of one source, if it has lines.
    pub(crate) async fn next_batch(
        &mut self,
        dataflow: DataflowId,
        source: &LogSource,
        complete: bool,
        now: u64,
        store: &StoreHandle,
    ) -> Result<Option<LogBatch>, StoreError> {
        if let Some(node) = self.nodes.get_mut(source) {
            let lines = match node.series.read(complete, now) {
                Ok(lines) => lines,
                Err(error) => {
                    node.note(dataflow, source, Some(error));
                    None
                }
            };
            // Behind a gap that may still grow, lines wait.
            if lines.is_none() && !node.series.has_gap() {
                self.drains.is_empty_now(source);
            }
            let is_full = lines.as_ref().is_some_and(|lines| lines.is_full);
            // A full batch is followed by the next one at once: there is a backlog.
            node.rests_until = (!is_full).then(|| Instant::now() + POLL);
            return Ok(lines.map(|lines| LogBatch {
                dataflow,
                source: source.clone(),
                epoch: node.series.cursor().epoch,
                lost_before: lines.lost_before,
                records: lines.records,
            }));
        }
        let Some(messages) = self.messages.get_mut(source) else {
            return Ok(None);
        };
        let (wanted, after) = (source.clone(), messages.cursor.offset);
        let found = store.run(move |store| store.messages(dataflow, &wanted, after, LOG_BATCH_LINES, LOG_BATCH_BYTES));
        let mut records = found.await?;
        let mut before = messages.cursor.at_unix_ms;
        for record in &mut records {
            record.at_unix_ms = line::time(record.at_unix_ms, before, now);
            before = record.at_unix_ms;
        }
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            messages.more = false;
            self.drains.is_empty_now(source);
            return Ok(None);
        };
        messages.pending = Some((last.offset, last.at_unix_ms));
        Ok(Some(LogBatch {
            dataflow,
            source: source.clone(),
            epoch: messages.cursor.epoch,
            // Numbers have no holes but those of messages that were dropped for want of room.
            lost_before: first.offset - after - 1,
            records,
        }))
    }

    /// The batch of a source that was under way is done; returns where its cursor is now.
    pub(crate) fn acked(&mut self, source: &LogSource) -> Option<LogCursor> {
        if let Some(node) = self.nodes.get_mut(source) {
            if let Err(error) = node.series.acked() {
                warn!(?source, %error, "the place of shipped log lines cannot be noted; they may be sent again");
            }
            if let Some(place) = node.series.place() {
                self.drains.reached(source, place);
            }
            return Some(node.series.cursor().clone());
        }
        let messages = self.messages.get_mut(source)?;
        let (offset, at_unix_ms) = messages.pending.take()?;
        messages.cursor.offset = offset;
        messages.cursor.at_unix_ms = at_unix_ms;
        Some(messages.cursor.clone())
    }

    /// Tells `done` once every line that exists now is acknowledged.
    pub(crate) fn drain(&mut self, done: oneshot::Sender<()>) {
        let nodes = self.nodes.iter().map(|(source, node)| (source, node.series.end().ok()));
        let messages = self.messages.iter().filter(|(_, m)| m.more).map(|(source, _)| (source, None));
        let left = nodes.chain(messages).map(|(source, end)| (source.clone(), end)).collect();
        self.drains.add(left, done);
    }

    /// Where the cursor of a node's output is.
    pub(crate) fn cursor(&self, source: &LogSource) -> Option<LogCursor> {
        self.nodes.get(source).map(|node| node.series.cursor().clone())
    }

    /// Takes a gap back that could not be stored.
    pub(crate) fn put_back(&mut self, source: &LogSource) {
        if let Some(node) = self.nodes.get_mut(source) {
            node.series.put_back();
        }
    }

    /// Notes how many lines of a node could not be written so far.
    pub(crate) fn failed(&mut self, dataflow: DataflowId, source: &LogSource, lines: u64) {
        if let Some(node) = self.nodes.get_mut(source) {
            let noted = node.series.failed(lines);
            node.note(dataflow, source, noted.err());
        }
    }

    /// Whether the run has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Bytes of the files of each node.
    pub(crate) fn bytes(&self) -> impl Iterator<Item = (&LogSource, u64)> {
        self.nodes.iter().map(|(source, node)| (source, node.series.bytes()))
    }

    /// Gives back space of one node's files; see [`Series::give_back`].
    pub(crate) fn give_back(&mut self, dataflow: DataflowId, source: &LogSource, what: Give) -> u64 {
        let Some(node) = self.nodes.get_mut(source) else {
            return 0;
        };
        node.series.give_back(what).unwrap_or_else(|error| {
            warn!(%dataflow, ?source, %error, "the space of a log file cannot be given back");
            0
        })
    }

    /// Whether everything that was written is acknowledged.
    pub(crate) fn is_drained(&self) -> bool {
        // A file that cannot be read any more must not hold up the end for ever.
        let drained = |node: &NodeSource| node.failing || node.series.is_drained().unwrap_or(true);
        self.nodes.values().all(drained) && self.messages.values().all(|m| !m.more && m.pending.is_none())
    }
}

impl NodeSource {
    /// Logs a failure once, and its end.
    fn note(&mut self, dataflow: DataflowId, source: &LogSource, error: Option<std::io::Error>) {
        if let Some(error) = &error
            && !self.failing
        {
            warn!(%dataflow, ?source, %error, "the output of a node cannot be read");
        }
        self.failing = error.is_some();
    }
}
