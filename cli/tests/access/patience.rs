//! The one way to wait for files and processes of others: on a condition, with one generous deadline.

use std::time::{Duration, Instant};

/// How long anything may take on a machine with much to do.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Time between two looks at a condition.
pub(crate) const STEP: Duration = Duration::from_millis(20);

/// Looks until something is so, for as long as [`DEADLINE`] allows.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < DEADLINE, "waited {DEADLINE:?} for: {what}");
        std::thread::sleep(STEP);
    }
}
