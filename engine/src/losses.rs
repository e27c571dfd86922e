//! Lines of nodes that could not be written: counted here, and told now and then, however many there are. Pure.
//!
//! Dora says so for every second line. One message opens a burst; the count follows, and readers see it as a gap.

use dora_remote_protocol::{
    engine_to_agent::EngineEvent,
    ids::{DataflowId, NodeId},
    log_line::{LogLevel, LogSource},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Time without a loss after which the next one is told in words again.
const BURST_ENDS_AFTER: Duration = Duration::from_secs(60);

/// What was lost and not told yet.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    nodes: BTreeMap<(DataflowId, NodeId), Loss>,
}

#[derive(Debug, Default)]
struct Loss {
    untold: u64,
    /// When lines were last lost, by the steady clock: the other one may be set meanwhile.
    last: Option<Instant>,
}

impl Losses {
    /// Counts lines. Returns what is to be said of it, if this is news.
    pub(crate) fn add(
        &mut self,
        dataflow: DataflowId,
        node: NodeId,
        lines: u64,
        why: String,
        now: Instant,
    ) -> Option<EngineEvent> {
        let text = format!("{node}: its output cannot be written, and lines are lost: {why}");
        let loss = self.nodes.entry((dataflow, node)).or_default();
        let is_news = loss
            .last
            .is_none_or(|last| now.saturating_duration_since(last) > BURST_ENDS_AFTER);
        loss.untold += lines;
        loss.last = Some(now);
        is_news.then_some(EngineEvent::Message {
            source: LogSource::Machine,
            level: LogLevel::Error,
            text,
        })
    }

    /// Everything that was not told yet.
    pub(crate) fn take(&mut self) -> Vec<(DataflowId, EngineEvent)> {
        let untold = self.nodes.iter_mut().filter(|(_, loss)| loss.untold > 0);
        untold.map(|((dataflow, node), loss)| (*dataflow, loss.take(node))).collect()
    }

    /// What was not told yet of a run that has ended; it is forgotten here.
    pub(crate) fn end(&mut self, dataflow: DataflowId) -> Vec<EngineEvent> {
        let ended = self.nodes.extract_if(.., |(of, _), _| *of == dataflow);
        ended
            .filter(|(_, loss)| loss.untold > 0)
            .map(|((_, node), mut loss)| loss.take(&node))
            .collect()
    }
}

impl Loss {
    fn take(&mut self, node: &NodeId) -> EngineEvent {
        EngineEvent::LinesLost {
            node: node.clone(),
            lines: std::mem::take(&mut self.untold),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn lost(node: &str, lines: u64) -> EngineEvent {
        let node = node.parse().expect("an id");
        EngineEvent::LinesLost { node, lines }
    }

    #[test]
    fn a_burst_is_told_in_words_once_and_counted_to_the_end() {
        let run = DataflowId(Uuid::from_u128(1));
        let mut losses = Losses::default();
        let begin = Instant::now();
        let add = |losses: &mut Losses, node: &str, seconds| {
            let at = begin + Duration::from_secs(seconds);
            losses.add(run, node.parse().expect("an id"), 2, "no space".to_owned(), at)
        };
        let said = add(&mut losses, "a", 0);
        assert!(matches!(said, Some(EngineEvent::Message { text, .. }) if text.starts_with("a: ") && text.ends_with("no space")));
        assert_eq!(add(&mut losses, "a", 1), None);
        assert!(add(&mut losses, "b", 1).is_some());
        assert_eq!(losses.take(), [(run, lost("a", 4)), (run, lost("b", 2))]);
        assert_eq!(losses.take(), []);
        assert_eq!(add(&mut losses, "a", 61), None, "the burst goes on");
        assert_eq!(losses.end(run), [lost("a", 2)]);
        assert!(add(&mut losses, "a", 62).is_some());
        assert!(add(&mut losses, "a", 123).is_some(), "a burst has ended");
    }
}
