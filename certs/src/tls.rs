//! The TLS configurations of both sides: TLS 1.3 alone, certificates on both sides, no resumption, no early data.
//!
//! A resumed session would not be checked again against expiry and revocation, so there are none. The transport adds its
//! own parameters on top; it must not touch what is set here.

use crate::{
    admit::Admission,
    clock::Clock,
    credentials::Credentials,
    error::CertError,
    verify::{AdmissionVerifier, CoordinatorVerifier, Trust, VerifyReport},
};
use dora_remote_protocol::version::ALPN;
use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
    server::NoServerSessionStorage,
    time_provider::TimeProvider,
    version::TLS13,
};
use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

/// What a dialling peer needs: its own certificate, and a verifier that accepts coordinators of its trust domain alone.
///
/// The name of the server is not checked; any valid one will do where the transport demands one.
///
/// # Errors
/// [`CertError::Tls`] when the TLS stack refuses the credentials.
pub fn client_config(credentials: &Credentials, clock: Arc<dyn Clock>) -> Result<ClientConfig, CertError> {
    client_config_with_report(credentials, clock, Arc::default())
}

/// As [`client_config`], with the verifier's last refusal kept in `report`. Quinn hands on only the text of a TLS error, so
/// whoever wants to know more makes one configuration per dial and looks there.
///
/// # Errors
/// As [`client_config`].
pub fn client_config_with_report(
    credentials: &Credentials,
    clock: Arc<dyn Clock>,
    report: Arc<VerifyReport>,
) -> Result<ClientConfig, CertError> {
    let verifier = CoordinatorVerifier {
        trust_domain: credentials.identity().trust_domain.clone(),
        trust: Trust::Root(credentials.anchor()?),
        clock: Arc::clone(&clock),
        report,
    };
    client(verifier, clock, credentials.chain(), credentials.key())
}

/// A dialling side with that verifier, which presents that chain.
pub(crate) fn client(
    verifier: CoordinatorVerifier,
    clock: Arc<dyn Clock>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, CertError> {
    let mut config = ClientConfig::builder_with_details(Arc::new(provider()), Arc::new(Timekeeper(clock)))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok(config)
}

/// What a coordinator needs: its own certificate, sent with issuer and root so that a joiner who knows only the root's hash
/// can verify it, and a verifier that demands a certificate and asks [`crate::admit()`].
///
/// # Errors
/// [`CertError::Tls`] when the TLS stack refuses the credentials.
pub fn server_config(
    credentials: &Credentials,
    clock: Arc<dyn Clock>,
    admission: Arc<dyn Admission>,
) -> Result<ServerConfig, CertError> {
    let mut chain = credentials.chain();
    chain.push(credentials.root().clone());
    let mut config = ServerConfig::builder_with_details(Arc::new(provider()), Arc::new(Timekeeper(clock)))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(AdmissionVerifier { admission }))
        .with_single_cert(chain, credentials.key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

/// The cryptography of every connection. Prefers the post-quantum hybrid X25519MLKEM768 for the key exchange.
pub(crate) fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// Shows a [`Clock`] to the TLS stack.
#[derive(Debug)]
struct Timekeeper(Arc<dyn Clock>);

impl TimeProvider for Timekeeper {
    fn current_time(&self) -> Option<UnixTime> {
        let since = self.0.now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Some(UnixTime::since_unix_epoch(since))
    }
}
