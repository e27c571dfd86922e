//! Counts lines as they come, in constant memory: what is missing, doubled, out of order, and how long the node itself paused.

use serde_json::Value;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The clock of short lines starts anew after this many milliseconds.
const SHORT_CLOCK: u64 = 100_000_000;

/// What a follower has seen.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Numbered lines.
    pub lines: u64,
    /// Lines that came a second time.
    pub doubled: u64,
    /// Lines that came after a later one.
    pub disordered: u64,
    /// Gaps that the program told of.
    pub gaps: u64,
    /// Number of lines that the node says it has printed.
    pub done: Option<u64>,
    /// Longest time between two lines by the node's clock.
    pub pause: Duration,
    /// The line before that pause.
    pub pause_after: u64,
    /// Ranges that have not come, from first to last.
    missing: BTreeMap<u64, u64>,
    last: u64,
    clock: Option<u64>,
    mark: Option<Mark>,
}

/// A moment from which a return is measured.
#[derive(Clone, Copy, Debug)]
struct Mark {
    began: Instant,
    began_unix_ms: u64,
    returned: Return,
}

/// How soon lines came again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Return {
    /// Time until the first line.
    pub first: Option<Duration>,
    /// Time until the first line that was printed after the moment: what piled up before is delivered then.
    pub live: Option<Duration>,
}

impl Tally {
    /// Lines that are missing, up to the last one that the node has printed or that came.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let holes: u64 = self.missing.iter().map(|(first, last)| last - first + 1).sum();
        holes + self.done.map_or(0, |done| done.saturating_sub(self.last))
    }

    /// What is missing, for messages.
    #[must_use]
    pub fn holes(&self) -> String {
        let mut holes: Vec<String> = self
            .missing
            .iter()
            .take(10)
            .map(|(first, last)| format!("{first}-{last}"))
            .collect();
        if let Some(done) = self.done.filter(|done| *done > self.last) {
            holes.push(format!("{}-{done}", self.last + 1));
        }
        holes.join(", ")
    }

    /// Number of the last line.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// How soon lines came after the last moment that was marked.
    #[must_use]
    pub fn returned(&self) -> Return {
        self.mark.map(|mark| mark.returned).unwrap_or_default()
    }

    /// Measures the return from this moment.
    pub(super) fn mark(&mut self, began: Instant) {
        let now = SystemTime::now() - began.elapsed();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.mark = Some(Mark {
            began,
            began_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            returned: Return::default(),
        });
    }

    /// Forgets the longest pause so far: the first lines of an interpreter that starts are no measure.
    pub(super) const fn forget_pause(&mut self) {
        (self.pause, self.pause_after) = (Duration::ZERO, 0);
    }

    /// Takes one line of a feed in its machine form.
    ///
    /// # Panics
    /// When it is no JSON.
    pub(super) fn take(&mut self, line: &str) {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        match line["type"].as_str() {
            Some("gap") => self.gaps += 1,
            Some("log") if line["source"] == "node" => self.take_text(line["text"].as_str().unwrap_or_default()),
            _ => {}
        }
    }

    fn take_text(&mut self, text: &str) {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |word: &str| word.parse::<u64>().ok();
        match words[..] {
            ["done", count] => self.done = number(count),
            ["tick", count, "at", at] => {
                if let (Some(count), Some(clock)) = (number(count), number(at)) {
                    self.take_tick(count, clock);
                }
            }
            _ => {}
        }
    }

    fn take_tick(&mut self, number: u64, clock: u64) {
        self.lines += 1;
        if number > self.last {
            if number > self.last + 1 {
                self.missing.insert(self.last + 1, number - 1);
            }
            self.last = number;
            self.take_clock(number, clock);
        } else if self.fill(number) {
            self.disordered += 1;
        } else {
            self.doubled += 1;
        }
        if let Some(mark) = &mut self.mark {
            let took = mark.began.elapsed();
            mark.returned.first.get_or_insert(took);
            if clock >= SHORT_CLOCK && clock >= mark.began_unix_ms {
                mark.returned.live.get_or_insert(took);
            }
        }
    }

    fn take_clock(&mut self, number: u64, clock: u64) {
        let short = clock % SHORT_CLOCK;
        if let Some(before) = self.clock.replace(short) {
            let pause = (short + SHORT_CLOCK - before) % SHORT_CLOCK;
            // A clock that was set back is no pause.
            let pause = Duration::from_millis(if pause > SHORT_CLOCK / 2 { 0 } else { pause });
            if pause > self.pause {
                (self.pause, self.pause_after) = (pause, number - 1);
            }
        }
    }

    /// Fills a hole; false when there is none.
    fn fill(&mut self, number: u64) -> bool {
        let Some((&first, &last)) = self.missing.range(..=number).next_back() else {
            return false;
        };
        if number > last {
            return false;
        }
        self.missing.remove(&first);
        if first < number {
            self.missing.insert(first, number - 1);
        }
        if number < last {
            self.missing.insert(number + 1, last);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(texts: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for text in texts {
            tally.take(&serde_json::json!({ "type": "log", "source": "node", "text": text }).to_string());
        }
        tally
    }

    #[test]
    fn tells_lost_doubled_and_disordered_lines_and_the_longest_pause() {
        let whole = tally(&["tick 1 at 1700000000000", "tick 2 at 1700000000010", "done 2"]);
        assert_eq!((whole.lost(), whole.doubled, whole.disordered, whole.lines), (0, 0, 0, 2));
        let torn = tally(&[
            "tick 0000001 at 99999990",
            "tick 0000005 at 00000020",
            "tick 0000003 at 00000021",
            "tick 0000005 at 00000022",
            "something else",
            "done 7",
        ]);
        assert_eq!((torn.lost(), torn.doubled, torn.disordered), (4, 1, 1));
        assert_eq!(torn.holes(), "2-2, 4-4, 6-7");
        assert_eq!((torn.pause, torn.pause_after), (Duration::from_millis(30), 4));
    }

    #[test]
    fn what_piled_up_is_no_live_line() {
        let mut tally = tally(&["tick 1 at 1700000000000"]);
        tally.mark(Instant::now());
        assert!(tally.returned().first.is_none());
        tally.take_tick(2, 1_700_000_000_010);
        assert!(tally.returned().first.is_some() && tally.returned().live.is_none());
        tally.take_tick(3, 99_999_999_999_999);
        assert!(tally.returned().live.is_some());
    }
}
