//! How a run is prepared: its files, the engine's check, and the machine's own policy before and after. No process is made.

use super::effects::clear;
use crate::{
    engine_client::EngineHandle,
    policy::Policy,
    records::RunPlan,
    seat::Seat,
    workdir::{Left, Workdir, Workdirs},
};
use dora_remote_link::Peer;
use dora_remote_protocol::{
    agent_to_engine::{EngineOrder, RunOrder},
    coordinator_to_daemon::PrepareRun,
    engine_to_agent::{EngineReply, NodeOutput, RunFacts},
    limits::ORDER_DEADLINE,
    name::MachineName,
    refusal::{Refusal, RefusalCode},
};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::task::spawn_blocking;

/// Time for the engine to check a run; it may have to run other programs for that.
const CHECK_DEADLINE: Duration = Duration::from_secs(90);

/// What preparing works with.
pub(super) struct Hands {
    pub(super) machine: MachineName,
    /// The engine that takes new runs, and its place.
    pub(super) engine: EngineHandle,
    pub(super) seat: Seat,
    pub(super) workdirs: Workdirs,
    pub(super) policy: Option<Arc<Policy>>,
}

impl Hands {
    /// Prepares a run. One that is refused leaves nothing behind.
    pub(super) async fn prepare(self, request: PrepareRun, peer: &Peer) -> Result<RunPlan, Refusal> {
        if let Some(policy) = &self.policy {
            policy.may_start(&self.machine, &request.by)?;
        }
        let (dataflow, files, link_loss) = (request.dataflow, request.files.clone(), request.link_loss);
        let dir = self.workdirs.prepare(dataflow, &files, peer).await?;
        match self.check(request, &dir).await {
            Ok((order, outputs)) => Ok(RunPlan {
                order,
                files,
                outputs,
                owns_dir: dir.owned,
                seat: self.seat,
                link_loss,
            }),
            Err(refusal) => {
                let left = Left {
                    owns_dir: dir.owned,
                    logs: Vec::new(),
                };
                clear(dataflow, left, &self.engine, &self.workdirs).await;
                Err(refusal)
            }
        }
    }

    async fn check(&self, request: PrepareRun, dir: &Workdir) -> Result<(RunOrder, Vec<NodeOutput>), Refusal> {
        let Some(run_dir) = dir.path.to_str() else {
            let text = format!("the run directory {} is no UTF-8 text", dir.path.display());
            return Err(Refusal::new(RefusalCode::NotPrepared, text));
        };
        let order = RunOrder {
            dataflow: request.dataflow,
            name: request.name,
            descriptor: request.descriptor,
            nodes: request.nodes,
            machine: self.machine.clone(),
            run_dir: run_dir.to_owned(),
            uv: request.uv,
        };
        let outputs = match self.engine.order(EngineOrder::Check(order.clone()), CHECK_DEADLINE).await? {
            EngineReply::Checked { outputs } => outputs,
            EngineReply::Done | EngineReply::Facts(_) => return Err(amiss("where output goes")),
        };
        if let Some(policy) = &self.policy {
            let facts = self.inspect(&order).await?;
            let bundle = dir.owned.then(|| PathBuf::from(run_dir));
            let (policy, machine) = (Arc::clone(policy), self.machine.clone());
            let judged = spawn_blocking(move || policy.judge(&machine, &facts, &policy.roots(bundle.as_deref())));
            judged.await.unwrap_or_else(|error| {
                let text = format!("the policy of machine `{}` could not be applied: {error}", self.machine);
                Err(Refusal::new(RefusalCode::Internal, text))
            })?;
        }
        Ok((order, outputs))
    }

    /// What the engine would start; a local node that it does not speak of cannot be judged.
    async fn inspect(&self, order: &RunOrder) -> Result<RunFacts, Refusal> {
        let inspect = EngineOrder::Inspect {
            dataflow: order.dataflow,
        };
        let EngineReply::Facts(facts) = self.engine.order(inspect, ORDER_DEADLINE).await? else {
            return Err(amiss("what it would start"));
        };
        let mut local = order.nodes.iter().filter(|node| node.machine.same_as(&self.machine));
        if local.all(|node| facts.nodes.iter().any(|fact| fact.node == node.id)) {
            Ok(facts)
        } else {
            Err(amiss("what every node would start"))
        }
    }
}

fn amiss(what: &str) -> Refusal {
    Refusal::new(RefusalCode::Internal, format!("the engine did not say {what}"))
}
