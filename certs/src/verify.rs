//! The two TLS verifiers: a client's, which trusts coordinators of its trust domain alone, and a coordinator's, which asks
//! [`admit()`].
//!
//! What they refuse is told to this side in full and to the other side as an alert: see [`verify_error_of`] for the one and
//! [`Rejection`] for what becomes which alert.

use crate::{
    admit::{Admission, Admit, Rejection, admit},
    clock::{Clock, Utc},
    credentials::anchor,
    error::CertError,
    facts::{CertificateKind, info_of, sha256},
    leaf,
    path::{self, HANDSHAKE_ALGORITHMS, PathError},
};
use dora_remote_protocol::identity::{Identity, Role, TrustDomain};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::verify_tls13_signature,
    pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use thiserror::Error as ThisError;

/// Why we do not trust a server.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum VerifyError {
    /// The pinned root has not signed its certificate.
    #[error("the server's certificate is from an unknown authority")]
    UnknownAuthority,
    /// Its certificate has ended, or our clock is ahead.
    #[error("the server's certificate ended at {}, and it is {} here", Utc(*not_after), Utc(*now))]
    Expired {
        /// The last second.
        not_after: SystemTime,
        /// The time by which it was judged.
        now: SystemTime,
    },
    /// Its certificate has not begun, or our clock is behind.
    #[error("the server's certificate begins at {}, and it is {} here", Utc(*not_before), Utc(*now))]
    NotYetValid {
        /// The first second.
        not_before: SystemTime,
        /// The time by which it was judged.
        now: SystemTime,
    },
    /// The pinned root vouches for it, but not as a coordinator of our trust domain.
    #[error("the server is {found}, not a coordinator of {trust_domain}")]
    NotACoordinator {
        /// Who it is.
        found: Identity,
        /// Our trust domain.
        trust_domain: TrustDomain,
    },
    /// Its certificate breaks the encoding or the profile.
    #[error("the server's certificate is not usable: {reason}")]
    Malformed {
        /// Which rule.
        reason: String,
    },
}

/// Finds out why a handshake failed, when it failed because this side refused the server's certificate.
#[must_use]
pub fn verify_error_of(error: &Error) -> Option<VerifyError> {
    let Error::InvalidCertificate(error) = error else {
        return None;
    };
    let at = |time: &UnixTime| {
        UNIX_EPOCH
            .checked_add(Duration::from_secs(time.as_secs()))
            .unwrap_or(UNIX_EPOCH)
    };
    match error {
        CertificateError::UnknownIssuer => Some(VerifyError::UnknownAuthority),
        CertificateError::ExpiredContext { time, not_after } => Some(VerifyError::Expired {
            not_after: at(not_after),
            now: at(time),
        }),
        CertificateError::NotValidYetContext { time, not_before } => Some(VerifyError::NotYetValid {
            not_before: at(not_before),
            now: at(time),
        }),
        CertificateError::Other(OtherError(inner)) => inner.downcast_ref().cloned(),
        _ => None,
    }
}

/// Remembers what a client configuration last refused, for transports that keep only the text of a TLS error, and the root
/// that a joiner has come to know.
#[derive(Debug, Default)]
pub struct VerifyReport {
    refusal: Mutex<Option<VerifyError>>,
    root: Mutex<Option<CertificateDer<'static>>>,
}

impl VerifyReport {
    /// Takes the last refusal out, if there was one since the last call.
    #[must_use]
    pub fn take(&self) -> Option<VerifyError> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes out the root that was recognised by its hash and leads to a coordinator, if a joiner has met one since the last
    /// call. It is the right root in any case; that the coordinator is there in person is known only after the handshake.
    #[must_use]
    pub fn take_root(&self) -> Option<CertificateDer<'static>> {
        self.root.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, error: VerifyError) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn put_root(&self, root: CertificateDer<'static>) {
        *self.root.lock().unwrap_or_else(PoisonError::into_inner) = Some(root);
    }
}

/// What a client trusts.
#[derive(Debug)]
pub(crate) enum Trust {
    /// A root that it has.
    Root(TrustAnchor<'static>),
    /// A root that it knows by the SHA-256 of its DER form, and that the server must present.
    RootHash([u8; 32]),
}

/// Trusts a server when the pinned root vouches for it as a coordinator of the trust domain. Its address plays no part.
#[derive(Debug)]
pub(crate) struct CoordinatorVerifier {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) trust: Trust,
    /// The clock whose time the TLS stack hands in; asked only whether it may lag.
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) report: Arc<VerifyReport>,
}

impl CoordinatorVerifier {
    fn judge(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), VerifyError> {
        match &self.trust {
            Trust::Root(anchor) => self.judge_under(anchor, chain, now),
            Trust::RootHash(hash) => {
                let root = self.root_among(chain, hash)?;
                let anchor = anchor(&root).map_err(unreadable)?;
                self.judge_under(&anchor, chain, now)?;
                self.report.put_root(root);
                Ok(())
            }
        }
    }

