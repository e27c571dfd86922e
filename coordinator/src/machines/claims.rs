//! Who may use the place of a machine: a claim is judged, then it takes the place or is put into quarantine. Pure.

use super::{Entry, MachineRecord, Machines, Quarantined, key};
use crate::moment::Moment;
use dora_remote_protocol::{
    ids::{BootId, InstanceId},
    limits::{HEARTBEAT_IDLE, MAX_MACHINES},
    machine::MachineFacts,
    name::MachineName,
    refusal::{Refusal, RefusalCode},
};
use std::time::Duration;

/// What a daemon says when it joins.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) name: MachineName,
    pub(crate) connection: u64,
    pub(crate) instance: InstanceId,
    pub(crate) boot: BootId,
    /// Counts the connections of the instance upwards.
    pub(crate) counter: u64,
    pub(crate) facts: MachineFacts,
    pub(crate) address: String,
    /// Number of the latest event that it ever made.
    pub(crate) last_seq: u64,
}

/// Whether a claim is beyond doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It takes over at once.
    TakesOver,
    /// This connection is in use and was heard of late: whoever holds it is to be asked whether it is still there.
    AskFirst { connection: u64 },
}

/// What came of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The name under which the machine was known first; names that differ in case are one.
    pub(crate) name: MachineName,
    /// The connection that is no longer used.
    pub(crate) superseded: Option<u64>,
    /// Events up to this number were applied.
    pub(crate) acked_seq: u64,
}

impl Machines {
    /// Says whether a claim is beyond doubt.
    ///
    /// Beyond doubt is a later connection of the same instance within the same boot: a daemon that makes the new connection before it breaks
    /// the old one, or that was started again (its state directory is locked, so the former process is dead). So is everybody, when
    /// nobody has the name in use, or nothing was heard of who has. All others could be a copy of a machine that goes on beside it.
    pub(crate) fn judge(&self, claim: &Claim, now: Moment) -> Judgement {
        let Some(entry) = self.known.get(&key(&claim.name)) else {
            return Judgement::TakesOver;
        };
        let Some(connection) = entry.connection.filter(|used| *used != claim.connection) else {
            return Judgement::TakesOver;
        };
        let is_later =
            entry.record.instance == claim.instance && entry.record.boot == claim.boot && claim.counter > entry.counter;
        let is_silent = now.steady.saturating_duration_since(entry.heard) >= SILENT;
        if is_later || is_silent || entry.is_deaf {
            Judgement::TakesOver
        } else {
            Judgement::AskFirst { connection }
        }
    }

    /// Takes a machine into use.
    pub(crate) fn take(&mut self, claim: Claim, now: Moment) -> Result<Taken, Refusal> {
        let known = self.known.len();
        let Some(entry) = self.known.get_mut(&key(&claim.name)) else {
            if known >= MAX_MACHINES {
                return Err(Refusal::new(
                    RefusalCode::Busy,
                    format!("{MAX_MACHINES} machines are known already"),
                ));
            }
            let taken = Taken {
                name: claim.name.clone(),
                superseded: None,
                acked_seq: 0,
            };
            self.known.insert(key(&claim.name), Entry::new(claim, now));
            return Ok(taken);
        };
        let former = entry.record.clone();
        let superseded = entry.connection.filter(|used| *used != claim.connection);
        let mut twins = std::mem::take(&mut entry.twins);
        twins.is_in_use(claim.instance, claim.boot);
        let (acked_seq, others) = acked(&former, &claim);
        let restored = if entry.is_lost {
            Some(entry.restored_at(now))
        } else {
            former.restored
        };
        *entry = Entry::new(claim, now);
        entry.twins = twins;
        entry.record.name = former.name;
        entry.record.acked_seq = acked_seq;
        entry.record.former = others;
        entry.record.restored = restored;
        Ok(Taken {
            name: entry.record.name.clone(),
            superseded,
            acked_seq,
        })
    }

    /// Notes that the machine in use gave no sign of life when asked: until it is heard again, everybody may take over.
    pub(crate) fn unanswered(&mut self, name: &MachineName) {
        if let Some(entry) = self.known.get_mut(&key(name)) {
            entry.is_deaf = true;
        }
    }

    /// Refuses a claim, because the machine that is in use has answered.
    pub(crate) fn quarantine(&mut self, claim: &Claim, now: Moment) -> Quarantined {
        match self.known.get_mut(&key(&claim.name)) {
            Some(entry) => entry.twins.refuse(&entry.record, claim, now),
            None => Quarantined {
                refusal: Refusal::new(RefusalCode::WrongState, "the machine is not known any more"),
                is_news: true,
            },
        }
    }
}

/// The events of a claim's instance that were applied, and those of the instances that were in use before it.
fn acked(record: &MachineRecord, claim: &Claim) -> (u64, Vec<(InstanceId, u64)>) {
    let mut known = vec![(record.instance, record.acked_seq)];
    known.extend(record.former.iter().copied());
    let own = known.iter().find(|(instance, _)| *instance == claim.instance);
    // An instance that knows fewer events than were applied has lost its state, and counts anew.
    let acked_seq = own.map(|(_, seq)| *seq).filter(|seq| *seq <= claim.last_seq).unwrap_or(0);
    known.retain(|(instance, _)| *instance != claim.instance);
    known.truncate(FORMER);
    (acked_seq, known)
}

/// Silence after which a name is taken over without asking: the longest wait between two heartbeats, and some.
pub(super) const SILENT: Duration = Duration::from_millis(HEARTBEAT_IDLE.as_millis() as u64 + 1500);
/// Former instances of a machine whose events are remembered; the oldest are forgotten.
pub(super) const FORMER: usize = 4;
