//! The table of `docs/reliability.md`: each case prints its row, and appends it to the file that `DORA_REMOTE_RELIABILITY` names.

use super::{Report, Return, Tally};
use crate::relay::Counts;
use std::{fs::File, io::Write, time::Duration};

/// One row.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// What happened.
    pub fault: &'a str,
    /// What the node printed meanwhile.
    pub load: &'a str,
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
        let missed = self.returned.live.is_none_or(|live| live > self.within);
        let row = format!(
            "| {} | {} | {} | {lost} | {doubled} | {order} | {} | {}{} | {:.0} s | {} ms |",
            self.fault,
            self.load,
            seen.done.unwrap_or(seen.lines),
            time(self.returned.first),
            time(self.returned.live),
            if missed { " (missed)" } else { "" },
            self.within.as_secs_f64(),
            seen.pause.as_millis(),
        );
        eprintln!("{row}");
        if let Some(path) = std::env::var_os("DORA_REMOTE_RELIABILITY") {
            let file = File::options().create(true).append(true).open(&path);
            let written = file.and_then(|mut file| file.write_all(format!("{row}\n").as_bytes()));
            written.unwrap_or_else(|error| panic!("DORA_REMOTE_RELIABILITY: {}: {error}", path.display()));
        }
    }
}

/// Bytes on the wire between two looks, headers included: to the coordinator, and from it.
#[must_use]
pub fn wire(before: [Counts; 2], after: [Counts; 2]) -> [u64; 2] {
    [0, 1].map(|lane| after[lane].bytes - before[lane].bytes)
}
