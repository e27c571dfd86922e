//! The machine's clocks: the wall clock, as it stands in events and log lines, and the boot clock, which nobody sets.

use std::{
    fs,
    sync::LazyLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Milliseconds since the Unix epoch; 0 for a clock that stands before it.
pub(crate) fn now_unix_ms() -> u64 {
    unix_ms(SystemTime::now())
}

/// An instant in milliseconds since the Unix epoch; 0 for one before it.
pub(crate) fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Time since the machine was booted, sleep included (`CLOCK_BOOTTIME`), to a hundredth of a second. Where the system does not
/// tell it, the time since the first call: then nothing is known of the time before a restart.
pub(crate) fn since_boot() -> Duration {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    let told = fs::read_to_string("/proc/uptime").ok();
    told.and_then(|text| uptime(&text)).unwrap_or_else(|| FIRST.elapsed())
}

/// The first field of `/proc/uptime` (proc(5)).
fn uptime(text: &str) -> Option<Duration> {
    let seconds = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_is_read_and_does_not_go_back() {
        assert_eq!(uptime("4242.42 1.0\n"), Some(Duration::from_millis(4_242_420)));
        for text in ["", "x 1", "-1 0", "inf 0"] {
            assert_eq!(uptime(text), None, "{text}");
        }
        let first = since_boot();
        assert!(since_boot() >= first);
    }
}
