//! Which lines a reader wants. Judged line by line, and for whole blocks by the times in them, so that a block without wanted
//! lines is not even read.

use crate::{block::Entry, times::Times};
use dora_remote_protocol::{
    ids::NodeId,
    log_line::{LogLevel, LogLine, LogSource},
};
use std::collections::BTreeSet;

/// Which lines a reader wants: those that pass every limit that is set.
///
/// Lines that a machine lost have no level and no text, so they pass those limits. Their time is that of the line that was stored next;
/// where that is not known, they are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The lines of these nodes alone; empty for the lines of everybody.
    pub nodes: BTreeSet<NodeId>,
    /// Where the past begins that is wanted.
    pub since: Option<Since>,
    /// Only lines that were written at or before this time, in milliseconds since the Unix epoch.
    pub until_unix_ms: Option<u64>,
    /// Only lines that say how much they matter, and matter at least so much.
    pub level: Option<LogLevel>,
    /// Of the messages of machines, only those that matter at least so much.
    pub machine_level: Option<LogLevel>,
    needle: Option<String>,
}

/// Leaves out what is old, among the lines that exist when a reader begins. What arrives later is never old, whatever the clock of
/// its machine says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// Earliest time that is wanted, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// Number of the last line that may be too old.
    pub to_seq: u64,
}

impl Filter {
    /// The lines of these nodes alone; without any, the lines of everybody.
    pub fn nodes(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        Self {
            nodes: nodes.into_iter().collect(),
            ..Self::default()
        }
    }

    /// The same, and only lines that contain this text, ignoring case.
    #[must_use]
    pub fn containing(mut self, text: &str) -> Self {
        self.needle = Some(text.to_lowercase()).filter(|needle| !needle.is_empty());
        self
    }

    /// Whether every line is wanted.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// Whether every line of a block is wanted that begins with this number, whatever stands in it but messages of machines, or
    /// nothing else: told without a look at the lines.
    pub(crate) fn wants_all(&self, first_seq: u64, of_machines: bool) -> bool {
        self.nodes.is_empty()
            && self.level.is_none()
            && self.needle.is_none()
            && self.until_unix_ms.is_none()
            && self.since.is_none_or(|since| first_seq > since.to_seq)
            && (!of_machines || self.machine_level.is_none())
    }

    /// Whether times play a part.
    pub(crate) const fn has_times(&self) -> bool {
        self.since.is_some() || self.until_unix_ms.is_some()
    }

    /// Tells whether a block that ends with this number may hold wanted lines.
    pub(crate) fn wants_times(&self, times: Times) -> bool {
        let is_old = |since: Since| times.last_seq <= since.to_seq && times.newest < since.at_unix_ms;
        !self.since.is_some_and(is_old) && self.until_unix_ms.is_none_or(|until| times.oldest <= until)
    }

    /// Tells whether any of the evicted lines may have been wanted: those up to this number, the newest of this time.
    pub(crate) fn wants_evicted(&self, to_seq: u64, newest: u64) -> bool {
        !self
            .since
            .is_some_and(|since| to_seq <= since.to_seq && newest < since.at_unix_ms)
    }

    /// Tells for each entry of a block whether it is wanted.
    pub(crate) fn judge(&self, first_seq: u64, entries: &[Entry]) -> Vec<bool> {
        let mut wanted = vec![true; entries.len()];
        if self.is_open() {
            return wanted;
        }
        // From the end, so that the time of what follows lost lines is known. What follows the block is not.
        let mut next_at = None;
        for (at, entry) in entries.iter().enumerate().rev() {
            next_at = entry.at_unix_ms().or(next_at);
            wanted[at] = self.wants(entry) && next_at.is_none_or(|time| self.wants_time(first_seq + at as u64, time));
        }
        wanted
    }

    fn wants_time(&self, seq: u64, at_unix_ms: u64) -> bool {
        self.since
            .is_none_or(|since| seq > since.to_seq || at_unix_ms >= since.at_unix_ms)
            && self.until_unix_ms.is_none_or(|until| at_unix_ms <= until)
    }

    fn wants(&self, entry: &Entry) -> bool {
        let source = entry.source();
        if !self.nodes.is_empty() && !matches!(source, LogSource::Node(node) if self.nodes.contains(node)) {
            return false;
        }
        let Entry::Line(LogLine { level, text, .. }) = entry else {
            return true;
        };
        // Less is worse: an error is the least of levels.
        let matters = |least: LogLevel| level.is_some_and(|level| level <= least);
        self.level.is_none_or(matters)
            && (*source != LogSource::Machine || self.machine_level.is_none_or(matters))
            && self
                .needle
                .as_ref()
                .is_none_or(|needle| text.to_lowercase().contains(needle.as_str()))
    }
}
