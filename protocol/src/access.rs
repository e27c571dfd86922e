//! Who may come in: invites, joining, renewal, revocation, and the records about identities. Verbs 19 to 25 and 28.
//!
//! Nothing here is decided by what the asker claims: role, name, labels and life come from the coordinator's records.

use crate::{
    dataflow::Labels,
    identity::{Identity, Role, RoleSet},
    name::Name,
    request::request,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Makes a one-time invite for one role and name.
///
/// Only the public half of the invite's key is sent: the seed stays with the one who invites, in the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateInvite {
    /// What the joiner becomes; never a coordinator.
    pub role: Role,
    /// What it is called. Refused when the name is revoked, which is for ever, and when it is taken, unless `replace` is set.
    pub name: Name,
    /// Labels of the machine, for a daemon; they authorise, and win over what the daemon says of itself.
    pub labels: Labels,
    /// Machines that an operator is limited to: all of these labels must stand in the machine's record. Empty for no limit.
    pub machines: Labels,
    /// Ed25519 public key of the invite.
    pub join_key: [u8; 32],
    /// Milliseconds until the invite ends; at least [`MIN_INVITE_LIFE_MS`], at most [`MAX_INVITE_LIFE_MS`].
    pub life_ms: u64,
    /// Milliseconds that each certificate of the joiner lives; the default of the role when absent.
    pub certificate_life_ms: Option<u64>,
    /// Lets a holder of that name be replaced: its bound key is given up when the invite is used.
    pub replace: bool,
}
request!(CreateInvite, 19, "invite", RoleSet::ADMIN, Call, Command => InviteCreated);

/// What the inviter needs for the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteCreated {
    /// Who the joiner becomes.
    pub identity: Identity,
    /// When the invite ends, in milliseconds since the Unix epoch, by the coordinator's clock.
    pub expires_unix_ms: u64,
    /// SHA-256 of the root certificate's DER form.
    pub root_hash: [u8; 32],
    /// Addresses that the coordinator is configured to be reached at; empty when it is told of none.
    pub addresses: Vec<String>,
}

/// Lists the invites, oldest first: the open ones, and those of the last [`INVITE_MEMORY_MS`] that are not open any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListInvites {}
request!(ListInvites, 20, "invite-list", RoleSet::ADMIN, Call, Command => Vec<InviteSummary>);

/// One invite as the coordinator remembers it. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteSummary {
    /// Who the joiner becomes.
    pub identity: Identity,
    /// First 16 hex digits of the SHA-256 of the invite's public key, by which it can be named.
    pub id: String,
    /// Labels of the machine.
    pub labels: Labels,
    /// See [`CreateInvite::machines`].
    pub machines: Labels,
    /// Who invites: a SPIFFE id, or `local` with the user's number.
    pub by: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub made_unix_ms: u64,
    /// When it ends, in milliseconds since the Unix epoch.
    pub expires_unix_ms: u64,
    /// What became of it.
    pub state: InviteState,
}

/// What became of an invite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InviteState {
    /// It can be used.
    Open,
    /// It was used, once and for all.
    Used {
        /// When, in milliseconds since the Unix epoch.
        at_unix_ms: u64,
        /// Address that the joiner came from.
        from: String,
        /// Serial of the certificate that was issued.
        serial: String,
    },
    /// It was taken back, or voided by a restore.
    Revoked {
        /// When, in milliseconds since the Unix epoch.
        at_unix_ms: u64,
        /// Who did it.
        by: String,
    },
    /// Its time is over.
    Expired,
}

/// Takes back open invites.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeInvite {
    /// The name of the invited, or the [`InviteSummary::id`].
    pub which: String,
}
request!(RevokeInvite, 21, "invite-revoke", RoleSet::ADMIN, Call, Command => Vec<InviteSummary>);

/// Shuts out an identity, or one certificate, for good. Live connections are closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoke {
    /// Whom or what.
    pub target: RevokeTarget,
    /// Why, for the audit and for people; at most [`MAX_REASON_BYTES`].
    pub reason: String,
}
request!(Revoke, 22, "revoke", RoleSet::ADMIN, Call, Safety => Revoked);

/// Whom or what a revocation shuts out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RevokeTarget {
    /// Everybody of that name; of one role, or of whichever single role has the name.
    Holder {
        /// The role, where several have the name.
        role: Option<Role>,
        /// The name, ignoring case.
        name: Name,
    },
    /// One certificate: its serial in hex; that of an issuing certificate shuts out all it has signed.
    Serial(String),
}

