//! Peers that break the rules, made of bare QUIC: no certificate, a wrong one, a hello from the future, a false coordinator.

use crate::patience;
use dora_remote_certs::{AdmissionSnapshot, Clock, Credentials, client_config, server_config};
use dora_remote_protocol::{
    frame,
    hello::{Hello, HelloAnswer},
    ids::{BootId, InstanceId},
    limits::{MAX_FRAME_BYTES, MAX_HELLO_BYTES},
    version::{ALPN, Version, VersionRange},
};
use quinn::{
    Connection, ConnectionError, Endpoint, RecvStream,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};
use std::{
    net::SocketAddr,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, SystemTime},
};
use tokio::{runtime::Runtime, sync::oneshot, time::timeout};
use uuid::Uuid;

/// What a stranger brings to the handshake.
#[derive(Clone, Debug)]
pub enum Stranger {
    /// No certificate at all.
    WithoutCertificate,
    /// No certificate, and another application protocol.
    OtherProtocol,
    /// These credentials, whatever the time is.
    With(Credentials),
}

/// How the coordinator ended a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By a TLS alert of this number (RFC 8446 section 6).
    Alert(u64),
    /// Otherwise.
    Otherwise(String),
}

/// Knocks at a coordinator and tells how it was sent away.
///
/// # Panics
/// When it was let in.
#[must_use]
pub fn knock(address: &str, stranger: &Stranger) -> Ended {
    runtime().block_on(async {
        let (_endpoint, connection) = match connect(address, stranger).await {
            Ok(pair) => pair,
            Err(error) => return ended(&error),
        };
        // A TLS 1.3 client believes that it is connected before it was judged.
        match timeout(patience::DEADLINE, connection.closed()).await {
            Ok(error) => ended(&error),
            Err(_) => panic!("a stranger was let in"),
        }
    })
}

/// Says hello in other versions, and returns the answer.
///
/// # Panics
/// When there is no answer.
#[must_use]
pub fn hello(address: &str, credentials: &Credentials, oldest: u16, newest: u16) -> HelloAnswer {
    runtime().block_on(async {
        let (_endpoint, connection) = connect(address, &Stranger::With(credentials.clone()))
            .await
            .expect("a connection");
        let (mut send, mut receive) = connection.open_bi().await.expect("a stream");
        let hello = Hello {
            versions: VersionRange {
                oldest: Version(oldest),
                newest: Version(newest),
            },
            build: "99.0.0".to_owned(),
            features: vec![],
            instance: InstanceId(Uuid::new_v4()),
            boot: BootId(Uuid::new_v4()),
            counter: 1,
        };
        send.write_all(&frame::encode(&hello, MAX_HELLO_BYTES).expect("a short hello"))
            .await
            .expect("a stream");
        send.finish().expect("a stream");
        let body = timeout(patience::DEADLINE, read_frame(&mut receive))
            .await
            .expect("an answer in time");
        frame::decode(&body).expect("an answer")
    })
}

/// Opens a stream after a good handshake and writes these bytes where a hello should stand; tells how that ended.
///
/// # Panics
/// When nothing comes of it.
#[must_use]
pub fn babble(address: &str, credentials: &Credentials, bytes: &[u8]) -> Ended {
    runtime().block_on(async {
        let (_endpoint, connection) = connect(address, &Stranger::With(credentials.clone()))
            .await
            .expect("a connection");
        let (mut send, _receive) = connection.open_bi().await.expect("a stream");
        drop(send.write_all(bytes).await);
        drop(send.finish());
        match timeout(patience::DEADLINE, connection.closed()).await {
            Ok(error) => ended(&error),
            Err(_) => panic!("babble was listened to"),
        }
    })
}

