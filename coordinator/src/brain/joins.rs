//! How a machine comes into use. A newcomer that could be a copy of a machine that goes on beside it waits until that one was asked
//! whether it is still there.

use super::{After, Brain, Connection, Verdict, starts::are_within_bounds};
use crate::{
    event::{Admitted, Event, Reply},
    machines::{Claim, Judgement},
    moment::Moment,
    outbox::Outbox,
    recover::{self, JoinPlan},
};
use dora_remote_link::{CallError, CloseCode, Peer};
use dora_remote_protocol::{
    coordinator_to_daemon::Ping,
    daemon_to_coordinator::{JoinMachine, Joined},
    limits::{MAX_LABEL_BYTES, MAX_LABELS},
    name::MachineName,
    refusal::{Refusal, RefusalCode},
};
use std::time::Duration;

/// A daemon that wants its machine to be used.
pub(super) struct Newcomer {
    pub(super) peer: Peer,
    pub(super) request: Box<JoinMachine>,
    pub(super) reply: Reply<Admitted>,
}

impl Brain {
    pub(super) fn join(&mut self, newcomer: Newcomer, now: Moment) {
        if newcomer.peer.is_closed() || newcomer.reply.is_closed() {
            return;
        }
        let claim = match newcomer.claim() {
            Ok(claim) => claim,
            Err(refusal) => {
                drop(newcomer.reply.send(Err(refusal)));
                return;
            }
        };
        self.leave_if_closed(&claim.name, now);
        match self.machines.judge(&claim, now) {
            Judgement::TakesOver => self.take(newcomer, claim, now),
            Judgement::AskFirst { connection } => self.ask_first(newcomer, &claim.name, connection, now),
        }
    }

    /// Those who wait for the place of a machine get their answer, now that it has answered or has not.
    pub(super) fn probed(&mut self, machine: &MachineName, connection: u64, is_there: bool, now: Moment) {
        let Some(waiting) = self.probes.remove(machine) else { return };
        let is_used = self.machines.connection(machine) == Some(connection);
        tracing::debug!(%machine, is_there, is_used, waiting = waiting.len(), "asked a machine whether it is still there");
        if is_there && is_used {
            // The connection was looked up just now.
            drop(self.heard(machine, connection, None, now));
            for newcomer in waiting {
                self.refuse(newcomer, now);
            }
            return;
        }
        if is_used {
            self.machines.unanswered(machine);
        }
        for newcomer in waiting {
            self.join(newcomer, now);
        }
    }

    /// The machine is in use now that its joining is stored.
    pub(super) fn joined(&mut self, machine: MachineName, peer: Peer, joined: Admitted, reply: Reply<Admitted>, now: Moment) {
        let connection = self.connections.get_mut(&machine);
        let Some(connection) = connection.filter(|connection| connection.peer.id() == peer.id()) else {
            let refusal = Refusal::new(RefusalCode::Superseded, "a newer connection took over, or this one has ended");
            drop(reply.send(Err(refusal)));
            return;
        };
        connection.outbox = Some(Outbox::start(&self.tasks, machine.clone(), peer, self.handle.clone()));
        drop(reply.send(Ok(joined)));
        self.back(&machine, true, now);
    }

