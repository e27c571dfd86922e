//! The way of orders to one machine: one bounded queue and one task for each connection.
//!
//! Orders of different dataflows go out side by side; those of one dataflow come one after the other, because the brain sends the next one
//! when it has the answer. A full queue means that the machine is unwell, and the order fails at once.

use crate::{
    dataflow::machine::{OrderKind, Outcome},
    event::{BrainHandle, Event},
};
use dora_remote_link::{CallError, Peer, Tasks};
use dora_remote_protocol::{
    coordinator_to_daemon::{ForgetRun, PrepareRun, ReleaseBarrier, SpawnRun, StopRun},
    ids::DataflowId,
    limits::{ORDER_DEADLINE, PREPARE_DEADLINE, SPAWN_DEADLINE},
    name::MachineName,
    refusal::{Refusal, RefusalCode},
};
use std::collections::BTreeMap;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

/// The sending end.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: mpsc::Sender<Dispatch>,
}

/// One order on its way.
#[derive(Debug)]
pub(crate) struct Dispatch {
    pub(crate) dataflow: DataflowId,
    pub(crate) order: OrderKind,
    pub(crate) body: Body,
}

/// What the machine is asked.
#[derive(Debug)]
pub(crate) enum Body {
    Prepare(Box<PrepareRun>),
    Spawn(SpawnRun),
    Release(ReleaseBarrier),
    Stop(StopRun),
    Forget(ForgetRun),
}

impl Outbox {
    /// Starts the task, which ends with the connection and tells the brain so.
    pub(crate) fn start(tasks: &Tasks, machine: MachineName, peer: Peer, brain: BrainHandle) -> Self {
        let (queue, orders) = mpsc::channel(QUEUE);
        let clerk = Clerk {
            machine,
            peer,
            brain,
            calls: JoinSet::new(),
            preparing: BTreeMap::new(),
        };
        tasks.spawn("orders to a machine", clerk.run(orders));
        Self { queue }
    }

    /// Queues an order; false when the queue is full or the connection is over.
    pub(crate) fn order(&self, dispatch: Dispatch) -> bool {
        self.queue.try_send(dispatch).is_ok()
    }
}

/// The task behind an outbox.
struct Clerk {
    machine: MachineName,
    peer: Peer,
    brain: BrainHandle,
    calls: JoinSet<(DataflowId, OrderKind, Outcome)>,
    /// Calls that a kill of the same dataflow makes pointless.
    preparing: BTreeMap<DataflowId, AbortHandle>,
}

impl Clerk {
    async fn run(mut self, mut orders: mpsc::Receiver<Dispatch>) {
        loop {
            tokio::select! {
                biased;
                _ = self.peer.closed() => break,
                Some(done) = self.calls.join_next() => {
                    // A call that was called off has no answer.
                    if let Ok((dataflow, order, outcome)) = done {
                        self.preparing.retain(|preparing, _| *preparing != dataflow || order != OrderKind::Prepare);
                        self.answer(dataflow, order, outcome).await;
                    }
                }
                order = orders.recv(), if self.calls.len() < AT_ONCE => match order {
                    Some(dispatch) => self.send(dispatch),
                    // The brain uses another connection now, or none.
                    None => break,
                },
            }
        }
        orders.close();
        while let Some(dispatch) = orders.recv().await {
            self.answer(dispatch.dataflow, dispatch.order, Outcome::Lost).await;
        }
        while let Some(done) = self.calls.join_next().await {
            if let Ok((dataflow, order, outcome)) = done {
                self.answer(dataflow, order, outcome).await;
            }
        }
        let left = Event::Left {
            machine: self.machine,
            connection: self.peer.id(),
        };
        self.brain.tell(left).await;
    }

    fn send(&mut self, dispatch: Dispatch) {
        let Dispatch { dataflow, order, body } = dispatch;
        if order == OrderKind::Kill
            && let Some(preparing) = self.preparing.remove(&dataflow)
        {
            preparing.abort();
        }
        let peer = self.peer.clone();
        let call = self.calls.spawn(async move {
            let done = match &body {
                Body::Prepare(request) => peer.call(&**request, PREPARE_DEADLINE).await,
                Body::Spawn(request) => peer.call(request, SPAWN_DEADLINE).await,
                Body::Release(request) => peer.call(request, ORDER_DEADLINE).await,
                Body::Stop(request) => peer.call(request, ORDER_DEADLINE).await,
                Body::Forget(request) => peer.call(request, ORDER_DEADLINE).await,
            };
            (dataflow, order, outcome_of(done))
        });
        if order == OrderKind::Prepare {
            self.preparing.insert(dataflow, call);
        }
    }

    async fn answer(&self, dataflow: DataflowId, order: OrderKind, outcome: Outcome) {
        let answered = Event::Answered {
            machine: self.machine.clone(),
            connection: self.peer.id(),
            dataflow,
            order,
            outcome,
        };
        self.brain.tell(answered).await;
    }
}

fn outcome_of(done: Result<(), CallError>) -> Outcome {
    match done {
        Ok(()) => Outcome::Done,
        Err(CallError::Refused(refusal)) => Outcome::Refused(refusal),
        Err(CallError::TimedOut { .. }) => Outcome::TimedOut,
        Err(CallError::Lost(_) | CallError::PeerRefusedUs { .. } | CallError::HelloRefused(_)) => Outcome::Lost,
        Err(error) => Outcome::Refused(Refusal::new(RefusalCode::Internal, error.to_string())),
    }
}

/// Orders that wait for a machine; one more fails.
const QUEUE: usize = 128;
/// Orders that one machine works on at once, below the streams that it takes.
const AT_ONCE: usize = 32;
