//! Who a peer is: role and name within a trust domain, as its certificate says.
//!
//! The text form is a SPIFFE id (SPIFFE-ID section 2), `spiffe://<trust-domain>/<role>/<name>`; it is parsed
//! once, where the certificate is read, and is never a bare string afterwards.

use crate::name::{Name, NameError};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// What the holder of a certificate is, and with it what it may ask.
///
/// The discriminant is the bit in a [`RoleSet`] and the number on the wire: never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Role {
    /// May do everything a person can do.
    Admin = 0,
    /// May start, stop and watch dataflows.
    Operator = 1,
    /// May look, and change nothing.
    Viewer = 2,
    /// The agent on a machine.
    Daemon = 3,
    /// The server that all others talk to.
    Coordinator = 4,
}

impl Role {
    /// Every role, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Admin, Self::Operator, Self::Viewer, Self::Daemon, Self::Coordinator];

    /// The role as it stands in a SPIFFE id and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Daemon => "daemon",
            Self::Coordinator => "coordinator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| IdentityError::UnknownRole {
                role: text.escape_debug().to_string(),
            })
    }
}

/// A set of roles, as a verb states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleSet(u8);

impl RoleSet {
    /// People who look: admin, operator, viewer.
    pub const LOOK: Self = Self::of(&[Role::Admin, Role::Operator, Role::Viewer]);
    /// People who act: admin, operator.
    pub const ACT: Self = Self::of(&[Role::Admin, Role::Operator]);
    /// Admins alone.
    pub const ADMIN: Self = Self::of(&[Role::Admin]);
    /// Everybody who holds a certificate and asks: people and daemons.
    pub const HOLDERS: Self = Self::of(&[Role::Admin, Role::Operator, Role::Viewer, Role::Daemon]);
    /// No role at all: what the right to ask comes from stands with the request.
    pub const NOBODY: Self = Self::of(&[]);
    /// Daemons alone.
    pub const DAEMON: Self = Self::of(&[Role::Daemon]);
    /// The coordinator alone.
    pub const COORDINATOR: Self = Self::of(&[Role::Coordinator]);

    /// The set of the given roles.
    #[must_use]
    pub const fn of(roles: &[Role]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < roles.len() {
            bits |= 1 << roles[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    /// Tells whether `role` is in the set.
    #[must_use]
    pub const fn contains(self, role: Role) -> bool {
        self.0 & (1 << role as u8) != 0
    }

    /// The members, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.contains(*role))
    }
}

impl fmt::Display for RoleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, role) in self.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{role}")?;
        }
        Ok(())
    }
}

/// The set of machines and people that trust one root: lower-case letters, digits, `.`, `-`, `_`, at most 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The trust domain as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if text.is_empty() || text.len() > MAX_TRUST_DOMAIN_BYTES || !text.bytes().all(good) {
            return Err(IdentityError::BadTrustDomain {
                domain: text.escape_debug().to_string(),
            });
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = IdentityError;

    fn try_from(text: String) -> Result<Self, IdentityError> {
        text.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One holder of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Whose root vouches for it.
    pub trust_domain: TrustDomain,
    /// What it is.
    pub role: Role,
    /// What it is called, unique within its role.
    pub name: Name,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}/{}", self.trust_domain, self.role, self.name)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let not_ours = || IdentityError::BadUri {
            uri: uri.escape_debug().to_string(),
        };
        let rest = uri.strip_prefix("spiffe://").ok_or_else(not_ours)?;
        let mut parts = rest.split('/');
        let (Some(domain), Some(role), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(not_ours());
        };
        Ok(Self {
            trust_domain: domain.parse()?,
            role: role.parse()?,
            name: name.parse()?,
        })
    }
}

/// Why a text is not an identity or a part of one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// The URI is not `spiffe://<trust-domain>/<role>/<name>`.
    #[error("`{uri}` is not of the form spiffe://<trust-domain>/<role>/<name>")]
    BadUri {
        /// The text, escaped.
        uri: String,
    },
    /// The trust domain breaks the grammar of [`TrustDomain`].
    #[error("the trust domain `{domain}` is not 1 to {MAX_TRUST_DOMAIN_BYTES} lower-case letters, digits, `.`, `-` or `_`")]
    BadTrustDomain {
        /// The text, escaped.
        domain: String,
    },
    /// No such role.
    #[error("`{role}` is not a role (admin, operator, viewer, daemon, coordinator)")]
    UnknownRole {
        /// The text, escaped.
        role: String,
    },
    /// The name breaks the grammar of [`Name`].
    #[error(transparent)]
    BadName(#[from] NameError),
}

/// Longest trust domain in bytes (SPIFFE-ID section 2.1).
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_survives_its_text_form() {
        for text in ["spiffe://lab.example/admin/ann", "spiffe://lab/daemon/robot-7.left_arm"] {
            let identity: Identity = text.parse().expect("a good identity");
            assert_eq!(identity.to_string(), text);
        }
    }

    #[test]
    fn look_alikes_are_not_identities() {
        for text in [
            "",
            "spiffe://lab",
            "spiffe://lab/admin",
            "spiffe://lab/admin/ann/more",
            "spiffe://Lab/admin/ann",
            "spiffe://lab/root/ann",
            "spiffe://lab/admin/-ann",
            "spiffe://lab/admin/a n",
            "https://lab/admin/ann",
            "spiffe:///admin/ann",
            "spiffe://lab/admin/",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text} must be refused");
        }
    }

    #[test]
    fn role_sets_hold_what_they_were_made_of() {
        assert_eq!(RoleSet::ACT.iter().collect::<Vec<_>>(), [Role::Admin, Role::Operator]);
        assert!(!RoleSet::LOOK.contains(Role::Daemon));
        assert_eq!(RoleSet::LOOK.to_string(), "admin, operator, viewer");
    }

    #[test]
    fn names_are_the_same_ignoring_case() {
        let (a, b): (Name, Name) = ("Robot".parse().expect("good"), "rOBOT".parse().expect("good"));
        assert!(a.same_as(&b) && a != b);
    }
}
