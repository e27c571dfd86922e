//! What the brain does about machines that are in use: they report, fall silent and come back. How they join stands in `joins.rs`.

use super::{After, Brain, Verdict};
use crate::{
    dataflow::{machine::Input, record::Part, sight::Sight},
    event::{Counts, LogHolder, LogHolders, Reply},
    machines::MachineRecord,
    moment::Moment,
    recover,
};
use dora_remote_link::{CloseCode, CloseReason, Peer};
use dora_remote_protocol::{
    daemon_to_coordinator::EventsAcked,
    dataflow::NameWish,
    ids::{BundleHash, DataflowId},
    machine::{EngineStatus, LifecycleEvent, LogShipping, MachineFacts, MachineSummary, Reach, RunReport},
    name::MachineName,
    refusal::{Refusal, RefusalCode},
};

impl Brain {
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
            // What was so when it joined comes before what has happened since.
            self.judge_once(&name, seq, now);
            seq = event.seq;
            let machine = name.clone();
            self.step(
                event.dataflow,
                Input::Happened {
                    machine,
                    at_unix_ms: event.at_unix_ms,
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
        self.judge_once(&name, seq, now);
        self.then.push(After::Acked(reply, EventsAcked { seq }));
    }

    pub(super) fn left(&mut self, machine: &MachineName, connection: u64, now: Moment) {
        if !self.machines.left(machine, connection) {
            return;
        }
        let reason = self.connections.remove(machine).and_then(|it| it.peer.close_reason());
        tracing::info!(%machine, reason = reason.as_ref().map(tracing::field::display), "a machine has left");
        // One that was revoked cannot be back in a moment, which is what the usual wait is for.
        let is_revoked = |reason: &CloseReason| {
            matches!(
                reason,
                CloseReason::ByUs {
                    code: CloseCode::Revoked,
                    ..
                }
            )
        };
        if reason.as_ref().is_some_and(is_revoked)
            && let Some(since_unix_ms) = self.machines.lose(machine)
        {
            self.lost(machine, since_unix_ms, now);
        }
    }

    pub(super) fn tick_machines(&mut self, now: Moment) {
        for (machine, since_unix_ms) in self.machines.tick(now) {
            self.lost(&machine, since_unix_ms, now);
        }
    }

    fn lost(&mut self, machine: &MachineName, since_unix_ms: u64, now: Moment) {
        tracing::warn!(%machine, since_unix_ms, "a machine cannot be reached");
        for id in self.lives_on(machine) {
            let machine = machine.clone();
            self.step(id, Input::MachineLost { machine, since_unix_ms }, now);
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

    /// Machines that ship log lines on demand and have not brought all of a dataflow.
    pub(super) fn log_holders(&self, id: DataflowId) -> Result<LogHolders, Refusal> {
        let life = self.table.get(id);
        let record = life
            .ok_or_else(|| Refusal::new(RefusalCode::NotFound, format!("no dataflow {id} is known")))?
            .record();
        let left = record.parts.iter().filter(|(_, part)| part.prepared && !part.logs_shipped);
        let holder = |(name, _): (&MachineName, &Part)| {
            let (known, reach) = self.machines.find(name)?;
            let connection = self.connections.get(name).filter(|connection| connection.outbox.is_some());
            (known.facts.logs == LogShipping::OnDemand).then(|| LogHolder {
                machine: name.clone(),
                peer: connection
                    .filter(|_| reach == Reach::Connected)
                    .map(|connection| connection.peer.clone()),
                unreachable_since_unix_ms: match reach {
                    Reach::Connected => None,
                    Reach::Unreachable { since_unix_ms } => Some(since_unix_ms),
                },
            })
        };
        Ok(LogHolders {
            on_demand: left.filter_map(holder).collect(),
            has_ended: record.state.has_ended(),
        })
    }

    /// The machines within sight.
    pub(super) fn machine_summaries(&self, sight: &Sight, now: Moment) -> Vec<MachineSummary> {
        let is_seen = |id: &DataflowId| self.table.get(*id).is_some_and(|life| sight.has(life.record()));
        let summary = |(record, reach): (&MachineRecord, Reach)| {
            let peer = self.connections.get(&record.name).map(|connection| &connection.peer);
            let reached = peer.filter(|_| reach == Reach::Connected);
            let rtt = reached.map(Peer::rtt);
            let (mtu, black_holes) = reached.map(Peer::path_mtu).unzip();
            MachineSummary {
                name: record.name.clone(),
                facts: MachineFacts {
                    labels: sight.view().overlaid(&record.name, &record.facts.labels),
                    ..record.facts.clone()
                },
                reach,
                last_heard_unix_ms: record.last_heard_unix_ms,
                address: peer.map_or_else(|| record.address.clone(), |peer| peer.remote_address().to_string()),
                rtt_us: rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
                mtu,
                black_holes: black_holes.unwrap_or_default(),
                dataflows: self.lives_on(&record.name).into_iter().filter(is_seen).collect(),
                disk: self.machines.disk(&record.name),
                quarantined: self.machines.quarantined(&record.name, now),
                restored: record.restored,
            }
        };
        let seen = self.machines.iter().filter(|(record, _)| sight.has_machine(&record.name));
        seen.map(summary).collect()
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
    pub(super) fn adopt(&mut self, run: &RunReport, machine: &MachineName, now: Moment) {
        let id = run.dataflow;
        if let Some(life) = self.table.get_mut(id) {
            life.adopt(machine.clone(), recover::adopted_part(), run.nodes.clone());
            // It may have grown out of the limit of somebody who follows it.
            self.view.touch();
        } else {
            let Ok(name) = self.table.name_for(&NameWish::Like(run.name.clone()), &Sight::all()) else {
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

    /// Draws the conclusions from a machine's joining, if they wait for no event above `applied`.
    fn judge_once(&mut self, machine: &MachineName, applied: u64, now: Moment) {
        if self.verdicts.get(machine).is_some_and(|verdict| verdict.seq <= applied)
            && let Some(verdict) = self.verdicts.remove(machine)
        {
            self.judge(machine, verdict, now);
        }
    }

    pub(super) fn judge(&mut self, machine: &MachineName, verdict: Verdict, now: Moment) {
        for (id, nodes) in verdict.known {
            let machine = machine.clone();
            self.step(id, Input::Nodes { machine, nodes }, now);
        }
        for (id, reason) in verdict.gone {
            let reason = reason.to_owned();
            let machine = machine.clone();
            self.step(id, Input::PartGone { machine, reason }, now);
        }
    }

    pub(super) fn back(&mut self, machine: &MachineName, fresh: bool, now: Moment) {
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
