//! What the brain does about dataflows that run: stops, ends, last log lines, and what is forgotten.

use super::{Brain, StopWaiter};
use crate::{
    asker::Asker,
    dataflow::machine::{Input, Order, StopVerdict},
    event::Reply,
    moment::Moment,
};
use dora_remote_protocol::{
    cli_to_coordinator::DataflowStopped,
    dataflow::DataflowRef,
    ids::DataflowId,
    limits::{DEFAULT_GRACE, ORDER_DEADLINE, STOP_MARGIN},
    name::MachineName,
    refusal::{Changed, Refusal, RefusalCode},
};
use std::{collections::BTreeMap, time::Duration};

impl Brain {
    pub(super) fn stop(
        &mut self,
        asker: &Asker,
        dataflow: &DataflowRef,
        grace_ms: Option<u64>,
        force: bool,
        reply: Reply<DataflowStopped>,
        now: Moment,
    ) {
        let id = match self.table.find(dataflow, &self.sight(asker)) {
            Ok(id) => id,
            Err(refusal) => {
                drop(reply.send(Err(refusal)));
                return;
            }
        };
        let by = asker.who.clone();
        tracing::info!(dataflow = %id, who = by, force, "stops a dataflow");
        self.step(id, Input::Stop { by, grace_ms, force }, now);
        let grace = grace_ms.map_or(DEFAULT_GRACE, Duration::from_millis).min(LONGEST_GRACE);
        self.stops.push(StopWaiter {
            dataflow: id,
            reply,
            deadline: now.steady + (2 * grace + STOP_MARGIN).max(ORDER_DEADLINE),
        });
    }

    /// Answers those whose wait for an end is over.
    pub(super) fn answer_stops(&mut self, now: Moment) {
        let mut waiting = Vec::new();
        for waiter in std::mem::take(&mut self.stops) {
            let Some(life) = self.table.get(waiter.dataflow) else {
                continue;
            };
            let record = life.record();
            let answer = match life.stop_verdict() {
                StopVerdict::Ended => record.result.clone().map(|result| {
                    Ok(DataflowStopped {
                        id: record.id,
                        name: record.name.clone(),
                        result,
                    })
                }),
                StopVerdict::OnlyUnreachable(missing) => Some(Err(unreachable(&missing, now))),
                StopVerdict::UnderWay if now.steady >= waiter.deadline => {
                    let left = record.parts.iter().filter(|(_, part)| !part.ended);
                    let left: Vec<_> = left.map(|(name, _)| format!("`{name}`")).collect();
                    let message = format!("the dataflow has not ended in time on {}; the stop goes on", left.join(", "));
                    let refusal = Refusal::new(RefusalCode::DeadlineExceeded, message);
                    Some(Err(refusal
                        .hint("`dora-remote stop --force` kills it")
                        .changed(Changed::Partly)))
                }
                StopVerdict::UnderWay => None,
            };
            match answer {
                Some(answer) => drop(waiter.reply.send(answer)),
                None if waiter.reply.is_closed() => {}
                None => waiting.push(waiter),
            }
        }
        self.stops = waiting;
    }

    /// Puts away what an ended dataflow does not need.
    pub(super) fn ended(&mut self, id: DataflowId, now: Moment) {
        self.bundles.unpin(id);
        self.feeds.remove(&id);
        self.log_ends.insert(id, now.steady);
        self.table.note_end(id);
        for life in self.table.forget_oldest() {
            let record = life.record();
            self.changes.forget(record.id);
            self.hub.forget(record.id);
            self.log_ends.remove(&record.id);
            for machine in record.parts.keys() {
                // A machine that cannot be reached is told on its return that the run is not wanted.
                if self.order(record.id, machine, Order::Forget).is_err() {
                    tracing::debug!(%machine, dataflow = %record.id, "could not tell a machine to forget a run");
                }
            }
        }
    }

    /// Ends the wait for log lines of dataflows that have ended.
    pub(super) fn close_logs(&mut self, now: Moment) {
        let (table, machines, hub) = (&self.table, &self.machines, &self.hub);
        self.log_ends.retain(|id, since| {
            let Some(life) = table.get(*id) else { return false };
            let waited = now.steady.saturating_duration_since(*since);
            let late = life.record().parts.iter().filter(|(_, part)| !part.logs_shipped);
            let is_reachable = |machine: &MachineName| machines.connection(machine).is_some();
            let is_hopeless = late.map(|(name, _)| name).all(|name| !is_reachable(name));
            let is_over = life.record().has_all_logs() || waited >= if is_hopeless { LAST_LOGS } else { LONGEST_LOGS };
            if is_over {
                hub.complete(*id);
            }
            !is_over
        });
    }
}

fn unreachable(missing: &BTreeMap<MachineName, u64>, now: Moment) -> Refusal {
    let each = missing.iter().map(|(name, since)| {
        let seconds = now.unix_ms.saturating_sub(*since) / 1000;
        format!("`{name}` (last heard {seconds} s ago)")
    });
    let each = each.collect::<Vec<_>>().join(", ");
    Refusal::new(
        RefusalCode::MachineUnreachable,
        format!("the dataflow may still run on {each}, which cannot be reached; everywhere else it has ended"),
    )
    .hint("the stop is kept and delivered when the machine is back; `dora-remote list` shows when it has ended")
    .changed(Changed::Partly)
}

/// Longest grace that a stop waits for.
const LONGEST_GRACE: Duration = Duration::from_secs(1500);
/// Wait for the last log lines of machines that cannot be reached.
const LAST_LOGS: Duration = Duration::from_secs(15);
/// Wait for the last log lines of machines that can be: a long spool over a slow link.
const LONGEST_LOGS: Duration = Duration::from_secs(600);
