//! Points in time and spans as people and programs read them. No clock is read here: `now` is an argument.

use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::TimeZone,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time as programs read it: RFC 3339, UTC, milliseconds.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| "out of range".to_owned(), |at| format!("{at:.3}"))
}

/// A point in time as people read it: `3m ago`, `in 5d`.
#[must_use]
pub fn relative(unix_ms: u64, now_unix_ms: u64) -> String {
    if unix_ms > now_unix_ms {
        return format!("in {}", span(Duration::from_millis(unix_ms - now_unix_ms)));
    }
    format!("{} ago", span(Duration::from_millis(now_unix_ms - unix_ms)))
}

/// A span in its one or two largest units: `42s`, `3m 5s`, `2h 10m`, `5d`.
#[must_use]
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => two(minutes, "m", seconds % 60, "s"),
        (0, hours, minutes) => two(hours, "h", minutes, "m"),
        (days, hours, _) if days < 3 => two(days, "d", hours, "h"),
        (days, _, _) => format!("{days}d"),
    }
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 {
        format!("{large}{large_unit}")
    } else {
        format!("{large}{large_unit} {small}{small_unit}")
    }
}

/// Milliseconds since the Unix epoch; 0 for a time before it.
#[must_use]
pub fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Reads a span as people type it: `90s`, `500ms`, `5m`, `12h`, `30d`, or a bare number of seconds.
///
/// # Errors
/// A text that says what is accepted.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds_per_unit = match unit.trim() {
        "ms" => 0.001,
        "" | "s" | "sec" | "secs" => 1.0,
        "m" | "min" | "mins" => 60.0,
        "h" | "hours" | "hour" => 3_600.0,
        "d" | "days" | "day" => 86_400.0,
        _ => {
            return Err(format!(
                "`{}` is not a span such as 500ms, 90s, 5m, 12h or 30d",
                text.escape_debug()
            ));
        }
    };
    number
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * seconds_per_unit).ok())
        .ok_or_else(|| format!("`{}` is not a span such as 500ms, 90s, 5m, 12h or 30d", text.escape_debug()))
}

/// A point in time as people type it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So long ago.
    Ago(Duration),
    /// At this time, in milliseconds since the Unix epoch.
    At(u64),
}

impl Moment {
    /// The time in milliseconds since the Unix epoch, where it is `now_unix_ms`.
    #[must_use]
    pub fn unix_ms(self, now_unix_ms: u64) -> u64 {
        match self {
            Self::Ago(span) => now_unix_ms.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
            Self::At(unix_ms) => unix_ms,
        }
    }
}

/// Reads a point in time as people type it: a span as for [`parse_span`], which is so long ago, or a time or a date of
/// RFC 3339; in UTC where it names no offset.
///
/// # Errors
/// A text that says what is accepted.
pub fn parse_moment(text: &str) -> Result<Moment, String> {
    if let Ok(span) = parse_span(text) {
        return Ok(Moment::Ago(span));
    }
    let utc = |at: DateTime| at.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
    let at = text.parse::<Timestamp>().ok();
    let at = at.or_else(|| text.parse::<DateTime>().ok().and_then(utc));
    let at = at.or_else(|| text.parse::<Date>().ok().and_then(|date| utc(date.into())));
    at.and_then(|at| u64::try_from(at.as_millisecond()).ok())
        .map(Moment::At)
        .ok_or_else(|| {
            format!(
                "`{}` is neither a span such as 2h or 30d nor a time such as 2026-03-01T12:00:00Z or 2026-03-01",
                text.escape_debug()
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_show_their_largest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (185, "3m 5s"),
            (7_800, "2h 10m"),
            (90_000, "1d 1h"),
            (500_000, "5d"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn times_are_told_from_now() {
        assert_eq!(relative(1_000, 61_000), "1m ago");
        assert_eq!(relative(61_000, 1_000), "in 1m");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn spans_are_read_as_people_type_them() {
        assert_eq!(parse_span("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_span("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_span("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_span("2h"), Ok(Duration::from_secs(7_200)));
        for bad in ["", "x", "-5s", "5 weeks", "1e9s", "1.2.3s"] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }
    #[test]
    fn points_in_time_are_spans_times_or_dates() {
        assert_eq!(parse_moment("2h").map(|at| at.unix_ms(10_000_000)), Ok(2_800_000));
        assert_eq!(parse_moment("30d").map(|at| at.unix_ms(1)), Ok(0));
        assert_eq!(parse_moment("1970-01-02"), Ok(Moment::At(86_400_000)));
        assert_eq!(parse_moment("1970-01-01T01:00:00Z"), Ok(Moment::At(3_600_000)));
        assert_eq!(parse_moment("1970-01-01T01:00:00+01:00"), Ok(Moment::At(0)));
        assert_eq!(parse_moment("1970-01-01 00:00:01"), Ok(Moment::At(1_000)));
        for bad in ["", "yesterday", "1969-12-31", "2026-13-01", "5 weeks"] {
            assert!(parse_moment(bad).is_err(), "{bad}");
        }
    }
}
