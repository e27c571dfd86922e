//! Connections made with quinn alone, for what a well-behaved dialler would never send, and how servers end them.

use crate::world::soon;
use dora_remote_certs::{Clock, Credentials, SystemClock, client_config};
use dora_remote_link::CloseCode;
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::{net::SocketAddr, sync::Arc};

/// A connection made with quinn alone, for what a well-behaved dialler would never send.
pub(crate) async fn raw(credentials: &Credentials, to: SocketAddr) -> (quinn::Endpoint, quinn::Connection) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let tls = client_config(credentials, clock).expect("a configuration");
    raw_with(tls, to).await.expect("connected")
}

pub(crate) async fn raw_with(
    tls: rustls::ClientConfig,
    to: SocketAddr,
) -> Result<(quinn::Endpoint, quinn::Connection), quinn::ConnectionError> {
    raw_over(tls, to, quinn::TransportConfig::default()).await
}

pub(crate) async fn raw_over(
    tls: rustls::ClientConfig,
    to: SocketAddr,
    transport: quinn::TransportConfig,
) -> Result<(quinn::Endpoint, quinn::Connection), quinn::ConnectionError> {
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("fit for QUIC");
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("good")).expect("bound");
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport));
    let connecting = endpoint.connect_with(config, to, "raw").expect("dialled");
    let connection = soon(connecting).await?;
    Ok((endpoint, connection))
}

/// With what the server ends a connection.
pub(crate) async fn closed_with(connection: &quinn::Connection) -> CloseCode {
    match soon(connection.closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => CloseCode::of(close.error_code.into_inner()),
        other => panic!("{other:?}"),
    }
}

/// Trusts every server: what a stranger would do.
#[derive(Debug)]
pub(crate) struct TrustsAnybody;

impl ServerCertVerifier for TrustsAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
