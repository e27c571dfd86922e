//! The one way to wait for files and processes of others: on a condition, with one generous deadline.

use std::time::{Duration, Instant};

/// How long anything may take on a machine with much to do.
const DEADLINE: Duration = Duration::from_secs(60);
/// Time between two looks at a condition.
const STEP: Duration = Duration::from_millis(20);

/// Looks until something is so, for as long as [`DEADLINE`] allows.
#[track_caller]
pub(crate) fn until(what: &str, is_so: impl FnMut() -> bool) {
    assert!(comes(is_so), "waited {DEADLINE:?} for: {what}");
}

/// Looks as long; false when it did not become so.
pub(crate) fn comes(mut is_so: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    loop {
        if is_so() {
            return true;
        }
        if began.elapsed() >= DEADLINE {
            return false;
        }
        std::thread::sleep(STEP);
    }
}
