//! Lines that are lost, and how a gap is told exactly once.

use super::{Lines, Pending, Series};
use std::{
    io,
    time::{Duration, Instant},
};

/// Time without a further failure after which lines that could not be written are told: so that one outage is one gap.
const QUIET: Duration = Duration::from_secs(2);

/// Lines that are lost at one place of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Loss {
    /// Lines that end behind this position come after the gap.
    pub(super) at: u64,
    /// How many are lost.
    pub(super) lines: u64,
    /// How many of them could not be written.
    pub(super) failed: u64,
    /// How many of them are counted in `LogCursor::dropped`.
    pub(super) dropped: u64,
}

impl Loss {
    /// Lines of files that were given up.
    pub(super) fn dropped(lines: u64) -> Self {
        Self {
            lines,
            dropped: lines,
            ..Self::default()
        }
    }

    /// Adds another loss at the same place.
    pub(super) fn add(&mut self, other: Self) {
        self.lines += other.lines;
        self.failed += other.failed;
        self.dropped += other.dropped;
    }
}

impl Series {
    /// Notes how many lines could not be written from the beginning of the run on.
    pub(crate) fn failed(&mut self, lines: u64) -> io::Result<()> {
        if lines > self.failed {
            self.failed = lines;
            self.failed_at = Some(Instant::now());
        }
        self.place_failed()
    }

    /// Gives lines that could not be written their place: what is in the file by now was written before.
    pub(super) fn place_failed(&mut self) -> io::Result<()> {
        let placed = self.files.iter().flat_map(|held| &held.losses).map(|loss| loss.failed);
        let new = self.failed.saturating_sub(self.cursor.failed_told + placed.sum::<u64>());
        if new == 0 {
            return Ok(());
        }
        // Those that are not told yet belong to the same gap.
        let mut losses = self.files.iter_mut().flat_map(|held| &mut held.losses);
        if let Some(known) = losses.find(|loss| loss.failed > 0) {
            known.failed += new;
            known.lines += new;
        } else if let Some(held) = self.files.back_mut() {
            held.losses.push_back(Loss {
                at: held.file.metadata()?.len(),
                lines: new,
                failed: new,
                dropped: 0,
            });
        }
        Ok(())
    }

    /// The gap that comes next, unless it may still grow. `complete`: nothing will be appended any more.
    pub(super) fn next_gap(&mut self, complete: bool, now: u64) -> io::Result<Option<Lines>> {
        let may_grow = !complete && self.failed_at.is_some_and(|at| at.elapsed() < QUIET);
        let Some(held) = self.files.front_mut() else {
            return Ok(None);
        };
        let Some(loss) = held.losses.front().copied().filter(|loss| loss.failed == 0 || !may_grow) else {
            return Ok(None);
        };
        held.losses.pop_front();
        self.start_over(now);
        self.cursor.gap = loss.lines;
        self.cursor.failed_told += loss.failed;
        self.cursor.dropped = self.cursor.dropped.saturating_sub(loss.dropped);
        self.note_place()?;
        Ok(Some(self.gap()))
    }

    /// The gap that the cursor holds.
    pub(super) fn gap(&mut self) -> Lines {
        self.pending = Some(Pending {
            files_done: 0,
            position: 0,
            offset: self.cursor.offset,
            at_unix_ms: self.cursor.at_unix_ms,
            lines: 0,
            is_dropped: false,
            is_gap: true,
        });
        Lines {
            lost_before: self.cursor.gap,
            // What comes next is at hand.
            is_full: true,
            records: Vec::new(),
        }
    }

    /// Takes the gap back that was read last: it could not be stored. It comes again.
    pub(crate) fn put_back(&mut self) {
        self.pending = None;
    }
}
