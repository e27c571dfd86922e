//! What each kind of certificate looks like: lives, names, usages and serials.
//!
//! Subjects are neutral: a random number for authorities and nothing for holders, so that a certificate tells a stranger
//! no more than it must.

use crate::{clock::unix_seconds, error::CertError};
use dora_remote_protocol::identity::{Identity, Role, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
    SerialNumber,
};
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;

/// Life of a root.
pub const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * DAY_SECONDS);
/// Life of an issuing certificate.
pub const ISSUING_LIFE: Duration = Duration::from_secs(365 * DAY_SECONDS);
/// How far the begin of a life lies before its making, so that a peer whose clock is behind accepts it at once.
pub const BACKDATE: Duration = Duration::from_secs(3600);

const DAY_SECONDS: u64 = 24 * 3600;
const DAY: Duration = Duration::from_secs(DAY_SECONDS);
/// Bytes of a serial number: 128 random bits.
const SERIAL_BYTES: usize = 16;

/// How long a certificate of that role lives unless somebody says otherwise.
#[must_use]
pub fn default_life(role: Role) -> Duration {
    match role {
        Role::Daemon => DAY * 7,
        Role::Coordinator | Role::Admin | Role::Operator | Role::Viewer => DAY * 30,
    }
}

/// The first and last second of a certificate's life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Life {
    /// A backdated life that begins at `now` and lasts for `life`.
    pub(crate) fn starting(now: SystemTime, life: Duration) -> Result<Self, CertError> {
        let bad = || CertError::BadTime { at: now };
        Ok(Self {
            not_before: now.checked_sub(BACKDATE).ok_or_else(bad)?,
            not_after: now.checked_add(life).ok_or_else(bad)?,
        })
    }
}

/// The root: signs one level of authorities below it and itself.
pub(crate) fn root(trust_domain: &TrustDomain, life: Life) -> Result<CertificateParams, CertError> {
    authority("root", trust_domain, BasicConstraints::Unconstrained, life)
}

/// The issuing certificate: signs holders and no further authority.
pub(crate) fn issuing(trust_domain: &TrustDomain, life: Life) -> Result<CertificateParams, CertError> {
    authority("issuing", trust_domain, BasicConstraints::Constrained(0), life)
}

/// The certificate of one holder.
pub(crate) fn leaf(identity: &Identity, life: Life) -> Result<CertificateParams, CertError> {
    let mut params = common(&identity.to_string(), life)?;
    // The extension becomes critical by itself where the subject is empty (RFC 5280 section 4.2.1.6).
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match identity.role {
        Role::Coordinator => ExtendedKeyUsagePurpose::ServerAuth,
        Role::Admin | Role::Operator | Role::Viewer | Role::Daemon => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    Ok(params)
}

fn authority(
    what: &str,
    trust_domain: &TrustDomain,
    constraints: BasicConstraints,
    life: Life,
) -> Result<CertificateParams, CertError> {
    let mut params = common(&format!("spiffe://{trust_domain}"), life)?;
    // Path building looks issuers up by name, so each authority has a name of its own.
    let number = u64::from_be_bytes(random()?);
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{what} {number:016x}"));
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn common(uri: &str, life: Life) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    params.serial_number = Some(SerialNumber::from(random::<SERIAL_BYTES>()?.to_vec()));
    params.not_before = calendar(life.not_before)?;
    params.not_after = calendar(life.not_after)?;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn calendar(at: SystemTime) -> Result<OffsetDateTime, CertError> {
    let bad = || CertError::BadTime { at };
    let seconds = unix_seconds(at);
    if seconds < 0 {
        return Err(bad());
    }
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| bad())
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], CertError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CertError::NoRandom)?;
    Ok(bytes)
}
