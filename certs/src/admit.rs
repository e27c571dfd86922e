//! Who is let in: one pure function of a chain, a time and a snapshot of the coordinator's records.
//!
//! Asked twice for each connection: by the TLS verifier, where possession of the key is not yet proven and nothing may be
//! counted or written, and after the handshake, where the answer becomes the rights of the peer.

use crate::{
    clock::Utc,
    credentials::{Credentials, anchor},
    error::CertError,
    facts::{CertificateFacts, serial},
    leaf::{self, Parsed},
    path::{self, PathError},
};
use dora_remote_protocol::identity::{Identity, Role, TrustDomain};
use dora_remote_protocol::name::Name;
use rustls::pki_types::{CertificateDer, TrustAnchor};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Arc,
    time::{Duration, SystemTime},
};
use thiserror::Error;
use x509_parser::oid_registry::OID_SIG_ED25519;

/// The answer to a peer that wants in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Everything that its role allows.
    Full(CertificateFacts),
    /// The holder of an invite, and whom it is for: nothing but joining.
    JoinOnly(JoinKey, Identity),
    /// A daemon whose certificate has ended not too long ago: nothing but renewing it.
    RenewOnly(CertificateFacts),
    /// Nothing.
    No(Rejection),
}

/// The Ed25519 public key of an invite, by which its holder is known before it has a certificate of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JoinKey(pub [u8; 32]);

/// Gives the verifier the newest snapshot. Must neither block nor wait: it is called in the middle of handshakes.
pub trait Admission: Send + Sync + Debug {
    /// The records as of now.
    fn snapshot(&self) -> Arc<AdmissionSnapshot>;
}

/// What [`admit`] needs to know, as of one moment. Admits nobody beyond what its trust domain's root vouches for.
#[derive(Clone, Debug)]
pub struct AdmissionSnapshot {
    trust_domain: TrustDomain,
    anchors: Vec<TrustAnchor<'static>>,
    revoked_serials: BTreeSet<String>,
    revoked_holders: BTreeSet<(Role, String)>,
    invites: BTreeMap<JoinKey, Identity>,
    renew_window: Duration,
}

impl AdmissionSnapshot {
    /// A snapshot that trusts `roots` (several while a root is replaced) for `trust_domain` and has nothing revoked, no
    /// open invite, and no mercy for lapsed certificates.
    ///
    /// # Errors
    /// [`CertError::BadCertificate`] when a root cannot be read.
    pub fn new(trust_domain: TrustDomain, roots: &[CertificateDer<'_>]) -> Result<Self, CertError> {
        Ok(Self {
            trust_domain,
            anchors: roots.iter().map(anchor).collect::<Result<_, _>>()?,
            revoked_serials: BTreeSet::new(),
            revoked_holders: BTreeSet::new(),
            invites: BTreeMap::new(),
            renew_window: Duration::ZERO,
        })
    }

    /// A snapshot that trusts what a coordinator with these credentials trusts.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of(credentials: &Credentials) -> Result<Self, CertError> {
        let trust_domain = credentials.identity().trust_domain.clone();
        Self::new(trust_domain, std::slice::from_ref(credentials.root()))
    }

    /// Shuts out the certificate with this serial: hex in any case, with or without colons. That of an issuing certificate
    /// shuts out all that it has signed.
    pub fn revoke_serial(&mut self, serial: &str) {
        self.revoked_serials.insert(canonical_serial(serial));
    }

    /// Shuts out every certificate of the holder of that role and name, ignoring ASCII case.
    pub fn revoke_holder(&mut self, role: Role, name: &Name) {
        self.revoked_holders.insert((role, name.as_str().to_ascii_lowercase()));
    }

    /// Lets the holder of an invite's key ask to join as `identity`, which the invite is for.
    pub fn invite(&mut self, key: JoinKey, identity: Identity) {
        self.invites.insert(key, identity);
    }

    /// Lets daemons renew for that long after the end of their certificates; zero lets none.
    pub fn set_renew_window(&mut self, window: Duration) {
        self.renew_window = window;
    }

    /// The trust domain whose members are let in.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    fn revokes(&self, facts: &CertificateFacts, above: &[String]) -> bool {
        let Identity { role, name, .. } = &facts.identity;
        self.revoked_serials.contains(&facts.serial)
            || above.iter().any(|serial| self.revoked_serials.contains(serial))
            || self.revoked_holders.contains(&(*role, name.as_str().to_ascii_lowercase()))
    }
}

