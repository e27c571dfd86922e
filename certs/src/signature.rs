//! Signatures over messages that outlive a connection, such as the heads of the audit: made by one identity, checked by others.
//!
//! What is signed begins with a text of its own and the length of its context, so that no signature of a handshake, of a
//! certificate or of another context passes for one.

use crate::{credentials::Credentials, error::CertError, facts::CertificateFacts, leaf, path, path::PathError};
use dora_remote_protocol::identity::{Role, TrustDomain};
use rustls::{
    SignatureScheme,
    crypto::aws_lc_rs::sign::any_ecdsa_type,
    pki_types::{CertificateDer, TrustAnchor},
};
use webpki::{EndEntityCert, aws_lc_rs::ECDSA_P256_SHA256};

impl Credentials {
    /// Signs `message` with the key of this identity: ECDSA over P-256 with SHA-256, in DER form. `context` says what the
    /// message is for: a signature holds in its own context alone.
    ///
    /// # Errors
    /// [`CertError::Tls`] when the cryptography refuses the key.
    pub fn sign(&self, context: &[u8], message: &[u8]) -> Result<Vec<u8>, CertError> {
        let key = any_ecdsa_type(&self.key())?;
        let signer = key
            .choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256])
            .ok_or_else(|| CertError::bad_certificate("its key is not an ECDSA P-256 key"))?;
        Ok(signer.sign(&bound(context, message))?)
    }

    /// The chain in DER form, as [`Self::chain`].
    #[must_use]
    pub fn chain_der(&self) -> Vec<Vec<u8>> {
        self.chain().iter().map(|certificate| certificate.to_vec()).collect()
    }

    /// Checks a signature that a coordinator of our trust domain made with [`Self::sign`], and tells whose it is.
    ///
    /// `chain` is that of the signer, in DER form with the leaf first. It must lead to our root and is judged at the begin of
    /// the leaf, because what was signed outlives certificates; that it was not revoked since is not asked here.
    ///
    /// # Errors
    /// [`CertError::BadCertificate`] when the chain does not lead to our root, the leaf breaks the profile or is no coordinator
    /// of our trust domain; [`CertError::BadSignature`] when the signature is not that of the leaf's key.
    pub fn verify_coordinator(
        &self,
        chain: &[Vec<u8>],
        context: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<CertificateFacts, CertError> {
        verify_below(
            self.anchor()?,
            &self.identity().trust_domain,
            chain,
            context,
            message,
            signature,
        )
    }
}

/// As [`Credentials::verify_coordinator`], for whoever pins a root without an identity below it.
pub(crate) fn verify_below(
    anchor: TrustAnchor<'_>,
    trust_domain: &TrustDomain,
    chain: &[Vec<u8>],
    context: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<CertificateFacts, CertError> {
    let chain: Vec<_> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let leaf = chain.first().ok_or_else(|| CertError::bad_certificate("there is none"))?;
    let facts = leaf::read(leaf).map_err(|broken| CertError::bad_certificate(broken.0))?;
    path::validate(&chain, &[anchor], facts.not_before).map_err(|error| match error {
        PathError::Malformed(reason) => CertError::BadCertificate { reason },
        PathError::UnknownAuthority | PathError::Expired { .. } | PathError::NotYetValid { .. } => {
            CertError::bad_certificate("its chain does not lead to our root")
        }
    })?;
    let (found, ours) = (&facts.identity, trust_domain);
    if found.role != Role::Coordinator || found.trust_domain != *ours {
        return Err(CertError::bad_certificate(format!(
            "it is that of {found}, not of a coordinator of {ours}"
        )));
    }
    let unreadable = |error: webpki::Error| CertError::bad_certificate(error.to_string());
    EndEntityCert::try_from(leaf)
        .map_err(unreadable)?
        .verify_signature(ECDSA_P256_SHA256, &bound(context, message), signature)
        .map_err(|_| CertError::BadSignature { signer: found.clone() })?;
    Ok(facts)
}

/// What is signed: the family, the length of the context in four bytes (big-endian), the context, the message.
fn bound(context: &[u8], message: &[u8]) -> Vec<u8> {
    // A context is a short constant of the program; a longer one than four bytes can tell would need 4 GiB.
    let length = u32::try_from(context.len()).unwrap_or(u32::MAX);
    [FAMILY, &length.to_be_bytes(), context, message].concat()
}

/// What everything that is signed here begins with.
const FAMILY: &[u8] = b"dora-remote signed message v1\0";
