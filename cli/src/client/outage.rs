//! The silence of one link, and what people are told of it: one quiet line once it has lasted, one when it is over.
//!
//! Several feeds of one session hear the same silence; it is told once. What is said is decided purely, time comes in as an argument.

use crate::output::{Printer, time::span};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// The silence of one link, shared by all that listen to it.
pub(super) struct Outage {
    printer: Printer,
    state: Mutex<State>,
}

impl Outage {
    pub(super) fn new(printer: &Printer) -> Self {
        Self {
            printer: printer.clone(),
            state: Mutex::default(),
        }
    }

    /// Nothing was heard since `since`.
    pub(super) fn silent(&self, since: Instant) {
        match self.state().silent(since, Now::here()) {
            Some(Word::First(text)) if !self.printer.may_move() => self.printer.note(&text),
            Some(Word::First(text) | Word::Again(text)) => self.printer.moving_line(&text),
            None => {}
        }
    }

    /// The link is alive.
    pub(super) fn heard(&self) {
        let over = self.state().heard(Now::here());
        if let Some(text) = over {
            self.printer.moving_line("");
            self.printer.note(&text);
        }
    }

    /// Whether the link is silent now.
    pub(super) fn is_on(&self) -> bool {
        self.state().began.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The present by both clocks: the one that only runs forward stands still while a laptop sleeps.
#[derive(Clone, Copy, Debug)]
struct Now {
    steady: Instant,
    wall: SystemTime,
}

impl Now {
    fn here() -> Self {
        Self {
            steady: Instant::now(),
            wall: SystemTime::now(),
        }
    }
}

/// What is said of a silence that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    /// For the first time.
    First(String),
    /// Where a line may be rewritten.
    Again(String),
}

#[derive(Debug, Default)]
struct State {
    /// When anything was last heard by anybody.
    heard: Option<Instant>,
    /// When the silence began.
    began: Option<Now>,
    told: bool,
}

impl State {
    fn silent(&mut self, since: Instant, now: Now) -> Option<Word> {
        let since = self.heard.map_or(since, |heard| heard.max(since));
        let quiet = now.steady.saturating_duration_since(since);
        let began = self.began.get_or_insert_with(|| Now {
            steady: since,
            wall: now.wall.checked_sub(quiet).unwrap_or(now.wall),
        });
        let lasted = lasted(*began, now);
        if lasted < TELL_AFTER {
            return None;
        }
        let text = format!("link silent for {}", in_words(lasted));
        if std::mem::replace(&mut self.told, true) {
            Some(Word::Again(text))
        } else {
            Some(Word::First(text))
        }
    }

    fn heard(&mut self, now: Now) -> Option<String> {
        self.heard = Some(now.steady);
        let began = self.began.take();
        let told = std::mem::take(&mut self.told);
        began
            .filter(|_| told)
            .map(|began| format!("resumed after {}", in_words(lasted(began, now))))
    }
}

/// How long it is since then. A clock that only runs forward misses a sleep, and one that may be set is not believed in small things.
fn lasted(began: Now, now: Now) -> Duration {
    let steady = now.steady.saturating_duration_since(began.steady);
    let wall = now.wall.duration_since(began.wall).unwrap_or_default();
    if wall > steady + SLEPT { wall } else { steady }
}

fn in_words(lasted: Duration) -> String {
    if lasted < MINUTES {
        format!("{} s", lasted.as_secs())
    } else {
        span(lasted)
    }
}

/// Silence that is worth a word; shorter ones heal before anybody has wondered.
const TELL_AFTER: Duration = Duration::from_secs(8);
/// Silence that is counted in minutes from then on.
const MINUTES: Duration = Duration::from_secs(100);
/// Difference of the clocks that counts as a sleep.
const SLEPT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_told_once_and_so_is_its_end() {
        let begin = Now::here();
        let at = |seconds| Now {
            steady: begin.steady + Duration::from_secs(seconds),
            wall: begin.wall + Duration::from_secs(seconds),
        };
        let mut state = State::default();
        for second in 0..8 {
            assert_eq!(state.silent(begin.steady, at(second)), None);
        }
        let first = Word::First("link silent for 8 s".to_owned());
        assert_eq!(state.silent(begin.steady, at(8)), Some(first));
        // Another feed has heard its last thing a little later: it is the same silence.
        let again = Word::Again("link silent for 20 s".to_owned());
        assert_eq!(state.silent(at(1).steady, at(20)), Some(again));
        assert_eq!(state.heard(at(63)).as_deref(), Some("resumed after 63 s"));
        // A feed that has not been moved to the new connection yet does not begin it anew.
        assert_eq!(state.silent(begin.steady, at(64)), None);
        assert_eq!(state.heard(at(65)), None, "what was not told has no end to tell");
    }

    #[test]
    fn a_sleep_counts_though_the_steady_clock_stood_still() {
        let begin = Now::here();
        let mut state = State::default();
        state.silent(begin.steady, begin);
        let awake = Now {
            steady: begin.steady + Duration::from_secs(1),
            wall: begin.wall + Duration::from_secs(7_200),
        };
        assert_eq!(
            state.silent(begin.steady, awake),
            Some(Word::First("link silent for 2h".to_owned()))
        );
        assert_eq!(state.heard(awake).as_deref(), Some("resumed after 2h"));
    }
}