/// Why a peer is not let in. For the log of this side: an unproven peer is told no more than a TLS alert.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rejection {
    /// No root of ours has signed its certificate.
    #[error("its certificate is from an unknown authority")]
    UnknownAuthority,
    /// Its certificate, or the one that signed it, has ended.
    #[error("its certificate ended at {}, and it is {} here", Utc(*not_after), Utc(*now))]
    Expired {
        /// The last second.
        not_after: SystemTime,
        /// The time by which it was judged.
        now: SystemTime,
    },
    /// Its certificate, or the one that signed it, has not begun.
    #[error("its certificate begins at {}, and it is {} here", Utc(*not_before), Utc(*now))]
    NotYetValid {
        /// The first second.
        not_before: SystemTime,
        /// The time by which it was judged.
        now: SystemTime,
    },
    /// Its certificate or its holder is revoked.
    #[error("{identity} (serial {serial}) is revoked")]
    Revoked {
        /// The holder.
        identity: Identity,
        /// The serial of its certificate.
        serial: String,
    },
    /// It belongs to another trust domain under the same root.
    #[error("{identity} is of another trust domain")]
    WrongTrustDomain {
        /// The holder.
        identity: Identity,
    },
    /// A coordinator serves and never asks.
    #[error("{identity} is a coordinator and may not act as a client")]
    CoordinatorAsClient {
        /// The holder.
        identity: Identity,
    },
    /// Its certificate breaks the encoding or the profile.
    #[error("its certificate is not usable: {reason}")]
    Malformed {
        /// Which rule.
        reason: String,
    },
}

/// Decides what the holder of `chain` (leaf first) may do at `now`. Pure; the caller proves possession of the key.
#[must_use]
pub fn admit(chain: &[CertificateDer<'_>], now: SystemTime, snapshot: &AdmissionSnapshot) -> Admit {
    if let [only] = chain
        && let Some((key, identity)) = invited(only, snapshot)
    {
        return Admit::JoinOnly(key, identity.clone());
    }
    match judge(chain, now, snapshot) {
        Ok(facts) => Admit::Full(facts),
        Err(Rejection::Expired { not_after, now }) => match lapsed(chain, now, snapshot) {
            Some(facts) => Admit::RenewOnly(facts),
            None => Admit::No(Rejection::Expired { not_after, now }),
        },
        Err(rejection) => Admit::No(rejection),
    }
}

fn judge(chain: &[CertificateDer<'_>], now: SystemTime, snapshot: &AdmissionSnapshot) -> Result<CertificateFacts, Rejection> {
    let malformed = |reason: &str| Rejection::Malformed {
        reason: reason.to_owned(),
    };
    let leaf = chain.first().ok_or_else(|| malformed("there is none"))?;
    // The path comes first: of a certificate that no root of ours stands behind, nothing else is worth telling.
    let above = path::validate(chain, &snapshot.anchors, now)?;
    let facts = leaf::read(leaf).map_err(|broken| malformed(&broken.0))?;
    let identity = facts.identity.clone();
    if identity.trust_domain != snapshot.trust_domain {
        return Err(Rejection::WrongTrustDomain { identity });
    }
    if identity.role == Role::Coordinator {
        return Err(Rejection::CoordinatorAsClient { identity });
    }
    if snapshot.revokes(&facts, &above) {
        let serial = facts.serial;
        return Err(Rejection::Revoked { identity, serial });
    }
    Ok(facts)
}

/// The daemon whose certificate would be good had it not ended within the renew window.
fn lapsed(chain: &[CertificateDer<'_>], now: SystemTime, snapshot: &AdmissionSnapshot) -> Option<CertificateFacts> {
    let end = leaf::read(chain.first()?).ok()?.not_after;
    let since = now.duration_since(end).ok()?;
    if since > snapshot.renew_window {
        return None;
    }
    let facts = judge(chain, end, snapshot).ok()?;
    (facts.identity.role == Role::Daemon).then_some(facts)
}

/// The key of a self-made certificate and whom it is for, when there is an invite with it. Nothing else in that certificate
/// counts.
fn invited<'a>(certificate: &CertificateDer<'_>, snapshot: &'a AdmissionSnapshot) -> Option<(JoinKey, &'a Identity)> {
    if snapshot.invites.is_empty() {
        return None;
    }
    let parsed = Parsed::of(certificate).ok()?;
    let public = parsed.x509.public_key();
    if public.algorithm.algorithm != OID_SIG_ED25519 {
        return None;
    }
    let key = JoinKey(public.subject_public_key.data.as_ref().try_into().ok()?);
    let identity = snapshot.invites.get(&key)?;
    Some((key, identity))
}

fn canonical_serial(text: &str) -> String {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let padded = if digits.len() % 2 == 1 { "0" } else { "" };
    let hex = format!("{padded}{}", String::from_utf8_lossy(&digits).to_ascii_lowercase());
    let bytes: Vec<u8> = (0..hex.len() / 2)
        .filter_map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).ok())
        .collect();
    serial(&bytes)
}

impl From<PathError> for Rejection {
    fn from(error: PathError) -> Self {
        match error {
            PathError::UnknownAuthority => Self::UnknownAuthority,
            PathError::Expired { now, not_after } => Self::Expired { not_after, now },
            PathError::NotYetValid { now, not_before } => Self::NotYetValid { not_before, now },
            PathError::Malformed(reason) => Self::Malformed { reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_compare_however_people_type_them() {
        for text in ["0aBc01", "ABC01", "0a:bc:01", "00 0a bc 01"] {
            assert_eq!(canonical_serial(text), "0abc01", "{text}");
        }
    }
}
