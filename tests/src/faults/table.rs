//! The table of `docs/reliability.md`: each case prints its row, and appends it to the file that `DORA_REMOTE_RELIABILITY` names.

use super::{Report, Return, Tally};
use std::{fs::File, io::Write, time::Duration};

/// What the node prints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Load {
    /// A hundred lines a second.
    Steady,
    /// So many lines as fast as it can, then a hundred a second.
    Flood(u64),
}

impl Load {
    /// What must be within the bound: the first line that was printed after the end of the fault. In a flood the first line of all,
    /// as what piled up comes before.
    #[must_use]
    pub const fn soon(self, returned: Return) -> Option<Duration> {
        match self {
            Self::Steady => returned.live,
            Self::Flood(_) => returned.first,
        }
    }
}

/// One row.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// What happened.
    pub fault: &'a str,
    /// What the node printed meanwhile.
    pub load: Load,
    /// How soon lines came again.
    pub returned: Return,
    /// How soon they must.
    pub within: Duration,
    /// What came of it.
    pub report: &'a Report,
}

impl Row<'_> {
    /// Prints the row and appends it to the file.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[expect(clippy::print_stderr, reason = "the result of a measurement")]
    pub fn show(&self) {
        let (report, seen) = (self.report, self.report.first());
        let lost = report.seen().map(Tally::lost).max().unwrap_or_default();
        let doubled: u64 = report.seen().map(|seen| seen.doubled).sum();
        let disordered: u64 = report.seen().map(|seen| seen.disordered).sum();
        let order = if disordered == 0 { "kept" } else { "broken" };
        let time =
            |time: Option<Duration>| time.map_or_else(|| "never".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()));
        let load = match self.load {
            Load::Steady => "100 lines/s".to_owned(),
            Load::Flood(lines) => format!("{},000 lines at once", lines / 1000),
        };
        let missed = self.load.soon(self.returned).is_none_or(|soon| soon > self.within);
        let row = format!(
            "| {} | {load} | {} | {lost} | {doubled} | {order} | {} | {} | {:.0} s{} | {} ms |",
            self.fault,
            seen.done.unwrap_or(seen.lines),
            time(self.returned.first),
            time(self.returned.live),
            self.within.as_secs_f64(),
            if missed { ", missed" } else { "" },
            seen.pause.as_millis(),
        );
        eprintln!("{row}\nlongest pause: after line {}", seen.pause_after);
        if let Some(path) = std::env::var_os("DORA_REMOTE_RELIABILITY") {
            let file = File::options().create(true).append(true).open(&path);
            let written = file.and_then(|mut file| file.write_all(format!("{row}\n").as_bytes()));
            written.unwrap_or_else(|error| panic!("DORA_REMOTE_RELIABILITY: {}: {error}", path.display()));
        }
    }
}