    fn take(&mut self, newcomer: Newcomer, claim: Claim, now: Moment) {
        let Newcomer { peer, request, reply } = newcomer;
        let is_new = self.machines.get(&claim.name).is_none();
        let taken = match self.machines.take(claim, now) {
            Ok(taken) => taken,
            Err(refusal) => {
                drop(reply.send(Err(refusal)));
                return;
            }
        };
        let machine = taken.name;
        let connection = Connection {
            peer: peer.clone(),
            outbox: None,
        };
        let former = self.connections.insert(machine.clone(), connection);
        if let Some(former) = former.filter(|former| former.peer.id() != peer.id()) {
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
        let seq = request.last_seq;
        let verdict = Verdict { seq, known, gone };
        if seq > taken.acked_seq {
            self.verdicts.insert(machine.clone(), verdict);
        } else {
            self.judge(&machine, verdict, now);
        }
        if let Some(record) = self.machines.get(&machine) {
            self.changes.machine(record.clone());
        }
        let joined = Joined {
            acked_seq: taken.acked_seq,
            unwanted,
        };
        let joined = Admitted::Joined { joined, is_new };
        self.then.push(After::Joined {
            machine,
            peer,
            joined,
            reply,
        });
    }

    /// Lets a newcomer wait, and asks the machine in use, unless it is being asked.
    fn ask_first(&mut self, newcomer: Newcomer, name: &MachineName, connection: u64, now: Moment) {
        // Names that differ in case are one; the one in use counts.
        let machine = self
            .machines
            .get(name)
            .map_or_else(|| name.clone(), |record| record.name.clone());
        if let Some(waiting) = self.probes.get_mut(&machine) {
            if waiting.len() < WAITING {
                waiting.push(newcomer);
                return;
            }
            let message = format!("{WAITING} others wait for the place of machine `{machine}`");
            drop(newcomer.reply.send(Err(Refusal::new(RefusalCode::Busy, message))));
            return;
        }
        let Some(used) = self.connections.get(&machine).filter(|used| used.peer.id() == connection) else {
            // Nobody can be asked, which is as good as no answer.
            self.machines.unanswered(&machine);
            self.join(newcomer, now);
            return;
        };
        let (peer, handle) = (used.peer.clone(), self.handle.clone());
        self.probes.insert(machine.clone(), vec![newcomer]);
        self.tasks.spawn("probe of a machine", async move {
            // A no is an answer as well.
            let is_there = matches!(peer.call(&Ping {}, PROBE).await, Ok(()) | Err(CallError::Refused(_)));
            let probed = Event::Probed {
                machine,
                connection,
                is_there,
            };
            handle.tell(probed).await;
        });
    }

    /// Refuses a newcomer in favour of the machine that has answered.
    fn refuse(&mut self, newcomer: Newcomer, now: Moment) {
        let Ok(claim) = newcomer.claim() else { return };
        let quarantined = self.machines.quarantine(&claim, now);
        let answer = if quarantined.is_news {
            Err(quarantined.refusal)
        } else {
            Ok(Admitted::StillRefused(quarantined.refusal))
        };
        drop(newcomer.reply.send(answer));
    }

    /// Notes the end of a machine's connection before the task that waits for it says so.
    fn leave_if_closed(&mut self, name: &MachineName, now: Moment) {
        let Some(record) = self.machines.get(name) else { return };
        let machine = record.name.clone();
        let closed = self.connections.get(&machine).filter(|used| used.peer.is_closed());
        if let Some(connection) = closed.map(|used| used.peer.id()) {
            self.left(&machine, connection, now);
        }
    }
}

impl Newcomer {
    /// What the daemon says of itself, if it keeps its bounds.
    fn claim(&self) -> Result<Claim, Refusal> {
        let bad = |message: String| Refusal::new(RefusalCode::BadRequest, message);
        let hello = self.peer.hello().ok_or_else(|| bad("no hello came before".to_owned()))?;
        if !are_within_bounds(&self.request.facts.labels) {
            let message = format!("more than {MAX_LABELS} labels, or one with more than {MAX_LABEL_BYTES} bytes");
            return Err(bad(message));
        }
        Ok(Claim {
            name: self.peer.identity().name.clone(),
            connection: self.peer.id(),
            instance: hello.instance,
            boot: hello.boot,
            counter: hello.counter,
            facts: self.request.facts.clone(),
            address: self.peer.remote_address().to_string(),
            last_seq: self.request.last_seq,
        })
    }
}

/// Time for the machine in use to show that it is still there.
const PROBE: Duration = Duration::from_secs(3);
/// Daemons that wait for the place of one machine while it is being asked; one more is refused, and may try again.
const WAITING: usize = 16;
