//! The machine's wall clock, as it stands in events and log lines.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch; 0 for a clock that stands before it.
pub(crate) fn now_unix_ms() -> u64 {
    unix_ms(SystemTime::now())
}

/// An instant in milliseconds since the Unix epoch; 0 for one before it.
pub(crate) fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
