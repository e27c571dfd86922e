//! Certificates for keys that never leave their machine: the request that a machine makes, and how little of it counts.
//!
//! A request is PKCS#10 (RFC 2986). The authority takes the public key and the proof that its maker has the private one, and
//! everything else from the caller's record: signing what a request asks for would hand out authorities to whoever asks.

use crate::{
    credentials::Credentials,
    error::CertError,
    facts::{CertificateFacts, hex, sha256},
};
use dora_remote_protocol::identity::Identity;
use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fmt;
use thiserror::Error;
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256},
    prelude::FromDer,
    x509::X509Version,
};
use zeroize::Zeroize;

/// Largest request in bytes. One with a P-256 key and the longest identity has below 800.
pub const MAX_REQUEST_BYTES: usize = 2 << 10;
/// Bytes of a P-256 point that is written in full (SEC 1 section 2.3.3), and its first byte.
const POINT_BYTES: usize = 65;
const POINT_IN_FULL: u8 = 4;

/// A new key and the request for its certificate. The key stays here; its `Debug` shows none of it.
pub struct Request {
    identity: Identity,
    der: Vec<u8>,
    key: PrivateKeyDer<'static>,
}

/// Makes a P-256 key and the request for a certificate of `identity`.
///
/// The identity in the request is for people who look at it: what is issued follows the records of the authority.
///
/// # Errors
/// [`CertError::Generate`] when the key or the request cannot be made.
pub fn new_key_and_request(identity: &Identity) -> Result<Request, CertError> {
    Request::with_key(identity, &KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

impl Request {
    pub(crate) fn with_key(identity: &Identity, key: &KeyPair) -> Result<Self, CertError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
        Ok(Self {
            identity: identity.clone(),
            der: params.serialize_request(key)?.der().to_vec(),
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        })
    }

    /// The request in DER form, to be sent: at most [`MAX_REQUEST_BYTES`].
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Puts the answer together with the key. What does not fit is refused here, before it replaces anything.
    ///
    /// # Errors
    /// As [`Credentials::from_parts`], and when the certificate is that of somebody else.
    pub fn into_credentials(
        self,
        chain: Vec<CertificateDer<'static>>,
        root: CertificateDer<'static>,
    ) -> Result<Credentials, CertError> {
        let credentials = Credentials::from_parts(self.key.clone_key(), chain, root)?;
        if *credentials.identity() != self.identity {
            return Err(CertError::bad_certificate(format!(
                "it is that of {}, and {} was asked for",
                credentials.identity(),
                self.identity
            )));
        }
        Ok(credentials)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// What an authority answers a request with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The new certificate and the issuing one, as they are sent back and later presented.
    pub chain: Vec<CertificateDer<'static>>,
    /// What the new certificate says.
    pub certificate: CertificateFacts,
}

/// The public key of a request whose maker has proven to have the private one. Nothing else of the request is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedKey {
    key: SubjectPublicKeyInfo,
    fingerprint: String,
}

impl RequestedKey {
    /// Reads a request and checks its proof of possession.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn of(request: &[u8]) -> Result<Self, RequestError> {
        // The bound comes before any parser.
        if request.len() > MAX_REQUEST_BYTES {
            return Err(RequestError::TooLarge { length: request.len() });
        }
        let (rest, parsed) = X509CertificationRequest::from_der(request).map_err(|_| RequestError::NotARequest)?;
        let info = &parsed.certification_request_info;
        if !rest.is_empty() || info.version != X509Version::V1 {
            return Err(RequestError::NotARequest);
        }
        // Before the signature, so that nobody makes us try an expensive or an outdated kind.
        let public = &info.subject_pki;
        let curve = public.algorithm.parameters.as_ref().and_then(|it| it.as_oid().ok());
        let point = public.subject_public_key.data.as_ref();
        if public.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY
            || curve != Some(OID_EC_P256)
            || point.len() != POINT_BYTES
            || point.first() != Some(&POINT_IN_FULL)
            || parsed.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256
        {
            return Err(RequestError::WrongKey);
        }
        parsed.verify_signature().map_err(|_| RequestError::NotProven)?;
        let key = SubjectPublicKeyInfo::from_der(public.raw).map_err(|_| RequestError::WrongKey)?;
        // Of the key as it will be written, so that no other encoding of it passes for another key.
        let fingerprint = hex(&sha256(&key.subject_public_key_info()));
        Ok(Self { key, fingerprint })
    }

    /// SHA-256 of the public key (`SubjectPublicKeyInfo` in DER form) in lower-case hex: tells whether two requests are for
    /// the same key.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub(crate) fn key(&self) -> &impl PublicKeyData {
        &self.key
    }
}

/// Why nothing is issued for a request. The texts may be told to the asker.
#[derive(Debug, Error)]
pub enum RequestError {
    /// More than [`MAX_REQUEST_BYTES`] bytes.
    #[error("the certificate request has {length} bytes, and at most {MAX_REQUEST_BYTES} are allowed")]
    TooLarge {
        /// Bytes that were given.
        length: usize,
    },
    /// Not one whole PKCS#10 request of version 1.
    #[error("this is not a whole PKCS#10 certificate request")]
    NotARequest,
    /// The key is of another kind than P-256, or is signed with another algorithm than ECDSA with SHA-256.
    #[error("the key of the certificate request is not an ECDSA P-256 key")]
    WrongKey,
    /// The request was not signed with the key that it is for.
    #[error("the certificate request does not prove possession of its key")]
    NotProven,
    /// The authority cannot issue what the record says.
    #[error(transparent)]
    Issue(#[from] CertError),
}
