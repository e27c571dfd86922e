//! What a certificate says, as plain data: who, since when, until when, which serial.
//!
//! Reads; judges only the encoding and, for leaves, the profile. Whether anyone vouches for a certificate is the
//! business of `path`, and whether its holder is let in that of `admit`.

use crate::{
    clock::from_unix_seconds,
    error::CertError,
    files,
    leaf::{self, Parsed},
};
use aws_lc_rs::digest::{SHA256, digest};
use dora_remote_protocol::identity::{Identity, TrustDomain};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{
    fmt::Write,
    path::Path,
    time::{Duration, SystemTime},
};
use x509_parser::certificate::X509Certificate;

/// What the certificate of one holder says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Whose it is.
    pub identity: Identity,
    /// Serial number in lower-case hex, without leading zero bytes.
    pub serial: String,
    /// First second of its life.
    pub not_before: SystemTime,
    /// Last second of its life.
    pub not_after: SystemTime,
    /// SHA-256 of its DER form in lower-case hex.
    pub fingerprint: String,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateKind {
    /// Signs itself and is trusted by being pinned.
    Root,
    /// Signed by a root, signs the certificates of holders.
    Issuing,
    /// Belongs to one holder.
    Leaf,
}

impl CertificateKind {
    /// The kind as one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Issuing => "issuing",
            Self::Leaf => "leaf",
        }
    }
}

/// What any certificate says, those of authorities included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// What it is for.
    pub kind: CertificateKind,
    /// Its subject, escaped; empty for a leaf, whose name is its identity.
    pub subject: String,
    /// Whose it is, when it is a leaf that keeps the profile.
    pub identity: Option<Identity>,
    /// The trust domain that it belongs to or vouches for.
    pub trust_domain: Option<TrustDomain>,
    /// Serial number in lower-case hex, without leading zero bytes.
    pub serial: String,
    /// First second of its life.
    pub not_before: SystemTime,
    /// Last second of its life.
    pub not_after: SystemTime,
    /// SHA-256 of its DER form in lower-case hex.
    pub fingerprint: String,
}

/// How much of a certificate's life is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifeLeft {
    /// It begins only after this time; the clock may be behind.
    NotBegun(Duration),
    /// More than a third of its life is left.
    Ample(Duration),
    /// A third of its life or less is left: worth a warning.
    LastThird(Duration),
    /// It ended this long ago.
    Ended(Duration),
}

impl LifeLeft {
    /// Judges the life from `not_before` to `not_after` at `now`.
    #[must_use]
    pub fn of(not_before: SystemTime, not_after: SystemTime, now: SystemTime) -> Self {
        if let Ok(since) = now.duration_since(not_after)
            && !since.is_zero()
        {
            return Self::Ended(since);
        }
        if let Ok(until) = not_before.duration_since(now)
            && !until.is_zero()
        {
            return Self::NotBegun(until);
        }
        let left = not_after.duration_since(now).unwrap_or_default();
        let life = not_after.duration_since(not_before).unwrap_or_default();
        if left <= life / 3 {
            Self::LastThird(left)
        } else {
            Self::Ample(left)
        }
    }

    /// Tells whether people should be warned.
    #[must_use]
    pub const fn is_worrying(self) -> bool {
        !matches!(self, Self::Ample(_))
    }
}

/// Tells how much of the life of `facts` is left at `now`.
#[must_use]
pub fn lives_left(facts: &CertificateFacts, now: SystemTime) -> LifeLeft {
    LifeLeft::of(facts.not_before, facts.not_after, now)
}

/// Reads what the certificate of a holder says. Proves nothing: whoever made it may write what he likes.
///
/// # Errors
/// [`CertError::BadCertificate`] when the encoding or the profile of a leaf is broken.
pub fn facts_of(leaf: &CertificateDer<'_>) -> Result<CertificateFacts, CertError> {
    leaf::read(leaf).map_err(|broken| CertError::bad_certificate(broken.0))
}

