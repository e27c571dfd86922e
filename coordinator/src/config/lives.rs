//! How long certificates live, by role, and how spans of time are written in settings.

use super::ConfigError;
use dora_remote_certs::default_life;
use dora_remote_protocol::{
    access::{MAX_CERTIFICATE_LIFE_MS, MIN_CERTIFICATE_LIFE_MS},
    identity::Role,
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};
use thiserror::Error;

/// How long the certificates of each role live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    admin: Duration,
    operator: Duration,
    viewer: Duration,
    daemon: Duration,
    coordinator: Duration,
}

impl Lives {
    /// The life of a certificate of that role.
    #[must_use]
    pub const fn of(&self, role: Role) -> Duration {
        match role {
            Role::Admin => self.admin,
            Role::Operator => self.operator,
            Role::Viewer => self.viewer,
            Role::Daemon => self.daemon,
            Role::Coordinator => self.coordinator,
        }
    }
}

impl Default for Lives {
    fn default() -> Self {
        Self {
            admin: default_life(Role::Admin),
            operator: default_life(Role::Operator),
            viewer: default_life(Role::Viewer),
            daemon: default_life(Role::Daemon),
            coordinator: default_life(Role::Coordinator),
        }
    }
}

/// The lives as they may stand in a file; none of them must, and each lies between five seconds and a year.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LivesOptions {
    /// Of admins; 30 days when absent.
    pub admin: Option<Span>,
    /// Of operators; 30 days when absent.
    pub operator: Option<Span>,
    /// Of viewers; 30 days when absent.
    pub viewer: Option<Span>,
    /// Of daemons; 7 days when absent.
    pub daemon: Option<Span>,
    /// Of the coordinator itself; 30 days when absent.
    pub coordinator: Option<Span>,
}

impl LivesOptions {
    /// These settings, and `others` where these say nothing.
    #[must_use]
    pub fn over(self, others: Self) -> Self {
        Self {
            admin: self.admin.or(others.admin),
            operator: self.operator.or(others.operator),
            viewer: self.viewer.or(others.viewer),
            daemon: self.daemon.or(others.daemon),
            coordinator: self.coordinator.or(others.coordinator),
        }
    }

    /// Checks the bounds and fills in what is left open.
    pub(super) fn checked(self) -> Result<Lives, ConfigError> {
        let life = |role: Role, wanted: Option<Span>| {
            let life = wanted.map_or_else(|| default_life(role), |span| span.0);
            let bounds = Duration::from_millis(MIN_CERTIFICATE_LIFE_MS)..=Duration::from_millis(MAX_CERTIFICATE_LIFE_MS);
            if bounds.contains(&life) {
                return Ok(life);
            }
            Err(ConfigError::Bad {
                key: "lives",
                reason: format!(
                    "{} for `{role}`, and a certificate lives from {} to {}",
                    Span(life),
                    Span(*bounds.start()),
                    Span(*bounds.end())
                ),
            })
        };
        Ok(Lives {
            admin: life(Role::Admin, self.admin)?,
            operator: life(Role::Operator, self.operator)?,
            viewer: life(Role::Viewer, self.viewer)?,
            daemon: life(Role::Daemon, self.daemon)?,
            coordinator: life(Role::Coordinator, self.coordinator)?,
        })
    }
}

/// A span of time as people write it: a whole number and one of `s`, `m`, `h`, `d`, as in `12h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

/// Why a text is no [`Span`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{text}` is no span of time: write a whole number and `s`, `m`, `h` or `d`, as in `12h`")]
pub struct SpanError {
    /// The text, escaped.
    pub text: String,
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let bad = || SpanError {
            text: text.escape_debug().to_string(),
        };
        let (unit, seconds) = UNITS.iter().find(|(unit, _)| text.ends_with(unit)).ok_or_else(bad)?;
        let digits = text.trim_end_matches(unit);
        if digits.len() + 1 != text.len() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad());
        }
        let count: u64 = digits.parse().map_err(|_| bad())?;
        Ok(Self(Duration::from_secs(count.checked_mul(*seconds).ok_or_else(bad)?)))
    }
}

impl TryFrom<String> for Span {
    type Error = SpanError;

    fn try_from(text: String) -> Result<Self, SpanError> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let unit = UNITS.iter().find(|(_, unit)| seconds != 0 && seconds.is_multiple_of(*unit));
        let (unit, length) = unit.unwrap_or(&("s", 1));
        write!(f, "{}{unit}", seconds / length)
    }
}

/// Units with their seconds, longest first.
const UNITS: [(&str, u64); 4] = [("d", 24 * 3600), ("h", 3600), ("m", 60), ("s", 1)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_survive_their_text_form() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("2m", 120), ("36h", 36 * 3600), ("7d", 7 * 24 * 3600)] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0, Duration::from_secs(seconds), "{text}");
            assert_eq!(span.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for text in [
            "",
            "7",
            "d",
            "1.5h",
            "-1s",
            "7dd",
            "7 d",
            "99999999999999999999s",
            "999999999999999999d",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
