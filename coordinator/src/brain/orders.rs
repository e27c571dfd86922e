//! How an order of a dataflow's life gets to its machine, and the answer back.

use super::Brain;
use crate::{
    dataflow::machine::{Input, Order, OrderKind, Outcome},
    moment::Moment,
    outbox::{Body, Dispatch},
};
use dora_remote_protocol::{
    coordinator_to_daemon::{ForgetRun, PrepareRun, ReleaseBarrier, SpawnRun, StopRun},
    ids::DataflowId,
    name::MachineName,
};

impl Brain {
    /// Hands an order to the machine's outbox.
    pub(super) fn order(&self, id: DataflowId, machine: &MachineName, order: Order) -> Result<(), Outcome> {
        let connection = self.connections.get(machine).ok_or(Outcome::Lost)?;
        let outbox = connection.outbox.as_ref().ok_or(Outcome::Lost)?;
        let kind = order.kind();
        let body = match order {
            Order::Prepare => Body::Prepare(Box::new(self.prepare_run(id).ok_or(Outcome::Lost)?)),
            Order::Spawn => Body::Spawn(SpawnRun { dataflow: id }),
            Order::Release { exited_before_subscribe } => Body::Release(ReleaseBarrier {
                dataflow: id,
                exited_before_subscribe,
            }),
            Order::Stop { grace_ms } => Body::Stop(StopRun {
                dataflow: id,
                grace_ms,
                force: false,
            }),
            Order::Kill => Body::Stop(StopRun {
                dataflow: id,
                grace_ms: None,
                force: true,
            }),
            Order::Forget => Body::Forget(ForgetRun { dataflow: id }),
        };
        let dispatch = Dispatch {
            dataflow: id,
            order: kind,
            body,
        };
        if outbox.order(dispatch) {
            return Ok(());
        }
        if connection.peer.is_closed() {
            return Err(Outcome::Lost);
        }
        tracing::warn!(%machine, dataflow = %id, "a machine has too many orders that it has not answered");
        Err(Outcome::Full)
    }

    fn prepare_run(&self, id: DataflowId) -> Option<PrepareRun> {
        let life = self.table.get(id)?;
        let spec = life.spec()?;
        Some(PrepareRun {
            dataflow: id,
            name: life.record().name.clone(),
            descriptor: spec.descriptor.clone(),
            nodes: life.record().placed.clone(),
            files: spec.files.clone(),
            uv: spec.uv,
            by: life.record().started_by.clone(),
            link_loss: life.record().link_loss,
        })
    }

    pub(super) fn answered(
        &mut self,
        machine: MachineName,
        connection: u64,
        dataflow: DataflowId,
        order: OrderKind,
        outcome: Outcome,
        now: Moment,
    ) {
        // What a former connection has lost was asked again on the present one.
        let is_former = self
            .machines
            .connection(&machine)
            .is_some_and(|present| present != connection);
        if outcome == Outcome::Lost && is_former {
            return;
        }
        self.step(dataflow, Input::Answered { machine, order, outcome }, now);
    }
}
