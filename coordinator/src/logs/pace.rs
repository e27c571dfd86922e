//! How fast lines come in, and how far behind a follower is therefore. Pure: time comes in as an argument.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// When which lines were stored, in steps of [`STEP`], for as long as [`MARKS`] of them last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    /// Number of the last line that was stored before the next mark, and when the first behind it was.
    marks: VecDeque<(u64, Instant)>,
    last_seq: u64,
}

/// How far behind a follower is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Behind {
    /// Lines that were not sent yet.
    pub(crate) lines: u64,
    /// How long ago the first of them was stored, within a step; at least that, where it is no longer known.
    pub(crate) span: Duration,
}

impl Pace {
    /// Lines up to this number are stored at `now`.
    pub(crate) fn stored(&mut self, last_seq: u64, now: Instant) {
        if last_seq <= self.last_seq {
            return;
        }
        if self.marks.back().is_none_or(|(_, at)| now.duration_since(*at) >= STEP) {
            self.marks.push_back((self.last_seq, now));
            if self.marks.len() > MARKS {
                self.marks.pop_front();
            }
        }
        self.last_seq = last_seq;
    }

    /// How far behind a follower is that has got everything up to `cursor`.
    pub(crate) fn behind(&self, cursor: u64, now: Instant) -> Behind {
        let lines = self.last_seq.saturating_sub(cursor);
        // The last mark at or before the line tells when it came; without one it is older than all of them.
        let mark = self.marks.iter().rev().find(|(before, _)| *before <= cursor);
        let mark = mark.or_else(|| self.marks.front());
        Behind {
            lines,
            span: match mark {
                Some((_, at)) if lines > 0 => now.saturating_duration_since(*at),
                _ => Duration::ZERO,
            },
        }
    }
}

impl Behind {
    /// Whether a follower is so far behind that it is told.
    pub(crate) fn is_worth_telling(&self) -> bool {
        self.lines > 0 && (self.span >= TELL_SPAN || self.lines >= TELL_LINES)
    }
}

/// Distance of two marks.
const STEP: Duration = Duration::from_secs(1);
/// Marks of one dataflow: ten minutes in which lines came.
const MARKS: usize = 600;
/// Lines behind from which on a follower is told: more than any batch and any page.
const TELL_LINES: u64 = 20_000;
/// Time behind from which on a follower is told.
const TELL_SPAN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_is_as_old_as_the_line_that_it_waits_for() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut pace = Pace::default();
        assert_eq!(pace.behind(0, at(0)).lines, 0);
        for second in 0..30 {
            pace.stored((second + 1) * 100, at(second));
        }
        let behind = pace.behind(1_000, at(29));
        assert_eq!((behind.lines, behind.span), (2_000, Duration::from_secs(19)));
        assert!(behind.is_worth_telling());
        assert!(!pace.behind(2_900, at(29)).is_worth_telling());
        let none = pace.behind(3_000, at(99));
        assert_eq!((none.lines, none.span), (0, Duration::ZERO));
        assert!(!none.is_worth_telling());
    }

    #[test]
    fn many_lines_are_worth_telling_at_once_and_marks_do_not_grow() {
        let begin = Instant::now();
        let mut pace = Pace::default();
        pace.stored(50_000, begin);
        assert!(pace.behind(1, begin).is_worth_telling());
        for second in 1..5_000 {
            pace.stored(50_000 + second, begin + Duration::from_secs(second));
        }
        assert_eq!(pace.marks.len(), MARKS);
        let now = begin + Duration::from_secs(5_000);
        let span = pace.behind(1, now).span;
        assert_eq!(span, Duration::from_secs(MARKS as u64), "at least so old");
    }
}
