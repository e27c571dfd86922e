//! What the coordinator's orders mean for the account: preparing, spawning, forgetting.

use super::{
    Preparing, Reply, Step, Supervisor,
    effects::{Effect, Job},
};
use crate::{
    clock::now_unix_ms,
    records::{Changes, Forget, RunPlan},
    tail::TailCommand,
    workdir::Left,
};
use dora_remote_protocol::{
    coordinator_to_daemon::StopRun,
    ids::DataflowId,
    machine::RunPhase,
    name::MachineName,
    refusal::{Refusal, RefusalCode},
};
use tracing::{info, warn};

impl Supervisor {
    pub(super) fn prepared(
        &mut self,
        dataflow: DataflowId,
        result: Result<RunPlan, Refusal>,
        changes: &mut Changes,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Preparing { waiters, unwanted }) = self.preparing.remove(&dataflow) else {
            return;
        };
        let answer = match result {
            Ok(plan) if unwanted => {
                let left = Left::of(&plan);
                effects.push(Effect::Start(Job::Discard { dataflow, left }));
                Err(Refusal::new(
                    RefusalCode::WrongState,
                    "the dataflow was stopped while it was prepared",
                ))
            }
            Ok(plan) => {
                let follow = TailCommand::Follow {
                    plan: Box::new(plan.clone()),
                    ended: false,
                };
                info!(%dataflow, name = %plan.order.name, dir = plan.order.run_dir, "a run is prepared");
                self.book.add(plan, changes);
                effects.push(Effect::Tail(follow));
                Ok(())
            }
            Err(refusal) => {
                warn!(%dataflow, %refusal, "a run cannot be prepared");
                Err(refusal)
            }
        };
        for reply in waiters {
            effects.push(Effect::Answer(reply, answer.clone()));
        }
    }

    pub(super) fn spawn(&mut self, dataflow: DataflowId, reply: Reply, changes: &mut Changes, effects: &mut Vec<Effect>) {
        let answer = match self.book.get(dataflow).map(|run| (run.state.phase, run.state.spawned)) {
            None => Err(unknown(&self.machine, dataflow)),
            Some((_, true)) => Ok(()),
            Some((RunPhase::Prepared | RunPhase::Spawning, false)) => {
                self.book.update(dataflow, changes, |state| state.phase = RunPhase::Spawning);
                if self.wait(dataflow, Step::Spawn, reply) {
                    effects.push(Effect::Start(Job::Spawn { dataflow }));
                }
                return;
            }
            Some((RunPhase::Ended, false)) => Err(ended(dataflow)),
            Some((RunPhase::AtBarrier | RunPhase::Running | RunPhase::Stopping, false)) => Err(Refusal::new(
                RefusalCode::WrongState,
                format!("dataflow {dataflow} is past its spawn"),
            )),
        };
        effects.push(Effect::Answer(reply, answer));
    }

    /// Marks a run to be forgotten. One with processes is not.
    pub(super) fn forget(
        &mut self,
        dataflow: DataflowId,
        when: Forget,
        changes: &mut Changes,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let Some(run) = self.book.get(dataflow) else {
            if let Some(preparing) = self.preparing.get_mut(&dataflow) {
                preparing.unwanted = true;
            }
            return Ok(());
        };
        match run.state.phase {
            RunPhase::Ended => self.book.update(dataflow, changes, |state| state.forget = when),
            RunPhase::Prepared => {
                // It never had a process, so that there is no end to tell.
                self.book.update(dataflow, changes, |state| {
                    state.phase = RunPhase::Ended;
                    state.ended_unix_ms = Some(now_unix_ms());
                    state.forget = Forget::WhenEnded;
                });
                effects.push(Effect::Tail(TailCommand::Ended(dataflow)));
            }
            RunPhase::Spawning | RunPhase::AtBarrier | RunPhase::Running | RunPhase::Stopping => {
                let text = format!("dataflow {dataflow} has not ended on machine `{}`", self.machine);
                return Err(Refusal::new(RefusalCode::WrongState, text).hint("stop it first"));
            }
        }
        Ok(())
    }

    /// The coordinator does not want a run here: it is ended by force and forgotten.
    pub(super) fn unwanted(&mut self, dataflow: DataflowId, changes: &mut Changes, effects: &mut Vec<Effect>) {
        if self.forget(dataflow, Forget::WhenEnded, changes, effects).is_err() {
            warn!(%dataflow, "the coordinator does not want this run; it is stopped by force");
            self.book.update(dataflow, changes, |state| {
                state.phase = RunPhase::Stopping;
                state.forget = Forget::WhenEnded;
            });
            let request = StopRun {
                dataflow,
                grace_ms: None,
                force: true,
            };
            effects.push(Effect::Start(Job::Stop { request, reply: None }));
        }
    }
}

pub(super) fn unknown(machine: &MachineName, dataflow: DataflowId) -> Refusal {
    Refusal::new(
        RefusalCode::NotFound,
        format!("machine `{machine}` has no dataflow {dataflow}"),
    )
}

pub(super) fn ended(dataflow: DataflowId) -> Refusal {
    Refusal::new(RefusalCode::WrongState, format!("dataflow {dataflow} has ended"))
}

pub(super) fn not_spawned(dataflow: DataflowId) -> Refusal {
    Refusal::new(RefusalCode::WrongState, format!("dataflow {dataflow} is not spawned"))
}