impl fmt::Display for RevokeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holder {
                role: Some(role), name, ..
            } => write!(f, "{role}/{name}"),
            Self::Holder { role: None, name } => write!(f, "{name}"),
            Self::Serial(serial) => write!(f, "serial {serial}"),
        }
    }
}

/// What was shut out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// The revocation as it is kept.
    pub revocation: Revocation,
    /// False when it had been revoked before.
    pub is_new: bool,
    /// Connections that were closed.
    pub closed: u64,
}

/// One revocation. Never expires.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revocation {
    /// Whom or what; a holder always with its role.
    pub target: RevokeTarget,
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// Who did it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Lists every identity that the coordinator has a record of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListIdentities {}
request!(ListIdentities, 23, "identities", RoleSet::ADMIN, Call, Command => Vec<IdentitySummary>);

/// What the coordinator's records say of one identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentitySummary {
    /// Who.
    pub identity: Identity,
    /// Serial of its latest certificate that is known here.
    pub serial: String,
    /// When that certificate ends, in milliseconds since the Unix epoch.
    pub not_after_unix_ms: u64,
    /// When that certificate was issued or first seen, in milliseconds since the Unix epoch.
    pub issued_unix_ms: u64,
    /// When it was last seen, in milliseconds since the Unix epoch; absent when never.
    pub seen_unix_ms: Option<u64>,
    /// Connections that stand.
    pub connections: u64,
    /// Labels of the machine.
    pub labels: Labels,
    /// See [`CreateInvite::machines`].
    pub machines: Labels,
    /// How often it recovered with a certificate that had ended.
    pub recoveries: u32,
    /// Its revocation, if it is revoked.
    pub revoked: Option<Revocation>,
}

/// Asks for a certificate to follow the present one, for a new key or the old one. The answer is for the identity of the
/// asker, whatever the request says. A daemon whose certificate has ended may ask nothing but this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// PKCS#10 request in DER form (RFC 2986).
    pub request: Vec<u8>,
}
request!(Renew, 24, "renew", RoleSet::HOLDERS, Call, Command => CertificateIssued);

/// Uses an invite. Nobody's role allows it: it is for those who have shown the key of an invite, and the only thing they may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// PKCS#10 request in DER form (RFC 2986). Asking again with the same key gets the same answer again.
    pub request: Vec<u8>,
}
request!(Join, 25, "join", RoleSet::NOBODY, Call, Command => CertificateIssued);

/// A certificate, and what it needs to be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateIssued {
    /// Leaf and issuing certificate in DER form.
    pub chain: Vec<Vec<u8>>,
    /// When the leaf ends, in milliseconds since the Unix epoch.
    pub not_after_unix_ms: u64,
}

/// Says that the state of a coordinator that was restored from a backup is right: recoveries of lapsed daemons go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptRestore {}
request!(AcceptRestore, 28, "accept-restore", RoleSet::ADMIN, Call, Command => RestoreAccepted);

/// What accepting a restore changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreAccepted {
    /// Why the coordinator took itself for restored; absent when it did not.
    pub restored: Option<String>,
    /// Invites that the restore had voided.
    pub voided_invites: u64,
}

/// Shortest life of an invite in milliseconds.
pub const MIN_INVITE_LIFE_MS: u64 = 1_000;
/// Longest life of an invite in milliseconds: a week.
pub const MAX_INVITE_LIFE_MS: u64 = 7 * 24 * 3_600_000;
/// How long an invite that is not open any more still gets an answer of its own, in milliseconds: a day.
pub const INVITE_MEMORY_MS: u64 = 24 * 3_600_000;
/// Shortest life of a certificate in milliseconds.
pub const MIN_CERTIFICATE_LIFE_MS: u64 = 5_000;
/// Longest life of a certificate in milliseconds: a year; none outlives the certificate that signs it.
pub const MAX_CERTIFICATE_LIFE_MS: u64 = 365 * 24 * 3_600_000;
/// Longest reason of a revocation in bytes.
pub const MAX_REASON_BYTES: usize = 1 << 10;
/// Most invites that are remembered at once.
pub const MAX_INVITES: usize = 4_096;
/// Most revocations; they never expire.
pub const MAX_REVOCATIONS: usize = 8_192;
/// Most identities with a record.
pub const MAX_IDENTITIES: usize = 40_000;
