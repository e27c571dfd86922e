//! Places for engines: one for the engine that takes new runs, others for older ones that still have some. Pure.
//!
//! An agent that was replaced by another program adopts the engine that its predecessor left, lets it go on with the runs it has, and
//! starts new ones in an engine of its own program, which has another place.

use crate::records::{EngineRecord, ProgramId};
use serde::{Deserialize, Serialize};

/// One place: an engine's directory, its socket and its line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Seat(u8);

/// Places. When all are taken by older engines, the newest of these takes new runs, too.
pub(crate) const SEATS: usize = 4;

impl Seat {
    /// All places, in order.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..SEATS).filter_map(|number| u8::try_from(number).ok()).map(Self)
    }

    /// Its index among all.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0).min(SEATS - 1)
    }

    /// Name of its directory.
    pub(crate) fn dir_name(self) -> String {
        match self.0 {
            0 => "engine".to_owned(),
            number => format!("engine-{number}"),
        }
    }
}

/// Who sits where after a start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Allotment {
    /// Where the engine is, or will be, that takes new runs.
    pub(crate) present: Seat,
    /// Where older engines are that take none; one that has died meanwhile is only cleaned up after.
    pub(crate) draining: Vec<Seat>,
}

impl Allotment {
    /// Allots the places to the remembered engines, oldest first, each with whether it lives. `program`: what engines are started
    /// from now; when that is unknown, no engine counts as older.
    pub(crate) fn of(engines: &[(EngineRecord, bool)], program: Option<ProgramId>) -> Self {
        let living = || engines.iter().filter(|(_, lives)| *lives).map(|(record, _)| record);
        let is_ours = |record: &&EngineRecord| program.is_none() || record.program == program;
        let dead = engines.iter().find(|(_, lives)| !lives).map(|(record, _)| record.seat);
        let free = || Seat::all().find(|seat| engines.iter().all(|(record, _)| record.seat != *seat));
        let present = living()
            .rfind(is_ours)
            .map(|record| record.seat)
            .or(dead)
            .or_else(free)
            .or_else(|| living().next_back().map(|record| record.seat))
            .unwrap_or_default();
        let others = engines.iter().map(|(record, _)| record.seat).filter(|seat| *seat != present);
        Self {
            present,
            draining: others.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dora_remote_protocol::ids::{BootId, EngineId};
    use uuid::Uuid;

    fn program(inode: u64) -> ProgramId {
        ProgramId { device: 1, inode }
    }

    fn record(seat: u8, inode: u64) -> EngineRecord {
        EngineRecord {
            seat: Seat(seat),
            engine: EngineId(Uuid::new_v4()),
            process: None,
            boot: BootId(Uuid::nil()),
            program: Some(program(inode)),
        }
    }

    fn allot(engines: &[(EngineRecord, bool)], inode: u64) -> (u8, Vec<u8>) {
        let allotment = Allotment::of(engines, Some(program(inode)));
        (allotment.present.0, allotment.draining.iter().map(|seat| seat.0).collect())
    }

    #[test]
    fn an_engine_of_this_program_goes_on_and_an_older_one_drains() {
        assert_eq!(allot(&[], 7), (0, vec![]));
        assert_eq!(allot(&[(record(0, 7), true)], 7), (0, vec![]));
        assert_eq!(allot(&[(record(0, 6), true)], 7), (1, vec![0]));
        assert_eq!(allot(&[(record(0, 6), true), (record(1, 7), true)], 7), (1, vec![0]));
        assert_eq!(
            allot(&[(record(0, 6), true), (record(1, 7), true)], 6),
            (0, vec![1]),
            "going back to the former program works alike"
        );
        assert_eq!(
            Allotment::of(&[(record(2, 6), true)], None).present,
            Seat(2),
            "a program that cannot be looked at changes nothing"
        );
    }

    #[test]
    fn a_dead_engine_leaves_its_place() {
        assert_eq!(allot(&[(record(2, 7), false)], 7), (2, vec![]));
        assert_eq!(allot(&[(record(0, 6), true), (record(1, 6), false)], 7), (1, vec![0]));
        assert_eq!(
            allot(&[(record(0, 7), true), (record(1, 6), false)], 7),
            (0, vec![1]),
            "what it left behind is cleaned up"
        );
    }

    #[test]
    fn when_all_places_are_taken_the_newest_engine_takes_new_runs() {
        let taken: Vec<_> = [3, 0, 1, 2].map(|seat| (record(seat, u64::from(seat)), true)).into();
        assert_eq!(allot(&taken, 9), (2, vec![3, 0, 1]));
    }

    #[test]
    fn places_have_directories_of_their_own() {
        let names: Vec<_> = Seat::all().map(Seat::dir_name).collect();
        assert_eq!(names, ["engine", "engine-1", "engine-2", "engine-3"]);
    }
}
