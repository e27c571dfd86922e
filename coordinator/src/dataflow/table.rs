//! All dataflows, by id, by name and by the asking that started them.

use super::{machine::Life, sight::Sight};
use dora_remote_protocol::{
    dataflow::{DataflowRef, NameWish},
    ids::{DataflowId, RequestId},
    limits::{MAX_ENDED_DATAFLOWS, MAX_LIVE_DATAFLOWS},
    name::{DataflowName, MAX_NAME_BYTES},
    refusal::{Refusal, RefusalCode},
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Every dataflow that is remembered, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Table {
    lives: BTreeMap<DataflowId, Life>,
    by_start: BTreeMap<RequestId, DataflowId>,
    /// The highest [`ended_as`](super::record::Record::ended_as).
    last_end: u64,
}

impl Table {
    /// Adds a dataflow.
    pub(crate) fn insert(&mut self, life: Life) {
        if let Some(start_id) = life.record().start_id {
            self.by_start.insert(start_id, life.record().id);
        }
        self.last_end = self.last_end.max(life.record().ended_as.unwrap_or(0));
        self.lives.insert(life.record().id, life);
    }

    /// The id of a new dataflow: `fresh`, or, where the clock from which that was made was set back, one behind all that are known.
    pub(crate) fn next_id(&self, fresh: DataflowId) -> DataflowId {
        let last = self.lives.keys().next_back();
        let next = last.and_then(|last| last.0.as_u128().checked_add(1));
        next.map_or(fresh, |next| fresh.max(DataflowId(Uuid::from_u128(next))))
    }

    /// Counts a dataflow among those that have ended, as the last of them. Gives it back, to be stored.
    pub(crate) fn note_end(&mut self, id: DataflowId) -> Option<&Life> {
        let life = self.lives.get_mut(&id)?;
        if life.record().ended_as.is_none() {
            self.last_end += 1;
            life.set_ended_as(self.last_end);
        }
        Some(life)
    }

    pub(crate) fn get(&self, id: DataflowId) -> Option<&Life> {
        self.lives.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: DataflowId) -> Option<&mut Life> {
        self.lives.get_mut(&id)
    }

    /// All of them, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Life> {
        self.lives.values()
    }

    /// Those that have not ended.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Life> {
        self.iter().filter(|life| !life.record().state.has_ended())
    }

    /// The dataflow that this asking has started.
    pub(crate) fn started_by(&self, start_id: RequestId) -> Option<DataflowId> {
        self.by_start.get(&start_id).copied()
    }

    /// Finds what a person means: of one name, the one that has not ended, else the latest that has. Refuses what is not within sight.
    pub(crate) fn find(&self, wanted: &DataflowRef, sight: &Sight) -> Result<DataflowId, Refusal> {
        let found = match wanted {
            DataflowRef::Id(id) => self.lives.get(id),
            DataflowRef::Name(name) => {
                let named = |life: &&Life| life.record().name.as_str().eq_ignore_ascii_case(name);
                let live = self.live().find(named);
                live.or_else(|| self.lives.values().rev().find(named))
            }
        };
        if let Some(life) = found {
            sight.check(life.record())?;
            return Ok(life.record().id);
        }
        let seen = self.live().map(Life::record).filter(|record| sight.has(record));
        let names: Vec<_> = seen.take(20).map(|record| record.name.to_string()).collect();
        let hint = if names.is_empty() {
            "no dataflow is running; `dora-remote list` shows those that have ended".to_owned()
        } else {
            format!("running: {}", names.join(", "))
        };
        let message = format!("no dataflow `{}` is known", wanted.to_string().escape_debug());
        Err(Refusal::new(RefusalCode::NotFound, message).hint(hint))
    }

    /// The name that a new dataflow gets.
    pub(crate) fn name_for(&self, wish: &NameWish, sight: &Sight) -> Result<DataflowName, Refusal> {
        let taken = |name: &DataflowName| self.live().map(Life::record).find(|record| record.name.same_as(name));
        match wish {
            NameWish::Exactly(name) => match taken(name) {
                None => Ok(name.clone()),
                Some(record) if sight.has(record) => Err(Refusal::new(
                    RefusalCode::NameTaken,
                    format!("a dataflow `{name}` has not ended (id {})", record.id),
                )
                .hint(format!("choose another name, or run `dora-remote stop {name}`"))),
                // Names are unique for all; more than that is not for this asker.
                Some(_) => {
                    Err(Refusal::new(RefusalCode::NameTaken, format!("the name `{name}` is taken")).hint("choose another name"))
                }
            },
            NameWish::Like(name) => {
                if taken(name).is_none() {
                    return Ok(name.clone());
                }
                // More numbers than there can be live dataflows: one of them is free.
                for number in 2..=MAX_LIVE_DATAFLOWS + 2 {
                    let end = format!("-{number}");
                    let base = &name.as_str()[..name.as_str().len().min(MAX_NAME_BYTES - end.len())];
                    if let Ok(candidate) = format!("{base}{end}").parse()
                        && taken(&candidate).is_none()
                    {
                        return Ok(candidate);
                    }
                }
                Err(Refusal::new(
                    RefusalCode::NameTaken,
                    format!("every name like `{name}` is taken"),
                ))
            }
        }
    }

    /// Forgets those that ended first, until few enough are left.
    pub(crate) fn forget_oldest(&mut self) -> Vec<Life> {
        let ended = self.iter().map(Life::record).filter(|record| record.state.has_ended());
        // Those that were not counted ended before those that were.
        let mut ended: Vec<_> = ended
            .map(|record| (record.ended_as, record.ended_unix_ms, record.id))
            .collect();
        ended.sort_unstable();
        let too_many = ended.len().saturating_sub(MAX_ENDED_DATAFLOWS);
        let forgotten = ended.into_iter().take(too_many).filter_map(|(.., id)| self.lives.remove(&id));
        let forgotten: Vec<_> = forgotten.collect();
        for start_id in forgotten.iter().filter_map(|life| life.record().start_id) {
            self.by_start.remove(&start_id);
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataflow::{record::Record, samples};
    use dora_remote_protocol::dataflow::DataflowState;

    #[test]
    fn a_name_means_the_live_one_else_the_latest() {
        let mut table = Table::default();
        for (number, state) in [
            (1, DataflowState::Finished),
            (2, DataflowState::Running),
            (3, DataflowState::Failed),
        ] {
            table.insert(Life::restored(samples::record_in(number, "flow", state)));
        }
        let find = |table: &Table, text: &str| table.find(&text.parse().unwrap(), &Sight::all());
        assert_eq!(find(&table, "FLOW").unwrap(), samples::id(2));
        assert_eq!(find(&table, &samples::id(1).to_string()).unwrap(), samples::id(1));
        assert_eq!(find(&table, "other").unwrap_err().code, RefusalCode::NotFound);
        table.lives.remove(&samples::id(2));
        assert_eq!(find(&table, "flow").unwrap(), samples::id(3));
    }

    #[test]
    fn names_are_taken_by_the_living_alone() {
        let mut table = Table::default();
        table.insert(Life::restored(samples::record_in(1, "flow", DataflowState::Running)));
        table.insert(Life::restored(samples::record_in(2, "old", DataflowState::Failed)));
        let exactly = |name: &str| table.name_for(&NameWish::Exactly(name.parse().unwrap()), &Sight::all());
        assert_eq!(exactly("old").unwrap().as_str(), "old");
        let refusal = exactly("Flow").unwrap_err();
        assert!(refusal.code == RefusalCode::NameTaken && refusal.message.contains(&samples::id(1).to_string()));
        let like = |name: &str| {
            let wish = NameWish::Like(name.parse().unwrap());
            table.name_for(&wish, &Sight::all()).unwrap().to_string()
        };
        assert_eq!(like("flow"), "flow-2");
        assert_eq!(like("free"), "free");
    }

    #[test]
    fn a_long_name_still_gets_a_number() {
        let mut table = Table::default();
        let long = "x".repeat(MAX_NAME_BYTES);
        table.insert(Life::restored(samples::record_in(1, &long, DataflowState::Running)));
        let name = table.name_for(&NameWish::Like(long.parse().unwrap()), &Sight::all()).unwrap();
        assert!(name.as_str().ends_with("-2") && name.as_str().len() == MAX_NAME_BYTES);
    }

    #[test]
    fn the_oldest_ended_are_forgotten() {
        let mut table = Table::default();
        for number in 1..=(MAX_ENDED_DATAFLOWS as u128 + 3) {
            table.insert(Life::restored(samples::record_in(number, "flow", DataflowState::Finished)));
        }
        let forgotten = table.forget_oldest();
        assert_eq!(
            forgotten.iter().map(|life| life.record().id).collect::<Vec<_>>(),
            [1, 2, 3].map(samples::id)
        );
        assert!(table.forget_oldest().is_empty());
        assert!(table.started_by(samples::start_id(1)).is_none() && table.started_by(samples::start_id(4)).is_some());
    }

    #[test]
    fn those_that_ended_first_are_forgotten_whatever_the_clock_said() {
        let mut table = Table::default();
        let ended = |number, at_unix_ms| {
            let record = samples::record_in(number, "flow", DataflowState::Finished);
            let ended_unix_ms = Some(at_unix_ms);
            Life::restored(Record { ended_unix_ms, ..record })
        };
        // One of a former build, then as many as may stay, each with a clock that is behind the one before.
        table.insert(ended(1, 1));
        let counted = 2..=(MAX_ENDED_DATAFLOWS as u128 + 1);
        for number in counted.clone().rev() {
            table.insert(ended(number, number as u64));
            table.note_end(samples::id(number)).unwrap();
        }
        let forgotten = table.forget_oldest();
        assert_eq!(
            forgotten.iter().map(|life| life.record().id).collect::<Vec<_>>(),
            [samples::id(1)]
        );

        // The same after a restart.
        let mut again = Table::default();
        for number in counted {
            again.insert(table.lives.remove(&samples::id(number)).unwrap());
        }
        again.insert(ended(999, 0));
        again.note_end(samples::id(999)).unwrap();
        let forgotten = again.forget_oldest();
        let first = samples::id(MAX_ENDED_DATAFLOWS as u128 + 1);
        assert_eq!(forgotten.iter().map(|life| life.record().id).collect::<Vec<_>>(), [first]);
    }

    #[test]
    fn a_new_dataflow_is_the_latest_of_its_name_though_the_clock_was_set_back() {
        let mut table = Table::default();
        assert_eq!(table.next_id(samples::id(5)), samples::id(5));
        table.insert(Life::restored(samples::record_in(1_000, "flow", DataflowState::Finished)));
        let id = table.next_id(samples::id(7));
        assert_eq!(
            (id, table.next_id(samples::id(2_000))),
            (samples::id(1_001), samples::id(2_000))
        );
        table.insert(Life::restored(samples::record_in(1_001, "flow", DataflowState::Failed)));
        assert_eq!(table.find(&"flow".parse().unwrap(), &Sight::all()).unwrap(), id);
    }
}
