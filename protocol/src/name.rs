//! Names that people choose: of machines, of dataflows, of the holders of certificates.
//!
//! One grammar for all of them, so that a name is safe in a URI, in a file name and on a terminal.
//! Names compare without regard to ASCII case where they must be unique; see [`Name::same_as`].

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};
use thiserror::Error;

/// Longest name in bytes (a DNS label's bound, RFC 1035 section 2.3.4).
pub const MAX_NAME_BYTES: usize = 63;

/// A name of the form `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`. Copies share the text: every log line has one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// Name of a machine: the `deploy.machine` of a descriptor and the name in a daemon's certificate.
pub type MachineName = Name;

/// Name of a dataflow, unique among those that have not ended.
pub type DataflowName = Name;

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether two names count as the same one: names are unique ignoring ASCII case.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut bytes = text.bytes();
        let Some(first) = bytes.next() else {
            return Err(NameError::Empty);
        };
        if text.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong { length: text.len() });
        }
        if !first.is_ascii_alphanumeric() {
            return Err(NameError::BadStart {
                name: text.escape_debug().to_string(),
            });
        }
        if bytes.any(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))) {
            return Err(NameError::BadCharacter {
                name: text.escape_debug().to_string(),
            });
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a name is empty")]
    Empty,
    /// More than [`MAX_NAME_BYTES`] bytes.
    #[error("a name has {length} bytes, and at most {MAX_NAME_BYTES} are allowed")]
    TooLong {
        /// Bytes that were given.
        length: usize,
    },
    /// The first character is not a letter or a digit.
    #[error("the name `{name}` does not start with an ASCII letter or digit")]
    BadStart {
        /// The text, escaped.
        name: String,
    },
    /// A character outside the grammar.
    #[error("the name `{name}` has a character other than ASCII letters, digits, `.`, `_` and `-`")]
    BadCharacter {
        /// The text, escaped.
        name: String,
    },
}
