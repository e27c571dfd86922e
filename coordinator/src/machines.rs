//! The machines that are known: connected, silent or gone. Pure: time is an argument.
//!
//! A machine is used over one connection. Who may take over from the connection in use is decided in two steps: [`Machines::judge`]
//! says whether a claim is beyond doubt, and where it is not, the brain asks the connection in use and tells what came of it:
//! [`Machines::take`] or [`Machines::quarantine`]; all of it stands in `claims.rs`. What is known of those that were refused stands in `quarantine.rs`.

mod claims;
mod quarantine;
#[cfg(test)]
mod tests;

pub(crate) use claims::{Claim, Judgement};
pub(crate) use quarantine::Quarantined;

use crate::{dataflow::placement::Candidate, moment::Moment, view::View};
use dora_remote_protocol::{
    ids::{BootId, InstanceId},
    limits::UNREACHABLE_AFTER,
    machine::{DiskUse, EngineStatus, MachineFacts, Quarantine, Reach, Restored},
    name::MachineName,
    refusal::{Refusal, RefusalCode},
};
use quarantine::Twins;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Instant};

/// What is remembered of a machine across restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MachineRecord {
    pub(crate) name: MachineName,
    pub(crate) facts: MachineFacts,
    pub(crate) last_heard_unix_ms: u64,
    pub(crate) address: String,
    pub(crate) instance: InstanceId,
    pub(crate) boot: BootId,
    /// Lifecycle events of this instance up to this number were applied.
    pub(crate) acked_seq: u64,
    /// The same of instances that were in use before, latest first; at most [`claims::FORMER`].
    pub(crate) former: Vec<(InstanceId, u64)>,
    /// When it last came back from being unreachable.
    pub(crate) restored: Option<Restored>,
}

/// All machines by name.
#[derive(Debug, Default)]
pub(crate) struct Machines {
    known: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    record: MachineRecord,
    /// When it was last heard, or when this process began.
    heard: Instant,
    connection: Option<u64>,
    /// Counter of that connection, among those of its instance.
    counter: u64,
    /// Whether its silence was already told.
    is_lost: bool,
    /// Whether it was asked for a sign of life and gave none.
    is_deaf: bool,
    /// Whether the stored record is older than what is known.
    is_stale: bool,
    /// Others that came with its identity and were refused.
    twins: Twins,
    /// What it last said of its disk. Not stored: it says it again.
    disk: Option<DiskUse>,
}

impl Machines {
    /// The machines of a former life of this process; they get the usual time to come back.
    pub(crate) fn restored(records: Vec<MachineRecord>, now: Moment) -> Self {
        let entry = |record: MachineRecord| {
            let entry = Entry {
                heard: now.steady,
                connection: None,
                counter: 0,
                is_lost: false,
                is_deaf: false,
                is_stale: false,
                twins: Twins::default(),
                disk: None,
                record,
            };
            (key(&entry.record.name), entry)
        };
        Self {
            known: records.into_iter().map(entry).collect(),
        }
    }

    /// The others that came with the identity of a machine and were refused of late, the latest last.
    pub(crate) fn quarantined(&self, name: &MachineName, now: Moment) -> Vec<Quarantine> {
        let entry = self.known.get(&key(name));
        entry.map(|entry| entry.twins.of_late(now)).unwrap_or_default()
    }

    /// Notes what a machine says of its disk, if it is in use.
    pub(crate) fn set_disk(&mut self, name: &MachineName, connection: u64, disk: DiskUse) {
        if let Some(entry) = self
            .known
            .get_mut(&key(name))
            .filter(|entry| entry.connection == Some(connection))
        {
            entry.disk = Some(disk);
        }
    }

    /// What a machine last said of its disk.
    pub(crate) fn disk(&self, name: &MachineName) -> Option<DiskUse> {
        self.known.get(&key(name))?.disk.clone()
    }

    /// Notes that a machine was heard; true when its silence had been told.
    pub(crate) fn heard(
        &mut self,
        name: &MachineName,
        connection: u64,
        engine: Option<EngineStatus>,
        now: Moment,
    ) -> Result<bool, Refusal> {
        let entry = self
            .known
            .get_mut(&key(name))
            .filter(|entry| entry.connection == Some(connection));
        let Some(entry) = entry else {
            return Err(Refusal::new(
                RefusalCode::WrongState,
                "this connection has not joined, or a newer one took over",
            ));
        };
        if entry.is_lost {
            entry.record.restored = Some(entry.restored_at(now));
        }
        entry.heard = now.steady;
        entry.is_deaf = false;
        entry.record.last_heard_unix_ms = now.unix_ms;
        entry.is_stale = true;
        if let Some(engine) = engine {
            entry.record.facts.engine = engine;
        }
        Ok(std::mem::take(&mut entry.is_lost))
    }

