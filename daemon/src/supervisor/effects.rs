//! What the supervisor has done once its changes are stored: answers, commands for the tail, and tasks that report back.

use super::{Input, JoinReport, Reply, Supervisor, prepare::Hands};
use crate::{
    engine_client::EngineHandle,
    seat::Seat,
    store::StoreError,
    tail::TailCommand,
    workdir::{Left, Workdirs},
};
use dora_remote_link::Peer;
use dora_remote_protocol::{
    agent_to_engine::EngineOrder,
    coordinator_to_daemon::{PrepareRun, ReleaseBarrier, StopRun},
    ids::{DataflowId, EngineId},
    limits::{ORDER_DEADLINE, SPAWN_DEADLINE},
    refusal::Refusal,
};
use std::{collections::BTreeSet, time::Duration};
use tokio::sync::oneshot;
use tracing::{debug, warn};

/// Time beyond the engine's own deadline of a spawn.
const SPAWN_MARGIN: Duration = Duration::from_secs(5);
/// Time for the engine to forget a run; when it is down, there is nothing to forget.
const FORGET_DEADLINE: Duration = Duration::from_secs(5);

/// What follows from an input, after the changes are stored.
pub(super) enum Effect {
    Answer(Reply, Result<(), Refusal>),
    Done(oneshot::Sender<()>),
    Cursor(Seat, oneshot::Sender<Option<(EngineId, u64)>>),
    Join(oneshot::Sender<JoinReport>),
    Tail(TailCommand),
    Start(Job),
}

/// A task.
pub(super) enum Job {
    Prepare { request: PrepareRun, peer: Peer },
    Spawn { dataflow: DataflowId },
    Release { request: ReleaseBarrier },
    Stop { request: StopRun, reply: Option<Reply> },
    Remove { dataflow: DataflowId, left: Left },
    Discard { dataflow: DataflowId, left: Left },
    EndStray { dataflow: DataflowId, seat: Seat },
}

impl Supervisor {
    pub(super) async fn carry_out(&self, effect: Effect) -> Result<(), StoreError> {
        // An asker that is gone needs no answer.
        match effect {
            Effect::Answer(reply, result) => drop(reply.send(result)),
            Effect::Done(done) => drop(done.send(())),
            Effect::Cursor(seat, reply) => drop(reply.send(self.book.engine_cursor(seat))),
            Effect::Join(reply) => {
                let untold: BTreeSet<DataflowId> = self.store.run(crate::store::Store::runs_in_outbox).await?;
                let report = JoinReport {
                    runs: self.book.reports(&untold),
                    last_seq: self.book.last_seq(),
                };
                drop(reply.send(report));
            }
            Effect::Tail(command) => self.tail.tell(command).await,
            Effect::Start(job) => self.start(job),
        }
        Ok(())
    }

    /// The place of the engine that has a run.
    fn seat_of(&self, dataflow: DataflowId) -> Seat {
        self.book
            .get(dataflow)
            .map_or_else(|| self.engines.present(), |run| run.plan.seat)
    }

    pub(super) fn start(&self, job: Job) {
        let seat = match &job {
            Job::EndStray { seat, .. } => *seat,
            Job::Spawn { dataflow } | Job::Remove { dataflow, .. } => self.seat_of(*dataflow),
            Job::Release { request } => self.seat_of(request.dataflow),
            Job::Stop { request, .. } => self.seat_of(request.dataflow),
            Job::Prepare { .. } | Job::Discard { .. } => self.engines.present(),
        };
        let (engine, workdirs, inbox) = (self.engines.line(seat).clone(), self.workdirs.clone(), self.inbox.clone());
        let hands = Hands {
            machine: self.machine.clone(),
            engine: engine.clone(),
            seat,
            workdirs: self.workdirs.clone(),
            policy: self.policy.clone(),
        };
        self.tasks.spawn("run", async move {
            let input = match job {
                Job::Prepare { request, peer } => {
                    let dataflow = request.dataflow;
                    let result = Box::new(hands.prepare(request, &peer).await);
                    Input::Prepared { dataflow, result }
                }
                Job::Spawn { dataflow } => {
                    let order = engine.order(EngineOrder::Spawn { dataflow }, SPAWN_DEADLINE + SPAWN_MARGIN);
                    let result = order.await.map(drop);
                    Input::Spawned { dataflow, result }
                }
                Job::Release { request } => {
                    let dataflow = request.dataflow;
                    let order = EngineOrder::Release {
                        dataflow,
                        exited_before_subscribe: request.exited_before_subscribe,
                    };
                    let result = engine.order(order, ORDER_DEADLINE).await.map(drop);
                    Input::Released { dataflow, result }
                }
                Job::Stop { request, reply } => {
                    let StopRun {
                        dataflow,
                        grace_ms,
                        force,
                    } = request;
                    let order = EngineOrder::Stop {
                        dataflow,
                        grace_ms,
                        force,
                    };
                    let result = engine.order(order, ORDER_DEADLINE).await.map(drop);
                    if let Err(refusal) = &result {
                        warn!(%dataflow, %refusal, "the engine did not stop a run");
                    }
                    Input::Stopped { dataflow, result, reply }
                }
                Job::Remove { dataflow, left } => {
                    clear(dataflow, left, &engine, &workdirs).await;
                    Input::Removed(dataflow)
                }
                Job::Discard { dataflow, left } => return clear(dataflow, left, &engine, &workdirs).await,
                Job::EndStray { dataflow, .. } => {
                    let order = EngineOrder::Stop {
                        dataflow,
                        grace_ms: None,
                        force: true,
                    };
                    if let Err(refusal) = engine.order(order, ORDER_DEADLINE).await {
                        debug!(%dataflow, %refusal, "a run that nobody knows was not stopped");
                    }
                    return clear(dataflow, Left::of_stray(), &engine, &workdirs).await;
                }
            };
            // A supervisor that has ended needs to hear nothing.
            let _ = inbox.send(input).await;
        });
    }
}

/// Makes the engine forget a run, and removes what is left of it.
pub(super) async fn clear(dataflow: DataflowId, left: Left, engine: &EngineHandle, workdirs: &Workdirs) {
    if let Err(refusal) = engine.order(EngineOrder::Forget { dataflow }, FORGET_DEADLINE).await {
        debug!(%dataflow, %refusal, "the engine did not forget a run");
    }
    if let Err(error) = workdirs.remove(dataflow, left).await {
        warn!(%dataflow, %error, "what is left of a run cannot be removed");
    }
}
