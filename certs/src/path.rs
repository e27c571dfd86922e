//! X.509 path validation: does a chain lead from a leaf to a pinned root, at a given time?
//!
//! A thin face of rustls-webpki without names, revocation lists and purposes: the purpose is checked more strictly in
//! `leaf`, and revocation is a set in the admission snapshot.

use crate::{
    clock::{from_unix_seconds, unix_seconds},
    facts::{serial, validity},
    leaf::Parsed,
};
use rustls::{
    SignatureScheme,
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime},
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use webpki::{EndEntityCert, Error, ExtendedKeyUsageValidator, KeyPurposeIdIter, aws_lc_rs};

/// Most certificates of one chain: a coordinator sends three, and a rotation of the root may add two.
pub(crate) const MAX_CHAIN: usize = 6;

/// Signature algorithms of certificates: the authority signs with P-256 alone.
const PATH_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[aws_lc_rs::ECDSA_P256_SHA256];

/// Signature algorithms of handshakes. Ed25519 is for the keys of invites alone, which no authority has signed.
pub(crate) static HANDSHAKE_ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[aws_lc_rs::ECDSA_P256_SHA256, aws_lc_rs::ED25519],
    mapping: &[
        (SignatureScheme::ECDSA_NISTP256_SHA256, &[aws_lc_rs::ECDSA_P256_SHA256]),
        (SignatureScheme::ED25519, &[aws_lc_rs::ED25519]),
    ],
};

/// Why a chain does not prove its leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PathError {
    /// No pinned root has signed it.
    UnknownAuthority,
    /// A pinned root has signed it, and a certificate of the chain has ended.
    Expired { now: SystemTime, not_after: SystemTime },
    /// A pinned root has signed it, and a certificate of the chain has not begun.
    NotYetValid { now: SystemTime, not_before: SystemTime },
    /// The encoding or a constraint is broken.
    Malformed(String),
}

/// Proves the first certificate of `chain` at `now` and gives the serials of the certificates between it and the root.
pub(crate) fn validate(
    chain: &[CertificateDer<'_>],
    anchors: &[TrustAnchor<'_>],
    now: SystemTime,
) -> Result<Vec<String>, PathError> {
    let error = match validate_once(chain, anchors, now) {
        Ok(serials) => return Ok(serials),
        Err(error) => error,
    };
    let lapsed = matches!(error, Error::CertExpired { .. } | Error::CertNotValidYet { .. });
    // Validity is checked before signatures. A certificate that nobody here ever vouched for is foreign, whatever its
    // dates say, so the path is tried again at a time within the life of the leaf.
    if lapsed
        && let Some(within) = last_second(chain)
        && let Err(deeper) = validate_once(chain, anchors, within)
        && !matches!(deeper, Error::CertExpired { .. } | Error::CertNotValidYet { .. })
    {
        return Err(judge(&deeper, now));
    }
    Err(judge(&error, now))
}

fn validate_once(chain: &[CertificateDer<'_>], anchors: &[TrustAnchor<'_>], at: SystemTime) -> Result<Vec<String>, Error> {
    let (leaf, between) = chain.split_first().ok_or(Error::BadDer)?;
    if chain.len() > MAX_CHAIN {
        return Err(Error::MaximumPathDepthExceeded);
    }
    let leaf = EndEntityCert::try_from(leaf)?;
    let at = UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO));
    let path = leaf.verify_for_usage(PATH_ALGORITHMS, anchors, between, at, AnyPurpose, None, None)?;
    Ok(path
        .intermediate_certificates()
        .map(|certificate| serial(certificate.serial()))
        .collect())
}

/// Leaves every purpose to the profile check in `leaf`.
struct AnyPurpose;

impl ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        for purpose in purposes {
            purpose?;
        }
        Ok(())
    }
}

fn last_second(chain: &[CertificateDer<'_>]) -> Option<SystemTime> {
    let parsed = Parsed::of(chain.first()?).ok()?;
    Some(validity(&parsed.x509).ok()?.1)
}

fn judge(error: &Error, now: SystemTime) -> PathError {
    let now = from_unix_seconds(unix_seconds(now)).unwrap_or(UNIX_EPOCH);
    let at = |time: &UnixTime| {
        UNIX_EPOCH
            .checked_add(Duration::from_secs(time.as_secs()))
            .unwrap_or(UNIX_EPOCH)
    };
    match error {
        // A root of the same name with another key fails at the signature instead of the search for an issuer, and an
        // authority with keys of another kind at the algorithm.
        Error::UnknownIssuer
        | Error::InvalidSignatureForPublicKey
        | Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => PathError::UnknownAuthority,
        Error::CertExpired { not_after, .. } => PathError::Expired {
            now,
            not_after: at(not_after),
        },
        Error::CertNotValidYet { not_before, .. } => PathError::NotYetValid {
            now,
            not_before: at(not_before),
        },
        other => PathError::Malformed(other.to_string()),
    }
}