    /// Notes the end of a connection; false when it was not the one in use.
    pub(crate) fn left(&mut self, name: &MachineName, connection: u64) -> bool {
        match self.known.get_mut(&key(name)) {
            Some(entry) if entry.connection == Some(connection) => {
                entry.connection = None;
                true
            }
            _ => false,
        }
    }

    /// Gives up a machine that will not be back by itself, without the usual wait; since when, if that was not told before.
    pub(crate) fn lose(&mut self, name: &MachineName) -> Option<u64> {
        let entry = self.known.get_mut(&key(name))?;
        let was_lost = std::mem::replace(&mut entry.is_lost, true);
        (!was_lost).then_some(entry.record.last_heard_unix_ms)
    }

    /// The machines that have just been silent for too long, and since when.
    pub(crate) fn tick(&mut self, now: Moment) -> Vec<(MachineName, u64)> {
        let mut lost = Vec::new();
        for entry in self.known.values_mut() {
            if !entry.is_lost && now.steady.saturating_duration_since(entry.heard) >= UNREACHABLE_AFTER {
                entry.is_lost = true;
                lost.push((entry.record.name.clone(), entry.record.last_heard_unix_ms));
            }
        }
        lost
    }

    /// Notes that the events of a machine up to `seq` were applied.
    pub(crate) fn applied(&mut self, name: &MachineName, seq: u64) {
        if let Some(entry) = self.known.get_mut(&key(name)) {
            entry.record.acked_seq = entry.record.acked_seq.max(seq);
        }
    }

    pub(crate) fn get(&self, name: &MachineName) -> Option<&MachineRecord> {
        self.known.get(&key(name)).map(|entry| &entry.record)
    }

    /// One machine, and whether it can be reached.
    pub(crate) fn find(&self, name: &MachineName) -> Option<(&MachineRecord, Reach)> {
        self.known.get(&key(name)).map(|entry| (&entry.record, entry.reach()))
    }

    /// The connection that is in use.
    pub(crate) fn connection(&self, name: &MachineName) -> Option<u64> {
        self.known.get(&key(name)).and_then(|entry| entry.connection)
    }

    /// All of them by name, and whether they can be reached.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&MachineRecord, Reach)> {
        self.known.values().map(|entry| (&entry.record, entry.reach()))
    }

    /// What placement needs to know of them, in the order of their names. Labels of the records win over what machines say.
    pub(crate) fn candidates(&self, view: &View, now: Moment) -> Vec<Candidate> {
        let candidate = |entry: &Entry| Candidate {
            name: entry.record.name.clone(),
            labels: view.overlaid(&entry.record.name, &entry.record.facts.labels),
            is_connected: entry.reach() == Reach::Connected,
            silent_for_secs: now.unix_ms.saturating_sub(entry.record.last_heard_unix_ms) / 1000,
        };
        self.known.values().map(candidate).collect()
    }

    /// Records that the disk should learn of, each told once.
    pub(crate) fn take_stale(&mut self) -> Vec<MachineRecord> {
        let mut stale = Vec::new();
        for entry in self.known.values_mut() {
            if std::mem::take(&mut entry.is_stale) {
                stale.push(entry.record.clone());
            }
        }
        stale
    }
}

impl Entry {
    fn new(claim: Claim, now: Moment) -> Self {
        Self {
            heard: now.steady,
            connection: Some(claim.connection),
            counter: claim.counter,
            is_lost: false,
            is_deaf: false,
            is_stale: false,
            twins: Twins::default(),
            disk: None,
            record: MachineRecord {
                name: claim.name,
                facts: claim.facts,
                last_heard_unix_ms: now.unix_ms,
                address: claim.address,
                instance: claim.instance,
                boot: claim.boot,
                acked_seq: 0,
                former: Vec::new(),
                restored: None,
            },
        }
    }

    /// That it is heard again now.
    const fn restored_at(&self, now: Moment) -> Restored {
        Restored {
            unreachable_since_unix_ms: self.record.last_heard_unix_ms,
            at_unix_ms: now.unix_ms,
        }
    }

    fn reach(&self) -> Reach {
        if self.connection.is_some() && !self.is_lost {
            Reach::Connected
        } else {
            Reach::Unreachable {
                since_unix_ms: self.record.last_heard_unix_ms,
            }
        }
    }
}

fn key(name: &MachineName) -> String {
    name.as_str().to_ascii_lowercase()
}
