//! What must survive a restart of the daemon, in one embedded database (redb).
//!
//! One transaction holds an engine event's number together with everything that follows from it, so that each event
//! takes effect exactly once. Synchronous; `store_thread` runs it off the network's thread.

mod fault;
mod home;
mod trust;

pub(crate) use fault::StoreError;
pub(crate) use home::Settled;
pub(crate) use trust::{Acquaintance, RevocationsKept};

use crate::{
    records::{Changes, EngineCursors, EngineRecord, LogCursor, Run, RunPlan, RunState},
    seat::Seat,
};
use dora_remote_protocol::{
    ids::{DataflowId, InstanceId, NodeId},
    log_line::{LogRecord, LogSource},
    machine::LifecycleEvent,
};
use fault::Fault;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    cell::{Ref, RefCell},
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// Version of the layout of the tables below.
const FORMAT: u32 = 2;
/// Unshipped messages kept for one source of one run; beyond that the oldest go and are counted as lost.
pub(crate) const MAX_MESSAGES: u64 = 20_000;

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const OUTBOX: TableDefinition<u64, &[u8]> = TableDefinition::new("outbox");
const PLANS: TableDefinition<u128, &[u8]> = TableDefinition::new("plans");
const STATES: TableDefinition<u128, &[u8]> = TableDefinition::new("states");
/// Key: the run's id, then the source in postcard.
const CURSORS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("cursors");
/// Key: the run's id, 0 for machine or 1 for build, the number, all big-endian.
const MESSAGES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("messages");
/// Lines that could not be written. Key: the run's id, then the node's id.
const LOST: TableDefinition<&[u8], u64> = TableDefinition::new("lost");
/// Key: see `KeptHead::number`.
const HEADS: TableDefinition<u64, &[u8]> = TableDefinition::new("heads");

const KEY_FORMAT: &str = "format";
const KEY_INSTANCE: &str = "instance";
const KEY_COUNTER: &str = "connection-counter";
const KEY_LAST_SEQ: &str = "last-event";
const KEY_ENGINES: &str = "engines";
const KEY_ENGINE_CURSORS: &str = "engine-cursors";
const KEY_HOME: &str = "home";
const KEY_LAST_GOOD: &str = "last-good-time";
const KEY_STORE_EPOCH: &str = "store-epoch";
const KEY_REVOCATIONS: &str = "revocations";
const KEY_HEARD: &str = "heard";

/// The daemon's database.
pub(crate) struct Store {
    /// None after a failure, which the database does not get over: it is opened anew then.
    db: RefCell<Option<Database>>,
    path: PathBuf,
}

/// Everything that the supervisor needs at start.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// All runs.
    pub(crate) runs: BTreeMap<DataflowId, Run>,
    /// Number of the latest lifecycle event ever made.
    pub(crate) last_seq: u64,
    /// The engines and the last event of each that took effect.
    pub(crate) engine_cursors: EngineCursors,
}

