//! The machines that are known: connected, silent or gone. Pure: time is an argument.
//!
//! A machine is used over its newest connection. A connection of another instance under the same name does not take over from
//! one that still answers: two machines with one certificate must not push each other out in turns.

use crate::{dataflow::placement::Candidate, moment::Moment};
use dora_remote_protocol::{
    ids::{BootId, InstanceId},
    limits::{HEARTBEAT_IDLE, MAX_MACHINES, UNREACHABLE_AFTER},
    machine::{EngineStatus, MachineFacts, Reach},
    name::MachineName,
    refusal::{Refusal, RefusalCode},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

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
}

/// What a daemon says when it joins.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) name: MachineName,
    pub(crate) connection: u64,
    pub(crate) instance: InstanceId,
    pub(crate) boot: BootId,
    pub(crate) facts: MachineFacts,
    pub(crate) address: String,
    /// Number of the latest event that it ever made.
    pub(crate) last_seq: u64,
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
    /// Whether its silence was already told.
    is_lost: bool,
    /// Whether the stored record is older than what is known.
    is_stale: bool,
}

impl Machines {
    /// The machines of a former life of this process; they get the usual time to come back.
    pub(crate) fn restored(records: Vec<MachineRecord>, now: Moment) -> Self {
        let entry = |record: MachineRecord| {
            let entry = Entry {
                heard: now.steady,
                connection: None,
                is_lost: false,
                is_stale: false,
                record,
            };
            (key(&entry.record.name), entry)
        };
        Self {
            known: records.into_iter().map(entry).collect(),
        }
    }

    /// Takes a machine into use.
    pub(crate) fn join(&mut self, claim: Claim, now: Moment) -> Result<Taken, Refusal> {
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
        let silence = now.steady.saturating_duration_since(entry.heard);
        if entry.connection.is_some() && entry.record.instance != claim.instance && silence < PROBE {
            return Err(Refusal::new(
                RefusalCode::Superseded,
                format!(
                    "another machine answers as `{}` from {}; this one is not used",
                    entry.record.name, entry.record.address
                ),
            )
            .hint("give each machine a certificate of its own; it is taken over when the other one falls silent"));
        }
        // An instance that knows fewer events than were applied has lost its state, and counts anew.
        let is_same = entry.record.instance == claim.instance && claim.last_seq >= entry.record.acked_seq;
        let acked_seq = if is_same { entry.record.acked_seq } else { 0 };
        let taken = Taken {
            name: entry.record.name.clone(),
            superseded: entry.connection.filter(|old| *old != claim.connection),
            acked_seq,
        };
        let name = entry.record.name.clone();
        *entry = Entry::new(claim, now);
        entry.record.name = name;
        entry.record.acked_seq = acked_seq;
        Ok(taken)
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
        entry.heard = now.steady;
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

    /// The connection that is in use.
    pub(crate) fn connection(&self, name: &MachineName) -> Option<u64> {
        self.known.get(&key(name)).and_then(|entry| entry.connection)
    }

    /// All of them by name, and whether they can be reached.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&MachineRecord, Reach)> {
        self.known.values().map(|entry| (&entry.record, entry.reach()))
    }

