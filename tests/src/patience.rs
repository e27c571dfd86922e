//! The one way to wait: on a condition, with one generous deadline. Tests never sleep, and never assert how fast something is.

use std::time::{Duration, Instant};

/// Time after which a condition counts as never coming true. Generous, as machines that run tests are slow and shared.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Time between two looks at a condition.
const STEP: Duration = Duration::from_millis(50);

/// Waits until `look` sees something, and returns it.
///
/// # Panics
/// After [`DEADLINE`], saying `what` was waited for.
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(DEADLINE, what, look)
}

/// Waits until `look` sees something, for things that take longer by their nature.
///
/// # Panics
/// After `deadline`, saying `what` was waited for.
#[track_caller]
pub fn until_within<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < deadline, "waited {deadline:?} for: {what}");
        std::thread::sleep(STEP);
    }
}

/// Waits until `look` says yes.
///
/// # Panics
/// After [`DEADLINE`], saying `what` was waited for.
#[track_caller]
pub fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()));
}

/// Lets time pass while something else is under way, such as a cut link; `watch` is looked at all the while and may panic.
pub fn for_a_while(time: Duration, mut watch: impl FnMut()) {
    let began = Instant::now();
    while began.elapsed() < time {
        watch();
        std::thread::sleep(STEP);
    }
}