impl Store {
    /// Opens or makes the database; a new one gets a fresh instance id.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let db = Database::create(path).map_err(|source| StoreError::Open {
            path: path.to_owned(),
            source: Box::new(source.into()),
        })?;
        let store = Self {
            db: RefCell::new(Some(db)),
            path: path.to_owned(),
        };
        store.write(|tx| {
            let mut meta = tx.open_table(META)?;
            let format = get::<u32>(&meta, KEY_FORMAT)?;
            match format {
                Some(FORMAT) => {}
                Some(found) => return Err(Fault::Format { found }),
                None => {
                    put(&mut meta, KEY_FORMAT, &FORMAT)?;
                    put(&mut meta, KEY_INSTANCE, &InstanceId(Uuid::new_v4()))?;
                }
            }
            tx.open_table(OUTBOX)?;
            tx.open_table(PLANS)?;
            tx.open_table(STATES)?;
            tx.open_table(CURSORS)?;
            tx.open_table(MESSAGES)?;
            tx.open_table(LOST)?;
            tx.open_table(HEADS)?;
            Ok(())
        })?;
        Ok(store)
    }

    /// The id of this state directory.
    pub(crate) fn instance(&self) -> Result<InstanceId, StoreError> {
        self.read(|meta| get(meta, KEY_INSTANCE)?.ok_or(Fault::Missing { what: "instance id" }))
    }

    /// Moves the connection counter forward by `step` and gives the value before; those up to the next are the caller's.
    pub(crate) fn take_counters(&self, step: u64) -> Result<u64, StoreError> {
        self.write(|tx| {
            let mut meta = tx.open_table(META)?;
            let first = get::<u64>(&meta, KEY_COUNTER)?.unwrap_or(1);
            put(&mut meta, KEY_COUNTER, &(first + step))?;
            Ok(first)
        })
    }

    /// The engines that were spawned and not buried, oldest first.
    pub(crate) fn engines(&self) -> Result<Vec<EngineRecord>, StoreError> {
        self.read(|meta| Ok(get(meta, KEY_ENGINES)?.unwrap_or_default()))
    }

    /// Remembers an engine, in place of the one that had its seat.
    pub(crate) fn set_engine(&self, record: EngineRecord) -> Result<(), StoreError> {
        self.change_engines(record.seat, Some(record))
    }

    /// Forgets the engine of a seat.
    pub(crate) fn remove_engine(&self, seat: Seat) -> Result<(), StoreError> {
        self.change_engines(seat, None)
    }

    fn change_engines(&self, seat: Seat, record: Option<EngineRecord>) -> Result<(), StoreError> {
        self.write(|tx| {
            let mut meta = tx.open_table(META)?;
            let mut engines = get::<Vec<EngineRecord>>(&meta, KEY_ENGINES)?.unwrap_or_default();
            engines.retain(|known| known.seat != seat);
            engines.extend(record);
            put(&mut meta, KEY_ENGINES, &engines)
        })
    }

    /// Reads what the supervisor starts from.
    pub(crate) fn load(&self) -> Result<Loaded, StoreError> {
        let read = || -> Result<Loaded, Fault> {
            let tx = self.db()?.begin_read()?;
            let meta = tx.open_table(META)?;
            let plans = tx.open_table(PLANS)?;
            let mut runs = BTreeMap::new();
            for row in tx.open_table(STATES)?.iter()? {
                let (id, state) = row?;
                let Some(plan) = plans.get(id.value())? else {
                    continue;
                };
                let run = Run {
                    plan: decode::<RunPlan>(plan.value())?,
                    state: decode::<RunState>(state.value())?,
                };
                runs.insert(DataflowId(Uuid::from_u128(id.value())), run);
            }
            Ok(Loaded {
                runs,
                last_seq: get(&meta, KEY_LAST_SEQ)?.unwrap_or(0),
                engine_cursors: get(&meta, KEY_ENGINE_CURSORS)?.unwrap_or_default(),
            })
        };
        read().map_err(|fault| self.fault(fault))
    }

    /// Stores one step of the supervisor: all of it or nothing.
    pub(crate) fn commit(&self, changes: &Changes) -> Result<(), StoreError> {
        self.write(|tx| {
            let mut meta = tx.open_table(META)?;
            if let Some(cursors) = &changes.engine_cursors {
                put(&mut meta, KEY_ENGINE_CURSORS, cursors)?;
            }
            let mut outbox = tx.open_table(OUTBOX)?;
            for event in &changes.events {
                outbox.insert(event.seq, encode(event)?.as_slice())?;
                put(&mut meta, KEY_LAST_SEQ, &event.seq)?;
            }
            let mut plans = tx.open_table(PLANS)?;
            for plan in &changes.plans {
                plans.insert(plan.order.dataflow.0.as_u128(), encode(plan)?.as_slice())?;
            }
            let mut states = tx.open_table(STATES)?;
            for (id, state) in &changes.states {
                states.insert(id.0.as_u128(), encode(state)?.as_slice())?;
            }
            let mut messages = tx.open_table(MESSAGES)?;
            for row in &changes.messages {
                let key = message_key(row.dataflow, &row.source, row.record.offset);
                messages.insert(key.as_slice(), encode(&row.record)?.as_slice())?;
                if let Some(oldest) = row.record.offset.checked_sub(MAX_MESSAGES) {
                    messages.remove(message_key(row.dataflow, &row.source, oldest).as_slice())?;
                }
            }
            let mut lost = tx.open_table(LOST)?;
            for (id, node, lines) in &changes.lost {
                let key = lost_key(*id, node);
                let known = lost.get(key.as_slice())?.map_or(0, |row| row.value());
                lost.insert(key.as_slice(), known + lines)?;
            }
            let mut cursors = tx.open_table(CURSORS)?;
            for id in &changes.removed {
                plans.remove(id.0.as_u128())?;
                states.remove(id.0.as_u128())?;
                remove_prefix(&mut cursors, id.0.as_bytes())?;
                remove_prefix(&mut messages, id.0.as_bytes())?;
                remove_prefix(&mut lost, id.0.as_bytes())?;
            }
            Ok(())
        })
    }

    /// Lifecycle events above `after`, oldest first: at most `max_events`, and no more after `max_bytes`.
    pub(crate) fn outbox(&self, after: u64, max_events: usize, max_bytes: usize) -> Result<Vec<LifecycleEvent>, StoreError> {
        let read = || -> Result<Vec<LifecycleEvent>, Fault> {
            let outbox = self.db()?.begin_read()?.open_table(OUTBOX)?;
            let (mut events, mut bytes) = (Vec::new(), 0);
            for row in outbox.range(after.saturating_add(1)..)? {
                let (_, event) = row?;
                bytes += event.value().len();
                if events.len() == max_events || (bytes > max_bytes && !events.is_empty()) {
                    break;
                }
                events.push(decode(event.value())?);
            }
            Ok(events)
        };
        read().map_err(|fault| self.fault(fault))
    }

    /// Runs about which an event waits in the outbox.
    pub(crate) fn runs_in_outbox(&self) -> Result<BTreeSet<DataflowId>, StoreError> {
        let events = self.outbox(0, usize::MAX, usize::MAX)?;
        Ok(events.into_iter().map(|event| event.dataflow).collect())
    }

    /// Drops the events up to and with `seq` from the outbox.
    pub(crate) fn ack_events(&self, seq: u64) -> Result<(), StoreError> {
        self.write(|tx| {
            tx.open_table(OUTBOX)?.retain_in(..=seq, |_, _| false)?;
            Ok(())
        })
    }

    /// How many lines of the nodes of one run could not be written.
    pub(crate) fn lost(&self, dataflow: DataflowId) -> Result<Vec<(LogSource, u64)>, StoreError> {
        let read = || -> Result<_, Fault> {
            let lost = self.db()?.begin_read()?.open_table(LOST)?;
            let prefix = dataflow.0.as_bytes().as_slice();
            let mut found = Vec::new();
            for row in lost.range(prefix..)? {
                let (key, lines) = row?;
                let Some(node) = key.value().strip_prefix(prefix) else {
                    break;
                };
                let node = std::str::from_utf8(node).ok().and_then(|node| node.parse().ok());
                found.extend(node.map(|node| (LogSource::Node(node), lines.value())));
            }
            Ok(found)
        };
        read().map_err(|fault| self.fault(fault))
    }

    /// The log cursors of one run.
    pub(crate) fn cursors(&self, dataflow: DataflowId) -> Result<Vec<(LogSource, LogCursor)>, StoreError> {
        let read = || -> Result<_, Fault> {
            let cursors = self.db()?.begin_read()?.open_table(CURSORS)?;
            let prefix = dataflow.0.as_bytes().as_slice();
            let mut found = Vec::new();
            for row in cursors.range(prefix..)? {
                let (key, cursor) = row?;
                let Some(source) = key.value().strip_prefix(prefix) else {
                    break;
                };
                found.push((decode(source)?, decode(cursor.value())?));
            }
            Ok(found)
        };
        read().map_err(|fault| self.fault(fault))
    }

    /// Stores log cursors, and drops the messages that they have passed.
    pub(crate) fn save_cursors(&self, moved: &[(DataflowId, LogSource, LogCursor)]) -> Result<(), StoreError> {
        self.write(|tx| {
            let mut cursors = tx.open_table(CURSORS)?;
            let mut messages = tx.open_table(MESSAGES)?;
            for (dataflow, source, cursor) in moved {
                let mut key = dataflow.0.as_bytes().to_vec();
                key.extend(encode(source)?);
                cursors.insert(key.as_slice(), encode(cursor)?.as_slice())?;
                if !matches!(source, LogSource::Node(_)) {
                    let (first, last) = (
                        message_key(*dataflow, source, 0),
                        message_key(*dataflow, source, cursor.offset),
                    );
                    messages.retain_in(first.as_slice()..=last.as_slice(), |_, _| false)?;
                }
            }
            Ok(())
        })
    }

    /// Messages of one source above `after`, oldest first: at most `max_lines`, and no more after `max_bytes` of text.
    pub(crate) fn messages(
        &self,
        dataflow: DataflowId,
        source: &LogSource,
        after: u64,
        max_lines: usize,
        max_bytes: usize,
    ) -> Result<Vec<LogRecord>, StoreError> {
        let read = || -> Result<_, Fault> {
            let messages = self.db()?.begin_read()?.open_table(MESSAGES)?;
            let (first, last) = (
                message_key(dataflow, source, after.saturating_add(1)),
                message_key(dataflow, source, u64::MAX),
            );
            let (mut found, mut bytes) = (Vec::<LogRecord>::new(), 0);
            for row in messages.range(first.as_slice()..=last.as_slice())? {
                let (_, record) = row?;
                if found.len() == max_lines || bytes >= max_bytes {
                    break;
                }
                bytes += record.value().len();
                found.push(decode(record.value())?);
            }
            Ok(found)
        };
        read().map_err(|fault| self.fault(fault))
    }

    fn write<T>(&self, change: impl FnOnce(&WriteTransaction) -> Result<T, Fault>) -> Result<T, StoreError> {
        let run = || {
            let tx = self.db()?.begin_write()?;
            let value = change(&tx)?;
            tx.commit()?;
            Ok(value)
        };
        run().map_err(|fault| self.fault(fault))
    }

    fn read<T>(
        &self,
        look: impl FnOnce(&redb::ReadOnlyTable<&'static str, &'static [u8]>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let run = || look(&self.db()?.begin_read()?.open_table(META)?);
        run().map_err(|fault| self.fault(fault))
    }

    /// The database, opened anew if it has failed.
    fn db(&self) -> Result<Ref<'_, Database>, Fault> {
        if self.db.borrow().is_none() {
            self.db.replace(Some(Database::create(&self.path)?));
        }
        Ref::filter_map(self.db.borrow(), Option::as_ref).map_err(|_| Fault::Missing { what: "open file" })
    }

    fn fault(&self, fault: Fault) -> StoreError {
        let path = self.path.clone();
        match fault {
            Fault::Database(source) => {
                if fault::is_full(&source) {
                    self.db.replace(None);
                }
                StoreError::Io { path, source }
            }
            Fault::Record(source) => StoreError::Record { path, source },
            Fault::Format { found } => StoreError::Format { path, found },
            Fault::Missing { what } => StoreError::Missing { path, what },
        }
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_stdvec(value)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, postcard::Error> {
    postcard::from_bytes(bytes)
}

fn get<T: DeserializeOwned>(meta: &impl ReadableTable<&'static str, &'static [u8]>, key: &str) -> Result<Option<T>, Fault> {
    Ok(match meta.get(key)? {
        Some(bytes) => Some(decode(bytes.value())?),
        None => None,
    })
}

fn put<T: Serialize>(meta: &mut redb::Table<'_, &'static str, &'static [u8]>, key: &str, value: &T) -> Result<(), Fault> {
    meta.insert(key, encode(value)?.as_slice())?;
    Ok(())
}

fn lost_key(dataflow: DataflowId, node: &NodeId) -> Vec<u8> {
    let mut key = dataflow.0.as_bytes().to_vec();
    key.extend(node.as_str().as_bytes());
    key
}

fn message_key(dataflow: DataflowId, source: &LogSource, number: u64) -> Vec<u8> {
    let mut key = dataflow.0.as_bytes().to_vec();
    key.push(u8::from(*source == LogSource::Build));
    key.extend(number.to_be_bytes());
    key
}

fn remove_prefix<V: redb::Value>(table: &mut redb::Table<'_, &'static [u8], V>, prefix: &[u8]) -> Result<(), Fault> {
    let mut end = prefix.to_vec();
    // A run's id never consists of 0xff alone, so that one of its bytes can be raised.
    for byte in end.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
    table.retain_in(prefix..end.as_slice(), |_, _| false)?;
    Ok(())
}

#[cfg(test)]
mod tests;