    /// What placement needs to know of them, in the order of their names.
    pub(crate) fn candidates(&self, now: Moment) -> Vec<Candidate> {
        let candidate = |entry: &Entry| Candidate {
            name: entry.record.name.clone(),
            labels: entry.record.facts.labels.clone(),
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
            is_lost: false,
            is_stale: false,
            record: MachineRecord {
                name: claim.name,
                facts: claim.facts,
                last_heard_unix_ms: now.unix_ms,
                address: claim.address,
                instance: claim.instance,
                boot: claim.boot,
                acked_seq: 0,
            },
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

/// Silence after which another instance may take a name over: the longest wait between two heartbeats, and some.
const PROBE: Duration = Duration::from_millis(HEARTBEAT_IDLE.as_millis() as u64 + 1500);

#[cfg(test)]
mod tests {
    use super::*;
    use dora_remote_protocol::dataflow::Labels;
    use uuid::Uuid;

    #[test]
    fn a_newer_connection_of_the_same_instance_takes_over() {
        let (mut machines, now) = (Machines::default(), moment());
        assert_eq!(machines.join(claim("robot", 1, 7), now).unwrap().superseded, None);
        let taken = machines.join(claim("ROBOT", 2, 7), now).unwrap();
        assert_eq!((taken.superseded, taken.name.as_str()), (Some(1), "robot"));
        assert!(
            machines.heard(&name("robot"), 1, None, now).is_err(),
            "the old connection counts no more"
        );
        assert!(!machines.left(&name("robot"), 1));
        assert!(machines.left(&name("robot"), 2));
    }

    #[test]
    fn another_instance_waits_until_the_first_falls_silent() {
        let (mut machines, now) = (Machines::default(), moment());
        machines.join(claim("robot", 1, 7), now).unwrap();
        assert_eq!(
            machines.join(claim("robot", 2, 8), now).unwrap_err().code,
            RefusalCode::Superseded
        );
        assert_eq!(
            machines.join(claim("robot", 2, 8), later(now, PROBE)).unwrap().superseded,
            Some(1)
        );
        machines.left(&name("robot"), 2);
        assert!(
            machines.join(claim("robot", 3, 9), later(now, PROBE)).is_ok(),
            "who has left does not answer"
        );
    }

    #[test]
    fn silence_is_told_once_and_ends_with_a_word() {
        let (mut machines, now) = (Machines::default(), moment());
        machines.join(claim("robot", 1, 7), now).unwrap();
        assert!(
            machines
                .tick(later(now, UNREACHABLE_AFTER - Duration::from_secs(1)))
                .is_empty()
        );
        let silent = later(now, UNREACHABLE_AFTER);
        assert_eq!(machines.tick(silent), [(name("robot"), now.unix_ms)]);
        assert!(machines.tick(silent).is_empty());
        assert!(!machines.candidates(silent)[0].is_connected);
        assert!(machines.heard(&name("robot"), 1, None, silent).unwrap());
        assert!(machines.candidates(silent)[0].is_connected);
        machines.left(&name("robot"), 1);
        assert!(
            !machines.candidates(silent)[0].is_connected,
            "nothing can be ordered without a connection"
        );
        assert!(machines.tick(silent).is_empty(), "it may be back at once");
    }

    #[test]
    fn event_numbers_belong_to_an_instance() {
        let (mut machines, now) = (Machines::default(), moment());
        machines.join(claim("robot", 1, 7), now).unwrap();
        machines.applied(&name("robot"), 5);
        assert_eq!(machines.join(claim("robot", 2, 7), now).unwrap().acked_seq, 5);
        machines.left(&name("robot"), 2);
        let fewer = Claim {
            last_seq: 3,
            ..claim("robot", 3, 7)
        };
        assert_eq!(
            machines.join(fewer, now).unwrap().acked_seq,
            0,
            "a state that was lost counts anew"
        );
        machines.applied(&name("robot"), 5);
        machines.left(&name("robot"), 3);
        assert_eq!(machines.join(claim("robot", 4, 8), now).unwrap().acked_seq, 0);
    }

    fn moment() -> Moment {
        Moment {
            steady: Instant::now(),
            unix_ms: 1_000_000,
        }
    }

    fn later(now: Moment, time: Duration) -> Moment {
        Moment {
            steady: now.steady + time,
            unix_ms: now.unix_ms + time.as_millis() as u64,
        }
    }

    fn name(text: &str) -> MachineName {
        text.parse().unwrap()
    }

    fn claim(text: &str, connection: u64, instance: u128) -> Claim {
        Claim {
            name: name(text),
            connection,
            instance: InstanceId(Uuid::from_u128(instance)),
            boot: BootId(Uuid::from_u128(1)),
            facts: MachineFacts {
                labels: Labels::new(),
                build: "0.1.0".to_owned(),
                platform: "linux x86_64".to_owned(),
                engine: EngineStatus::Starting,
            },
            address: "127.0.0.1:1".to_owned(),
            last_seq: 5,
        }
    }
}
