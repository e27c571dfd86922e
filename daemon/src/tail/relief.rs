//! Gives space of log files back: when they have more than they may, and when the disk is getting full.

use super::{Tail, series::Give};
use crate::tail::flow::Flow;
use dora_remote_protocol::{ids::DataflowId, log_line::LogSource};
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;

/// Pause between two looks at the space.
const EVERY: Duration = Duration::from_secs(1);
/// Files that are given back at one look at most, so that following goes on meanwhile.
const AT_ONCE: usize = 16;

impl Tail {
    /// Looks at the space now and then. What is shipped goes first; lines that are not go when there is nothing else, those of
    /// ended runs before those of live ones, and of these those of the node that has most. The current file of a live node stays.
    pub(super) fn relieve(&mut self) {
        if self.relieved.elapsed() < EVERY {
            return;
        }
        self.relieved = Instant::now();
        for _ in 0..AT_ONCE {
            let sizes = self.sizes();
            let bytes: u64 = sizes.iter().map(|(_, _, bytes)| bytes).sum();
            self.disk.set_log_bytes(bytes);
            let over = bytes > self.disk.caps().log_bytes;
            let short = self.disk.is_short();
            if !over && !short {
                return;
            }
            if self.give_back(&sizes, |_| Give::Shipped) {
                continue;
            }
            // While ended runs can still go, lines that nobody has seen stay.
            if !over && !self.disk.has_nothing_else() {
                return;
            }
            let any = |flow: &Flow| if flow.has_ended() { Give::All } else { Give::Any };
            if !self.give_back(&sizes, any) {
                return;
            }
            warn!(
                bytes,
                short, "log lines that were not shipped are given up to make room; readers see a gap"
            );
        }
    }

    /// Gives one file back; false when there was none.
    fn give_back(&mut self, sizes: &[(DataflowId, LogSource, u64)], what: impl Fn(&Flow) -> Give) -> bool {
        for (dataflow, source, _) in sizes {
            let Some(flow) = self.flows.get_mut(dataflow) else {
                continue;
            };
            let what = what(flow);
            if flow.give_back(*dataflow, source, what) > 0 {
                if let Some(cursor) = flow.cursor(source) {
                    self.dirty.insert((*dataflow, source.clone()), cursor);
                }
                return true;
            }
        }
        false
    }

    /// Bytes of each node's files: those of ended runs first, the oldest run before others, then those that have most.
    fn sizes(&self) -> Vec<(DataflowId, LogSource, u64)> {
        let mut sizes: Vec<_> = self
            .flows
            .iter()
            .flat_map(|(id, flow)| flow.bytes().map(|(source, bytes)| (!flow.has_ended(), *id, source, bytes)))
            .collect();
        // Ids of runs rise with time.
        sizes.sort_by_key(|(is_live, id, _, bytes)| (*is_live, (!is_live).then_some(*id), u64::MAX - bytes));
        sizes
            .into_iter()
            .map(|(_, id, source, bytes)| (id, source.clone(), bytes))
            .collect()
    }
}