    /// The root with that hash. Everything in it is as true as the hash.
    fn root_among(&self, chain: &[CertificateDer<'_>], hash: &[u8; 32]) -> Result<CertificateDer<'static>, VerifyError> {
        let presented = chain
            .iter()
            .take(path::MAX_CHAIN)
            .find(|certificate| sha256(certificate) == *hash);
        let root = presented.ok_or(VerifyError::UnknownAuthority)?;
        let info = info_of(root).map_err(unreadable)?;
        let reason = if info.kind != CertificateKind::Root {
            "the certificate with the hash of the invite is not a root"
        } else if info.trust_domain.as_ref() != Some(&self.trust_domain) {
            "its root is of another trust domain than the invite"
        } else {
            return Ok(root.clone().into_owned());
        };
        Err(VerifyError::Malformed {
            reason: reason.to_owned(),
        })
    }

    fn judge_under(&self, anchor: &TrustAnchor<'_>, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), VerifyError> {
        self.validate(anchor, chain, now)?;
        // A path that holds has a leaf.
        let malformed = |reason: String| VerifyError::Malformed { reason };
        let leaf = chain.first().ok_or_else(|| malformed("there is none".to_owned()))?;
        let found = leaf::read(leaf).map_err(|broken| malformed(broken.0))?.identity;
        if found.role != Role::Coordinator || found.trust_domain != self.trust_domain {
            return Err(VerifyError::NotACoordinator {
                found,
                trust_domain: self.trust_domain.clone(),
            });
        }
        Ok(())
    }

    /// Proves the chain at `now`, or, where the clock may lag, at the first second at which all of it has begun: a
    /// certificate from the future can only come from the authority itself, so that the clock is what is wrong.
    fn validate(&self, anchor: &TrustAnchor<'_>, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), PathError> {
        let mut at = now;
        // One step for each certificate that has not begun.
        for _ in 0..path::MAX_CHAIN {
            match path::validate(chain, std::slice::from_ref(anchor), at) {
                Err(PathError::NotYetValid { not_before, .. }) if not_before > at && self.clock.may_lag() => at = not_before,
                Err(PathError::NotYetValid { not_before, .. }) => return Err(PathError::NotYetValid { now, not_before }),
                result => return result.map(drop),
            }
        }
        Err(PathError::NotYetValid { now, not_before: at })
    }
}

impl ServerCertVerifier for CoordinatorVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.judge(&whole(end_entity, intermediates), system_time(now)) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(error) => {
                self.report.put(error.clone());
                Err(server_alert(error))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &HANDSHAKE_ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        HANDSHAKE_ALGORITHMS.supported_schemes()
    }
}

/// Lets a client in when [`admit()`] says so, in full or in part. Demands a certificate of everybody.
#[derive(Debug)]
pub(crate) struct AdmissionVerifier {
    pub(crate) admission: Arc<dyn Admission>,
}

impl ClientCertVerifier for AdmissionVerifier {
    /// None: a stranger need not know whom we trust, and a client of ours has only one certificate to offer.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let snapshot = self.admission.snapshot();
        match admit(&whole(end_entity, intermediates), system_time(now), &snapshot) {
            Admit::Full(_) | Admit::JoinOnly(..) | Admit::RenewOnly(_) => Ok(ClientCertVerified::assertion()),
            Admit::No(rejection) => {
                tracing::debug!(%rejection, "client certificate refused");
                Err(client_alert(&rejection))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &HANDSHAKE_ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        HANDSHAKE_ALGORITHMS.supported_schemes()
    }
}

/// The alerts are `unknown_ca`, `certificate_expired` and, for all that has no number of its own, `certificate_unknown`.
fn server_alert(error: VerifyError) -> Error {
    let at = |time: SystemTime| UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap_or_default());
    Error::InvalidCertificate(match error {
        VerifyError::UnknownAuthority => CertificateError::UnknownIssuer,
        VerifyError::Expired { not_after, now } => CertificateError::ExpiredContext {
            time: at(now),
            not_after: at(not_after),
        },
        VerifyError::NotYetValid { not_before, now } => CertificateError::NotValidYetContext {
            time: at(now),
            not_before: at(not_before),
        },
        error @ (VerifyError::NotACoordinator { .. } | VerifyError::Malformed { .. }) => {
            CertificateError::Other(OtherError(Arc::new(error)))
        }
    })
}

/// The alerts are `unknown_ca`, `certificate_expired`, `certificate_revoked`, `access_denied` and `bad_certificate`. The
/// variants carry no details, because transports send the text of an error along.
fn client_alert(rejection: &Rejection) -> Error {
    Error::InvalidCertificate(match rejection {
        Rejection::UnknownAuthority => CertificateError::UnknownIssuer,
        Rejection::Expired { .. } => CertificateError::Expired,
        Rejection::NotYetValid { .. } => CertificateError::NotValidYet,
        Rejection::Revoked { .. } => CertificateError::Revoked,
        Rejection::WrongTrustDomain { .. } | Rejection::CoordinatorAsClient { .. } => {
            CertificateError::ApplicationVerificationFailure
        }
        Rejection::Malformed { .. } => CertificateError::BadEncoding,
    })
}

fn unreadable(error: CertError) -> VerifyError {
    VerifyError::Malformed {
        reason: error.to_string(),
    }
}

fn whole<'a>(leaf: &CertificateDer<'a>, above: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    std::iter::once(leaf).chain(above).cloned().collect()
}

fn system_time(at: UnixTime) -> SystemTime {
    UNIX_EPOCH
        .checked_add(Duration::from_secs(at.as_secs()))
        .unwrap_or(UNIX_EPOCH)
}

fn too_old() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic)
}

impl From<PathError> for VerifyError {
    fn from(error: PathError) -> Self {
        match error {
            PathError::UnknownAuthority => Self::UnknownAuthority,
            PathError::Expired { now, not_after } => Self::Expired { not_after, now },
            PathError::NotYetValid { now, not_before } => Self::NotYetValid { not_before, now },
            PathError::Malformed(reason) => Self::Malformed { reason },
        }
    }
}