/// Something that listens on loopback and is not the coordinator it says it is.
#[derive(Debug)]
pub struct Impostor {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Impostor {
    /// Listens with these credentials, and gives every hello the same answer.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn listen(credentials: &Credentials, answer: HelloAnswer) -> Self {
        let admission = AdmissionSnapshot::of(credentials).expect("a snapshot");
        let tls = server_config(
            credentials,
            Arc::new(StoppedClock::now()),
            Arc::new(Everybody(Arc::new(admission))),
        );
        let quic = QuicServerConfig::try_from(tls.expect("a server configuration")).expect("TLS 1.3");
        let config = quinn::ServerConfig::with_crypto(Arc::new(quic));
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let loopback = "127.0.0.1:0".parse().expect("an address");
                let endpoint = Endpoint::server(config, loopback).expect("a socket");
                tell.send(endpoint.local_addr().expect("an address")).expect("the test waits");
                let answer = frame::encode(&answer, MAX_HELLO_BYTES).expect("a short answer");
                let serve = async {
                    while let Some(incoming) = endpoint.accept().await {
                        let answer = answer.clone();
                        tokio::spawn(async move {
                            let Ok(connection) = incoming.await else { return };
                            let Ok((mut send, _receive)) = connection.accept_bi().await else {
                                return;
                            };
                            drop(send.write_all(&answer).await);
                            drop(send.finish());
                            connection.closed().await;
                        });
                    }
                };
                tokio::select! { () = serve => {}, _ = stopped => {} }
            });
        });
        Self {
            address: told.recv().expect("the impostor listens"),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// A clock that stands still.
#[derive(Clone, Copy, Debug)]
pub struct StoppedClock(pub SystemTime);

impl StoppedClock {
    /// Stopped now.
    #[must_use]
    pub fn now() -> Self {
        Self(SystemTime::now())
    }
}

impl Clock for StoppedClock {
    fn now(&self) -> SystemTime {
        self.0
    }
}

#[derive(Debug)]
struct Everybody(Arc<AdmissionSnapshot>);

impl dora_remote_certs::Admission for Everybody {
    fn snapshot(&self) -> Arc<AdmissionSnapshot> {
        Arc::clone(&self.0)
    }
}

async fn connect(address: &str, stranger: &Stranger) -> Result<(Endpoint, Connection), ConnectionError> {
    let tls = match stranger {
        Stranger::With(credentials) => client_config(credentials, Arc::new(StoppedClock::now())).expect("good credentials"),
        Stranger::WithoutCertificate => bare(ALPN),
        Stranger::OtherProtocol => bare(b"h3"),
    };
    connect_with(address, tls).await
}

/// Connects with a TLS configuration.
pub(crate) async fn connect_with(address: &str, tls: ClientConfig) -> Result<(Endpoint, Connection), ConnectionError> {
    let quic = QuicClientConfig::try_from(tls).expect("TLS 1.3");
    let mut config = quinn::ClientConfig::new(Arc::new(quic));
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(5)));
    config.transport_config(Arc::new(transport));
    let mut endpoint = Endpoint::client("0.0.0.0:0".parse().expect("an address")).expect("a socket");
    endpoint.set_default_client_config(config);
    let address = address.parse().expect("an address in numbers");
    let connection = endpoint
        .connect(address, "coordinator")
        .expect("a good configuration")
        .await?;
    Ok((endpoint, connection))
}

fn ended(error: &ConnectionError) -> Ended {
    // RFC 9001 section 4.8: the alert plus 0x100.
    let ConnectionError::ConnectionClosed(close) = error else {
        return Ended::Otherwise(error.to_string());
    };
    match u64::from(close.error_code).checked_sub(0x100) {
        Some(alert @ 0..=255) => Ended::Alert(alert),
        _ => Ended::Otherwise(error.to_string()),
    }
}

async fn read_frame(receive: &mut RecvStream) -> Vec<u8> {
    let mut prefix = [0; frame::PREFIX_BYTES];
    receive.read_exact(&mut prefix).await.expect("a whole prefix");
    let length = frame::body_length(prefix, MAX_FRAME_BYTES).expect("a length in bounds");
    let mut body = vec![0; length];
    receive.read_exact(&mut body).await.expect("a whole body");
    body
}

fn bare(alpn: &[u8]) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

/// Runs one test's asynchronous part.
///
/// # Panics
/// When there is no runtime to be had.
#[must_use]
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Believes every server.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
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
        Err(rustls::Error::General("TLS 1.2".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
