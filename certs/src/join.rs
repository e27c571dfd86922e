//! The two ends of an invite's seed: the key that the inviter reports, and what the joiner dials with.
//!
//! A joiner has no certificate of ours and no root yet. It proves the seed with a certificate that it signs itself, in which
//! nothing but the key counts, and it knows the coordinator by the hash of the root that the coordinator presents.

use crate::{
    admit::JoinKey,
    clock::Clock,
    error::CertError,
    profile::random,
    tls,
    verify::{CoordinatorVerifier, Trust, VerifyReport},
};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use dora_remote_protocol::{
    identity::TrustDomain,
    invite::{InviteSeed, InviteToken},
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ED25519};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use std::{fmt, sync::Arc};
use zeroize::Zeroize;

/// A new seed for an invite, from the generator of the system.
///
/// # Errors
/// [`CertError::NoRandom`].
pub fn new_seed() -> Result<InviteSeed, CertError> {
    random().map(InviteSeed)
}

/// What the holder of a seed proves itself with: an Ed25519 key and a certificate that it signed itself. The same seed gives
/// the same key. Its `Debug` shows no secret.
pub struct JoinCredentials {
    join_key: JoinKey,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl JoinCredentials {
    /// Derives them from a seed.
    ///
    /// # Errors
    /// [`CertError::Generate`] when the cryptography refuses, which it has no reason to.
    pub fn of(seed: &InviteSeed) -> Result<Self, CertError> {
        let refused = || CertError::Generate(rcgen::Error::CouldNotParseKeyPair);
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed.0).map_err(|_| refused())?;
        let public = pair.public_key().as_ref();
        let join_key = JoinKey(public.try_into().map_err(|_| refused())?);
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| refused())?;
        let key = PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec());
        let signer = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ED25519)?;
        let mut params = CertificateParams::default();
        // Neutral: it is sent before the server is known, and the server looks at the key alone.
        params.distinguished_name = DistinguishedName::new();
        let certificate = params.self_signed(&signer)?.der().clone();
        Ok(Self {
            join_key,
            certificate,
            key: PrivateKeyDer::Pkcs8(key),
        })
    }

    /// The public key, by which the coordinator knows the holder of the invite.
    #[must_use]
    pub const fn join_key(&self) -> JoinKey {
        self.join_key
    }

    /// The certificate that is presented.
    #[must_use]
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }
}

impl Drop for JoinCredentials {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl fmt::Debug for JoinCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinCredentials")
            .field("join_key", &self.join_key)
            .finish_non_exhaustive()
    }
}

/// By what a joiner recognises the coordinator: public parts of an invite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinTarget {
    /// The trust domain that is joined.
    pub trust_domain: TrustDomain,
    /// SHA-256 of the root certificate's DER form.
    pub root_hash: [u8; 32],
}

impl From<&InviteToken> for JoinTarget {
    fn from(token: &InviteToken) -> Self {
        Self {
            trust_domain: token.trust_domain().clone(),
            root_hash: *token.root_hash(),
        }
    }
}

/// What a joiner needs: the seed's key, and a verifier that accepts a coordinator of the target's trust domain whose chain
/// holds the root with the target's hash and leads to it.
///
/// After a handshake [`VerifyReport::take_root`] of `report` gives that root for saving, and after a refusal
/// [`VerifyReport::take`] says why. A root of another hash is [`crate::VerifyError::UnknownAuthority`].
///
/// # Errors
/// [`CertError::Tls`] when the TLS stack refuses the key.
pub fn client_config_for_join(
    credentials: &JoinCredentials,
    target: &JoinTarget,
    clock: Arc<dyn Clock>,
    report: Arc<VerifyReport>,
) -> Result<ClientConfig, CertError> {
    let verifier = CoordinatorVerifier {
        trust_domain: target.trust_domain.clone(),
        trust: Trust::RootHash(target.root_hash),
        clock: Arc::clone(&clock),
        report,
    };
    tls::client(
        verifier,
        clock,
        vec![credentials.certificate.clone()],
        credentials.key.clone_key(),
    )
}
