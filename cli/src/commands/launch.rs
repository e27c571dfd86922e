//! Starts a dataflow and watches its life: the two feeds of events about one dataflow, over lost connections.
//!
//! What its nodes write is followed elsewhere (`follow.rs`).

use crate::{
    client::Session,
    exit::Exit,
    failure::Failure,
    output::{
        Printer,
        json::{self, FeedLine},
        time::{relative, rfc3339, span, unix_ms},
    },
};
use dora_remote_protocol::{
    cli_to_coordinator::{StartDataflow, WatchDataflow},
    dataflow::{DataflowEvent, DataflowRef, DataflowResult, DataflowState, NodeState, NodeStatus, PlacedNode},
    ids::DataflowId,
    name::{DataflowName, MachineName},
    request::Request,
};
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};
use tokio::sync::watch;

/// A dataflow whose nodes have machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Id of the run.
    pub id: DataflowId,
    /// Its name.
    pub name: DataflowName,
    /// Which node runs where.
    pub nodes: Vec<PlacedNode>,
}

impl Placed {
    /// Machine by machine, in words: `m1: a, b`.
    #[must_use]
    pub fn by_machine(&self) -> Vec<String> {
        let mut machines: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for node in &self.nodes {
            let dynamic = if node.dynamic { " (dynamic: start it yourself)" } else { "" };
            machines
                .entry(node.machine.as_str())
                .or_default()
                .push(format!("{}{dynamic}", node.id));
        }
        machines
            .into_iter()
            .map(|(machine, nodes)| format!("{machine}: {}", nodes.join(", ")))
            .collect()
    }
}

/// Age in milliseconds from which news of a node is told with it: it was not told sooner because a link was cut.
const LATE_MS: u64 = 5_000;

/// Tells what happens to one dataflow.
pub struct Teller<'a> {
    printer: &'a Printer,
    placed: watch::Sender<Option<Placed>>,
    /// Whether programs get the events as lines.
    lines: bool,
    state: Option<DataflowState>,
    /// Machines that cannot be reached, and when they were heard last.
    unreachable: BTreeMap<MachineName, u64>,
}

impl<'a> Teller<'a> {
    /// A teller; with `lines`, events go to standard output too when JSON is asked for.
    #[must_use]
    pub fn new(printer: &'a Printer, lines: bool) -> Self {
        Self {
            printer,
            placed: watch::Sender::new(None),
            lines: lines && printer.is_json(),
            state: None,
            unreachable: BTreeMap::new(),
        }
    }

    /// Gets the dataflow once its nodes have machines.
    #[must_use]
    pub fn placed(&self) -> watch::Receiver<Option<Placed>> {
        self.placed.subscribe()
    }

    /// Starts the dataflow and waits until it runs; gives its result if it has ended by then.
    ///
    /// # Errors
    /// Why it could not be started; what had been started is undone by the coordinator.
    pub async fn launch(&mut self, session: &Session, request: &StartDataflow) -> Result<Option<DataflowResult>, Failure> {
        self.until_end(session, request, "start the dataflow").await
    }

    /// Watches a dataflow that runs to its end.
    ///
    /// # Errors
    /// What ends the feed for good.
    pub async fn watch(&mut self, session: &Session, id: DataflowId) -> Result<DataflowResult, Failure> {
        let request = WatchDataflow {
            dataflow: DataflowRef::Id(id),
        };
        let result = self
            .until_end(session, &request, "watch the dataflow")
            .await
            .map_err(Failure::looking)?;
        result.ok_or_else(|| Failure::new(Exit::Failed, "the coordinator did not say how the dataflow ended"))
    }

    async fn until_end<R>(&mut self, session: &Session, request: &R, what: &str) -> Result<Option<DataflowResult>, Failure>
    where
        R: Request<Reply = DataflowEvent>,
    {
        let mut peer = session.peer().await;
        loop {
            let ended = match peer.feed(request, None).await {
                Err(error) => error,
                Ok(mut feed) => {
                    let mut result = None;
                    loop {
                        match session.next(&peer, &mut feed).await {
                            Ok(Some(DataflowEvent::Ended(how))) => result = Some(how),
                            Ok(Some(event)) => self.tell(event).await?,
                            Ok(None) => return Ok(result),
                            // The last event has come; nothing that could still be lost matters.
                            Err(_) if result.is_some() => return Ok(result),
                            Err(error) => break error,
                        }
                    }
                }
            };
            if !session.may_return(&peer, &ended).await {
                return Err(Failure::of_call(what, &ended));
            }
            peer = session.reconnect(&peer).await?;
        }
    }