/// Reads what every certificate of a PEM file says; other PEM sections, keys among them, are passed over.
///
/// # Errors
/// When the file cannot be read, holds no certificate or a damaged one.
pub fn read_facts(path: &Path) -> Result<Vec<CertificateInfo>, CertError> {
    read_certificates(path, "name a PEM file")?
        .iter()
        .map(|certificate| {
            info_of(certificate).map_err(|error| CertError::Damaged {
                path: path.to_owned(),
                reason: error.to_string(),
                next: "name a file with whole X.509 certificates",
            })
        })
        .collect()
}

/// Reads what any one certificate says.
///
/// # Errors
/// [`CertError::BadCertificate`] when the encoding is broken.
pub fn info_of(certificate: &CertificateDer<'_>) -> Result<CertificateInfo, CertError> {
    let bad = |broken: leaf::Broken| CertError::bad_certificate(broken.0);
    let parsed = Parsed::of(certificate).map_err(bad)?;
    let x509 = &parsed.x509;
    let kind = match (x509.is_ca(), x509.subject() == x509.issuer()) {
        (true, true) => CertificateKind::Root,
        (true, false) => CertificateKind::Issuing,
        (false, _) => CertificateKind::Leaf,
    };
    let identity = leaf::read(certificate).ok().map(|facts| facts.identity);
    let trust_domain = match &identity {
        Some(identity) => Some(identity.trust_domain.clone()),
        None => parsed.trust_domain(),
    };
    let (not_before, not_after) = validity(x509).map_err(bad)?;
    Ok(CertificateInfo {
        kind,
        subject: x509.subject().to_string().escape_debug().to_string(),
        identity,
        trust_domain,
        serial: serial(x509.raw_serial()),
        not_before,
        not_after,
        fingerprint: fingerprint(certificate),
    })
}

/// Reads the certificates of a PEM file, at least one.
pub(crate) fn read_certificates(path: &Path, next: &'static str) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let text = files::read(path, next)?;
    let damaged = |reason: String| CertError::Damaged {
        path: path.to_owned(),
        reason,
        next,
    };
    let certificates = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| damaged(error.to_string()))?;
    if certificates.is_empty() {
        return Err(damaged("it holds no certificate".to_owned()));
    }
    Ok(certificates)
}

/// First and last second of a certificate's life.
pub(crate) fn validity(x509: &X509Certificate<'_>) -> Result<(SystemTime, SystemTime), leaf::Broken> {
    let at = |time: x509_parser::time::ASN1Time| {
        from_unix_seconds(time.timestamp()).ok_or_else(|| leaf::Broken::new("its validity is before 1970"))
    };
    Ok((at(x509.validity().not_before)?, at(x509.validity().not_after)?))
}

/// A serial number in the one form in which serials are compared: lower-case hex without leading zero bytes.
pub(crate) fn serial(raw: &[u8]) -> String {
    let zeros = raw.iter().take_while(|byte| **byte == 0).count();
    hex(&raw[zeros..])
}

/// SHA-256 of a DER form in lower-case hex.
#[must_use]
pub fn fingerprint(der: &[u8]) -> String {
    hex(&sha256(der))
}

/// SHA-256 of a DER form, as an invite carries that of its root.
#[must_use]
pub fn sha256(der: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, der).as_ref());
    hash
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_third_of_a_life_is_worrying() {
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let end = begin + Duration::from_secs(300);
        let at = |seconds| LifeLeft::of(begin, end, begin + Duration::from_secs(seconds));
        assert_eq!(at(0), LifeLeft::Ample(Duration::from_secs(300)));
        assert_eq!(at(199), LifeLeft::Ample(Duration::from_secs(101)));
        assert_eq!(at(200), LifeLeft::LastThird(Duration::from_secs(100)));
        assert_eq!(at(300), LifeLeft::LastThird(Duration::ZERO));
        assert_eq!(at(301), LifeLeft::Ended(Duration::from_secs(1)));
        let early = LifeLeft::of(begin, end, begin - Duration::from_secs(5));
        assert_eq!(early, LifeLeft::NotBegun(Duration::from_secs(5)));
        assert!(early.is_worrying() && !at(0).is_worrying());
    }

    #[test]
    fn serials_and_fingerprints_are_lower_case_hex() {
        assert_eq!(serial(&[0, 0, 0xAB, 0x01]), "ab01");
        assert_eq!(
            fingerprint(b""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
