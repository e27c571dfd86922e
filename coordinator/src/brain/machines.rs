//! What the brain does about machines: they join, report, fall silent and come back.

use super::{After, Brain, Connection, Verdict, starts::are_within_bounds};
use crate::{
    dataflow::machine::Input,
    event::{Counts, Reply},
    machines::Claim,
    moment::Moment,
    outbox::Outbox,
    recover::{self, JoinPlan},
};
use dora_remote_link::{CloseCode, Peer};
use dora_remote_protocol::{
    daemon_to_coordinator::{EventsAcked, JoinMachine, Joined},
    dataflow::NameWish,
    ids::{BundleHash, DataflowId},
    limits::{MAX_LABEL_BYTES, MAX_LABELS},
    machine::{EngineStatus, LifecycleEvent, MachineSummary, Reach, RunReport},
    name::MachineName,
    refusal::{Refusal, RefusalCode},
};

impl Brain {
    pub(super) fn join(&mut self, peer: Peer, request: JoinMachine, reply: Reply<Joined>, now: Moment) {
        let Some(hello) = peer.hello() else {
            drop(reply.send(Err(Refusal::new(RefusalCode::BadRequest, "no hello came before"))));
            return;
        };
        if !are_within_bounds(&request.facts.labels) {
            let message = format!("more than {MAX_LABELS} labels, or one with more than {MAX_LABEL_BYTES} bytes");
            drop(reply.send(Err(Refusal::new(RefusalCode::BadRequest, message))));
            return;
        }
        let claim = Claim {
            name: peer.identity().name.clone(),
            connection: peer.id(),
            instance: hello.instance,
            boot: hello.boot,
            facts: request.facts,
            address: peer.remote_address().to_string(),
            last_seq: request.last_seq,
        };
        let taken = match self.machines.join(claim, now) {
            Ok(taken) => taken,
            Err(refusal) => {
                tracing::warn!(peer = %peer.identity(), remote = %peer.remote_address(), reason = %refusal, "refused a machine");
                drop(reply.send(Err(refusal)));
                return;
            }
        };
        let machine = taken.name;
        if let Some(former) = self.connections.remove(&machine) {
            tracing::info!(%machine, former = %former.peer.remote_address(), "a newer connection takes over");
            former
                .peer
                .close(CloseCode::Superseded, "a newer connection of this machine took over");
        }
        let plan = recover::on_join(&self.table, &machine, &request.runs);
        tracing::info!(
            %machine,
            remote = %peer.remote_address(),
            runs = request.runs.len(),
            unwanted = plan.unwanted.len(),
            events = request.last_seq.saturating_sub(taken.acked_seq),
            "a machine has joined"
        );
        let JoinPlan {
            unwanted,
            adopt,
            known,
            gone,
        } = plan;
        for run in adopt {
            self.adopt(&run, &machine, now);
        }
        self.verdicts.remove(&machine);
        if request.last_seq > taken.acked_seq {
            self.verdicts.insert(
                machine.clone(),
                Verdict {
                    seq: request.last_seq,
                    gone,
                },
            );
        } else {
            self.judge(&machine, gone, now);
        }
        for (id, nodes) in known {
            let machine = machine.clone();
            self.step(id, Input::Nodes { machine, nodes }, now);
        }
        if let Some(record) = self.machines.get(&machine) {
            self.changes.machine(record.clone());
        }
        let joined = Joined {
            acked_seq: taken.acked_seq,
            unwanted,
        };
        self.then.push(After::Joined {
            machine,
            peer,
            joined,
            reply,
        });
    }

    /// The machine is in use now that its joining is stored.
    pub(super) fn joined(&mut self, machine: MachineName, peer: Peer, joined: Joined, reply: Reply<Joined>, now: Moment) {
        if self.machines.connection(&machine) != Some(peer.id()) {
            drop(reply.send(Err(Refusal::new(RefusalCode::Superseded, "a newer connection took over"))));
            return;
        }
        let outbox = Outbox::start(&self.tasks, machine.clone(), peer.clone(), self.handle.clone());
        self.connections.insert(machine.clone(), Connection { peer, outbox });
        drop(reply.send(Ok(joined)));
        self.back(&machine, true, now);
    }

    pub(super) fn heard(
        &mut self,
        machine: &MachineName,
        connection: u64,
        engine: Option<EngineStatus>,
        now: Moment,
    ) -> Result<MachineName, Refusal> {
        let was_lost = self.machines.heard(machine, connection, engine, now)?;
        let name = self
            .machines
            .get(machine)
            .map_or_else(|| machine.clone(), |record| record.name.clone());
        if was_lost {
            tracing::info!(machine = %name, "a machine is heard again");
            self.back(&name, false, now);
        }
        Ok(name)
    }

