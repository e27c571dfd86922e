//! What each machine is to be told next. It follows from the state and the machine's part; orders that were lost come
//! again by themselves when the machine is back.

use super::{Command, Life, Order, OrderKind};
use crate::{
    dataflow::record::{Part, StopForce},
    moment::Moment,
};
use dora_remote_protocol::dataflow::DataflowState;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// What is known about the way to one machine. Not remembered across restarts.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// Orders that have no answer yet.
    pub(super) in_flight: BTreeSet<OrderKind>,
    /// The connection was lost; nothing is sent until the machine is back.
    pub(super) is_cut: bool,
    /// The machine did not do as told; nothing is sent before.
    pub(super) not_before: Option<Instant>,
    /// Anything was ever ordered.
    pub(super) is_asked: bool,
    /// While a start is undone: the machine has killed what there was.
    pub(super) is_killed: bool,
    /// While a start is undone: the machine has forgotten the run.
    pub(super) is_forgotten: bool,
}

impl Wire {
    pub(super) fn wait_until(&mut self, now: Moment) {
        self.not_before = Some(now.steady + AGAIN_AFTER);
    }
}

impl Life {
    /// Sends every order that is owed, not under way and has a way to go.
    pub(super) fn send_what_is_owed(&mut self, now: Moment, out: &mut Vec<Command>) {
        if !self.begun || self.record.state.has_ended() {
            return;
        }
        let names: Vec<_> = self.record.parts.keys().cloned().collect();
        for machine in names {
            let Some((part, wire)) = self.record.parts.get(&machine).zip(self.wires.get(&machine)) else {
                continue;
            };
            let can_send = !wire.is_cut
                && part.unreachable_since_unix_ms.is_none()
                && wire.not_before.is_none_or(|not_before| now.steady >= not_before);
            if !can_send {
                continue;
            }
            let Some(order) = self.owed(part, wire) else { continue };
            if let Some(wire) = self.wires.get_mut(&machine)
                && wire.in_flight.insert(order.kind())
            {
                wire.is_asked = true;
                out.push(Command::Order { machine, order });
            }
        }
    }

    fn owed(&self, part: &Part, wire: &Wire) -> Option<Order> {
        if self.undo.is_some() {
            return match wire {
                _ if !wire.is_asked || wire.is_forgotten => None,
                wire if !wire.is_killed => Some(Order::Kill),
                _ => Some(Order::Forget),
            };
        }
        match self.record.state {
            DataflowState::Preparing => (!part.prepared).then_some(Order::Prepare),
            DataflowState::Starting => (!part.spawned).then_some(Order::Spawn),
            DataflowState::Running | DataflowState::Stopping if part.ended => None,
            DataflowState::Running | DataflowState::Stopping => {
                let wish = self
                    .record
                    .stop
                    .as_ref()
                    .filter(|wish| Some(wish.force) > part.stop_confirmed);
                match wish {
                    Some(wish) if wish.force == StopForce::Kill => Some(Order::Kill),
                    Some(wish) => Some(Order::Stop { grace_ms: wish.grace_ms }),
                    // A node that waits at the barrier hears of a stop only once it was let go.
                    None if self.record.parts.len() > 1 && !part.released => Some(self.release()),
                    None => None,
                }
            }
            DataflowState::Finished | DataflowState::Failed => None,
        }
    }

    fn release(&self) -> Order {
        let exited: BTreeSet<_> = self
            .record
            .parts
            .values()
            .filter_map(|part| part.barrier.as_ref())
            .flatten()
            .collect();
        Order::Release {
            exited_before_subscribe: exited.into_iter().cloned().collect(),
        }
    }
}

/// Wait before a machine that did not do as told is told again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
