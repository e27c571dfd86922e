//! Versions of the language between peers: the newest, the oldest still spoken, and how two sides agree.

use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// Application protocol of the TLS handshake (RFC 7301). Carries the major version; the hello agrees on the minor one.
pub const ALPN: &[u8] = b"dora-remote/1";

/// A minor version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u16);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

/// The newest version that this build speaks.
pub const CURRENT: Version = Version(1);
/// The oldest version that this build still speaks.
pub const OLDEST_SPOKEN: Version = Version(1);

/// Every version that a side speaks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRange {
    /// Oldest version spoken.
    pub oldest: Version,
    /// Newest version spoken.
    pub newest: Version,
}

impl VersionRange {
    /// What this build speaks.
    pub const OURS: Self = Self {
        oldest: OLDEST_SPOKEN,
        newest: CURRENT,
    };

    /// Picks the newest version that both sides speak.
    ///
    /// # Errors
    /// [`VersionMismatch`] when there is none; it says which side is behind.
    pub fn agree(self, theirs: Self) -> Result<Version, VersionMismatch> {
        let newest = self.newest.min(theirs.newest);
        if newest < self.oldest || newest < theirs.oldest || theirs.oldest > theirs.newest {
            return Err(VersionMismatch { ours: self, theirs });
        }
        Ok(newest)
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.oldest == self.newest {
            return write!(f, "{}", self.newest);
        }
        write!(f, "{} to {}", self.oldest, self.newest)
    }
}

/// Two sides share no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("this side speaks protocol {ours}, the peer {theirs}; upgrade {}", self.behind())]
pub struct VersionMismatch {
    /// What this side speaks.
    pub ours: VersionRange,
    /// What the peer speaks.
    pub theirs: VersionRange,
}

impl VersionMismatch {
    /// Which side must be upgraded.
    #[must_use]
    pub fn behind(&self) -> &'static str {
        if self.theirs.newest > self.ours.newest {
            "this side"
        } else {
            "the peer"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(oldest: u16, newest: u16) -> VersionRange {
        VersionRange {
            oldest: Version(oldest),
            newest: Version(newest),
        }
    }

    #[test]
    fn the_newest_common_version_is_picked() {
        assert_eq!(range(1, 4).agree(range(2, 9)), Ok(Version(4)));
        assert_eq!(range(2, 9).agree(range(1, 4)), Ok(Version(4)));
    }

    #[test]
    fn no_common_version_names_the_side_that_is_behind() {
        let error = range(1, 2).agree(range(7, 9)).expect_err("nothing in common");
        assert_eq!(error.behind(), "this side");
        assert_eq!(range(7, 9).agree(range(1, 2)).expect_err("nothing").behind(), "the peer");
        assert!(range(1, 2).agree(range(2, 1)).is_err(), "an empty range agrees with nobody");
    }
}