    pub(super) fn reported(
        &mut self,
        machine: &MachineName,
        connection: u64,
        events: Vec<LifecycleEvent>,
        reply: Reply<EventsAcked>,
        now: Moment,
    ) {
        let name = match self.heard(machine, connection, None, now) {
            Ok(name) => name,
            Err(refusal) => {
                drop(reply.send(Err(refusal)));
                return;
            }
        };
        let acked = self.machines.get(&name).map_or(0, |record| record.acked_seq);
        let mut seq = acked;
        for event in events {
            if event.seq <= seq {
                continue;
            }
            seq = event.seq;
            let machine = name.clone();
            self.step(
                event.dataflow,
                Input::Happened {
                    machine,
                    what: event.what,
                },
                now,
            );
        }
        if seq > acked {
            self.machines.applied(&name, seq);
            if let Some(record) = self.machines.get(&name) {
                self.changes.machine(record.clone());
            }
        }
        if self.verdicts.get(&name).is_some_and(|verdict| verdict.seq <= seq)
            && let Some(verdict) = self.verdicts.remove(&name)
        {
            self.judge(&name, verdict.gone, now);
        }
        self.then.push(After::Acked(reply, EventsAcked { seq }));
    }

    pub(super) fn left(&mut self, machine: &MachineName, connection: u64) {
        if self.machines.left(machine, connection) {
            self.connections.remove(machine);
            tracing::info!(%machine, "a machine has left");
        }
    }

    pub(super) fn tick_machines(&mut self, now: Moment) {
        for (machine, since_unix_ms) in self.machines.tick(now) {
            tracing::warn!(%machine, since_unix_ms, "a machine cannot be reached");
            for id in self.lives_on(&machine) {
                let machine = machine.clone();
                self.step(id, Input::MachineLost { machine, since_unix_ms }, now);
            }
        }
    }

    /// Only daemons that run something with an archive may fetch it.
    pub(super) fn may_fetch(&self, machine: &MachineName, hash: BundleHash) -> Result<(), Refusal> {
        let runs_it = self
            .table
            .live()
            .map(|life| life.record())
            .any(|record| record.bundle == Some(hash) && record.parts.keys().any(|name| name.same_as(machine)));
        if runs_it {
            return Ok(());
        }
        Err(Refusal::new(
            RefusalCode::Denied,
            format!("machine `{machine}` runs nothing that needs the bundle {hash}"),
        ))
    }

    pub(super) fn machine_summaries(&self) -> Vec<MachineSummary> {
        let summary = |(record, reach): (&crate::machines::MachineRecord, Reach)| {
            let peer = self.connections.get(&record.name).map(|connection| &connection.peer);
            let rtt = peer.filter(|_| reach == Reach::Connected).map(Peer::rtt);
            MachineSummary {
                name: record.name.clone(),
                facts: record.facts.clone(),
                reach,
                last_heard_unix_ms: record.last_heard_unix_ms,
                address: peer.map_or_else(|| record.address.clone(), |peer| peer.remote_address().to_string()),
                rtt_us: rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
                dataflows: self.lives_on(&record.name),
            }
        };
        self.machines.iter().map(summary).collect()
    }

    pub(super) fn counts(&self) -> Counts {
        let connected = self.machines.iter().filter(|(_, reach)| *reach == Reach::Connected).count() as u64;
        let live = self.table.live().count() as u64;
        Counts {
            machines_connected: connected,
            machines_unreachable: self.machines.iter().count() as u64 - connected,
            dataflows_live: live,
            dataflows_ended: self.table.iter().count() as u64 - live,
        }
    }

    /// Lists a run that was found on a machine.
    fn adopt(&mut self, run: &RunReport, machine: &MachineName, now: Moment) {
        let id = run.dataflow;
        if let Some(life) = self.table.get_mut(id) {
            life.adopt(machine.clone(), recover::adopted_part(), run.nodes.clone());
        } else {
            let Ok(name) = self.table.name_for(&NameWish::Like(run.name.clone())) else {
                return;
            };
            tracing::warn!(%machine, dataflow = %id, %name, "found a run that is not remembered here");
            self.table.insert(recover::adopted(run, machine, name, now.unix_ms));
            self.open_feed(id);
        }
        self.hub.register(id, [machine.clone()]);
        if let Some(life) = self.table.get(id) {
            self.changes.dataflow(life.record().clone());
        }
    }

    fn judge(&mut self, machine: &MachineName, gone: Vec<(DataflowId, &'static str)>, now: Moment) {
        for (id, reason) in gone {
            let reason = reason.to_owned();
            let machine = machine.clone();
            self.step(id, Input::PartGone { machine, reason }, now);
        }
    }

    fn back(&mut self, machine: &MachineName, fresh: bool, now: Moment) {
        for id in self.lives_on(machine) {
            let machine = machine.clone();
            self.step(id, Input::MachineBack { machine, fresh }, now);
        }
    }

    /// Dataflows that have a part on a machine and have not ended.
    fn lives_on(&self, machine: &MachineName) -> Vec<DataflowId> {
        let lives = self.table.live().map(|life| life.record());
        lives
            .filter(|record| record.parts.contains_key(machine))
            .map(|record| record.id)
            .collect()
    }
}