    async fn tell(&mut self, event: DataflowEvent) -> Result<(), Failure> {
        match event {
            DataflowEvent::Placed { id, name, nodes } => self.tell_placed(Placed { id, name, nodes }).await?,
            DataflowEvent::State(state) => self.tell_state(state).await?,
            DataflowEvent::Node { node, at_unix_ms } => self.tell_node(&node, at_unix_ms).await?,
            DataflowEvent::Reach {
                machine,
                unreachable_since_unix_ms,
            } => self.tell_reach(machine, unreachable_since_unix_ms).await?,
            DataflowEvent::LinkLost {
                machine,
                at_unix_ms,
                silent_ms,
            } => self.tell_link_lost(&machine, at_unix_ms, silent_ms).await?,
            DataflowEvent::MachineDone { .. } | DataflowEvent::Ended(_) => {}
        }
        Ok(())
    }

    fn now(&self) -> u64 {
        unix_ms(SystemTime::now())
    }

    async fn tell_node(&mut self, node: &NodeStatus, at_unix_ms: Option<u64>) -> Result<(), Failure> {
        if self.lines {
            let line = FeedLine::Node {
                node: node.id.as_str(),
                machine: &node.machine,
                state: node.state.as_str(),
                time: at_unix_ms.map(rfc3339),
            };
            self.printer.chunk(line.to_line()).await?;
        }
        if node.state == NodeState::Failed {
            let late = at_unix_ms
                .map(|at| self.now().saturating_sub(at))
                .filter(|late| *late >= LATE_MS);
            let when = late.map_or_else(String::new, |late| format!(" {} ago", span(Duration::from_millis(late))));
            self.printer
                .note(&format!("node `{}` on `{}` failed{when}", node.id, node.machine));
        }
        Ok(())
    }

    async fn tell_reach(&mut self, machine: MachineName, unreachable_since_unix_ms: Option<u64>) -> Result<(), Failure> {
        if self.lines {
            let line = FeedLine::Reach {
                machine: &machine,
                unreachable_since: unreachable_since_unix_ms.map(rfc3339),
            };
            self.printer.chunk(line.to_line()).await?;
        }
        let now = self.now();
        if let Some(since) = unreachable_since_unix_ms {
            let heard = relative(since, now);
            self.printer
                .note(&format!("machine `{machine}` cannot be reached; it was heard last {heard}"));
            self.unreachable.insert(machine, since);
        } else {
            let since = self.unreachable.remove(&machine);
            let after = since.map_or_else(String::new, |since| {
                format!(" after {}", span(Duration::from_millis(now.saturating_sub(since))))
            });
            self.printer.note(&format!("machine `{machine}` is back{after}"));
        }
        Ok(())
    }

    async fn tell_link_lost(&mut self, machine: &MachineName, at_unix_ms: u64, silent_ms: u64) -> Result<(), Failure> {
        if self.lines {
            let line = FeedLine::LinkLost {
                machine,
                time: rfc3339(at_unix_ms),
                silent_ms,
            };
            self.printer.chunk(line.to_line()).await?;
        }
        let (at, silent) = (
            relative(at_unix_ms, unix_ms(SystemTime::now())),
            span(Duration::from_millis(silent_ms)),
        );
        self.printer.warn(&format!(
            "machine `{machine}` stopped its part {at} by its link-loss policy: it had not heard the coordinator for {silent}"
        ));
        Ok(())
    }

    async fn tell_placed(&mut self, placed: Placed) -> Result<(), Failure> {
        if self.placed.borrow().is_some() {
            return Ok(());
        }
        if self.lines {
            let line = FeedLine::Placed {
                id: placed.id,
                name: &placed.name,
                nodes: placed.nodes.iter().map(json::Placed::from).collect(),
            };
            self.printer.chunk(line.to_line()).await?;
        }
        self.printer.note(&format!("`{}` ({})", placed.name, placed.id));
        for machine in placed.by_machine() {
            self.printer.note(&format!("  {machine}"));
        }
        self.placed.send_replace(Some(placed));
        Ok(())
    }

    async fn tell_state(&mut self, state: DataflowState) -> Result<(), Failure> {
        if self.state.replace(state) == Some(state) {
            return Ok(());
        }
        if self.lines {
            let line = FeedLine::State { state: state.as_str() };
            self.printer.chunk(line.to_line()).await?;
        }
        // How it ended is told with its result.
        if !state.has_ended() {
            self.printer.note(&format!("  {}", state.as_str().to_lowercase()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placement_is_told_machine_by_machine() {
        let node = |id: &str, machine: &str, dynamic| PlacedNode {
            id: id.parse().expect("a node"),
            machine: machine.parse().expect("a machine"),
            dynamic,
        };
        let placed = Placed {
            id: DataflowId(uuid::Uuid::nil()),
            name: "a".parse().expect("a name"),
            nodes: vec![node("x", "m2", false), node("y", "m1", true), node("z", "m2", false)],
        };
        assert_eq!(placed.by_machine(), ["m1: y (dynamic: start it yourself)", "m2: x, z"]);
    }
}
