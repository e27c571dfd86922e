//! Wall time as an argument: who asks for it is handed a [`Clock`], and how an instant is written for people.
//!
//! [`SystemClock`] is the only place of this crate that reads the clock of the machine. A clock with a floor, for boards
//! that boot in 1970, implements the same trait elsewhere.

use std::{
    fmt,
    fmt::Debug,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use time::OffsetDateTime;

/// Tells the wall time by which certificates are judged.
pub trait Clock: Send + Sync + Debug {
    /// The time now. Need not be monotonic.
    fn now(&self) -> SystemTime;

    /// Tells that [`Self::now`] may lie before the true time by any amount, and that nobody is there to set the clock right.
    ///
    /// Whoever verifies a coordinator then takes a certificate that has not begun as proof that the clock is behind.
    fn may_lag(&self) -> bool {
        false
    }
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// Shows an instant as `2026-11-22 18:57:55 UTC`, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc(pub SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(at) = OffsetDateTime::from_unix_timestamp(unix_seconds(self.0)) else {
            return f.write_str("a time beyond the calendar");
        };
        write!(
            f,
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second()
        )
    }
}

/// Seconds since the Unix epoch, rounded down; certificates know nothing finer.
pub(crate) fn unix_seconds(at: SystemTime) -> i64 {
    match at.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds - 1),
    }
}

/// The instant that many seconds after the Unix epoch; `None` before it or where this machine cannot express it.
pub(crate) fn from_unix_seconds(seconds: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_in_utc() {
        assert_eq!(
            Utc(UNIX_EPOCH + Duration::from_secs(951_782_400)).to_string(),
            "2000-02-29 00:00:00 UTC"
        );
        assert_eq!(
            Utc(UNIX_EPOCH - Duration::from_millis(1)).to_string(),
            "1969-12-31 23:59:59 UTC"
        );
    }
}
