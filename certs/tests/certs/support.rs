//! An authority to play with, a forger who holds its issuing key, and a handshake without a network.

use dora_remote_certs::{Admission, AdmissionSnapshot, Authority, Clock, Credentials, default_life};
use dora_remote_protocol::identity::{Identity, TrustDomain};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::{
    ClientConfig, ClientConnection, Connection, Error, ServerConfig, ServerConnection,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// The moment at which every authority of these tests is made.
pub(crate) fn birth() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// An authority and the directory that it lies in.
pub(crate) struct House {
    pub(crate) dir: TempDir,
    pub(crate) authority: Authority,
}

impl House {
    pub(crate) fn of(trust_domain: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let trust_domain: TrustDomain = trust_domain.parse().unwrap();
        let authority = Authority::init(&dir.path().join("authority"), &trust_domain, birth()).unwrap();
        Self { dir, authority }
    }

    pub(crate) fn lab() -> Self {
        Self::of("lab")
    }

    pub(crate) fn identity(&self, role_and_name: &str) -> Identity {
        identity(self.authority.trust_domain().as_str(), role_and_name)
    }

    /// Credentials with the usual life of their role.
    pub(crate) fn issue(&self, role_and_name: &str) -> Credentials {
        let identity = self.identity(role_and_name);
        self.authority.issue(&identity, default_life(identity.role), birth()).unwrap()
    }

    pub(crate) fn issue_for(&self, role_and_name: &str, life: Duration) -> Credentials {
        self.authority.issue(&self.identity(role_and_name), life, birth()).unwrap()
    }

    pub(crate) fn snapshot(&self) -> AdmissionSnapshot {
        let trust_domain = self.authority.trust_domain().clone();
        AdmissionSnapshot::new(trust_domain, std::slice::from_ref(self.authority.root())).unwrap()
    }

    /// The issuing certificate.
    pub(crate) fn issuing(&self) -> CertificateDer<'static> {
        self.issue("viewer/somebody").chain().remove(1)
    }

    /// Replaces the issuing certificate by one that the same root signs at `now`.
    pub(crate) fn renew_issuing(&mut self, now: SystemTime) {
        let dir = self.dir.path().join("authority");
        let read = |name| fs::read_to_string(dir.join(name)).unwrap();
        let root = Issuer::from_ca_cert_pem(&read("root.crt"), KeyPair::from_pem(&read("root.key")).unwrap()).unwrap();
        let mut params = good_params(&format!("spiffe://{}", self.authority.trust_domain()));
        params.not_before = now.into();
        params.not_after = (now + DAY * 365).into();
        params.distinguished_name.push(DnType::CommonName, "issuing again");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages.clear();
        params.use_authority_key_identifier_extension = true;
        // The key of the issuing certificate stays, as its file does.
        let key = KeyPair::from_pem(&read("issuing.key")).unwrap();
        let issuing: Certificate = params.signed_by(&key, &root).unwrap();
        fs::write(dir.join("issuing.crt"), issuing.pem()).unwrap();
        self.authority = Authority::load(&dir).unwrap();
    }

    /// Signs whatever it is given with the issuing key, and gives the chain and the key of the new certificate.
    pub(crate) fn forge(&self, params: &CertificateParams) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        self.forge_with(params, &KeyPair::generate().unwrap())
    }

    pub(crate) fn forge_with(
        &self,
        params: &CertificateParams,
        key: &KeyPair,
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let read = |name| fs::read_to_string(self.dir.path().join("authority").join(name)).unwrap();
        let issuing_key = KeyPair::from_pem(&read("issuing.key")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&read("issuing.crt"), issuing_key).unwrap();
        let leaf: Certificate = params.signed_by(key, &issuer).unwrap();
        (vec![leaf.der().clone(), self.issuing()], secret(key))
    }
}

pub(crate) fn identity(trust_domain: &str, role_and_name: &str) -> Identity {
    format!("spiffe://{trust_domain}/{role_and_name}").parse().unwrap()
}

pub(crate) fn secret(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(key.serialize_der().into())
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A good client's certificate, to be spoilt in one way.
pub(crate) fn good_params(uri_text: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(uri_text)];
    params.not_before = birth().into();
    params.not_after = (birth() + DAY).into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

pub(crate) fn authority_params(uri_text: &str) -> CertificateParams {
    let mut params = good_params(uri_text);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    params
}

/// A clock that stands still.
#[derive(Debug)]
pub(crate) struct Stopped(pub(crate) SystemTime);

impl Clock for Stopped {
    fn now(&self) -> SystemTime {
        self.0
    }
}

pub(crate) fn stopped(at: SystemTime) -> Arc<dyn Clock> {
    Arc::new(Stopped(at))
}

/// Records that never change.
#[derive(Debug)]
pub(crate) struct Frozen(pub(crate) Arc<AdmissionSnapshot>);

impl Admission for Frozen {
    fn snapshot(&self) -> Arc<AdmissionSnapshot> {
        self.0.clone()
    }
}

pub(crate) fn frozen(snapshot: AdmissionSnapshot) -> Arc<dyn Admission> {
    Arc::new(Frozen(Arc::new(snapshot)))
}

/// How a handshake ended on both sides, once neither had anything more to say.
pub(crate) struct Ended {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
    pub(crate) client_error: Option<Error>,
    pub(crate) server_error: Option<Error>,
}

impl Ended {
    pub(crate) fn is_good(&self) -> bool {
        let done = !self.client.is_handshaking() && !self.server.is_handshaking();
        done && self.client_error.is_none() && self.server_error.is_none()
    }
}

pub(crate) fn shake(client: ClientConfig, server: ServerConfig) -> Ended {
    let name = ServerName::try_from("coordinator").unwrap();
    let mut client = Connection::Client(ClientConnection::new(Arc::new(client), name).unwrap());
    let mut server = Connection::Server(ServerConnection::new(Arc::new(server)).unwrap());
    let (mut client_error, mut server_error) = (None, None);
    loop {
        let there = carry(&mut client, &mut server, &mut server_error);
        let back = carry(&mut server, &mut client, &mut client_error);
        if !there && !back {
            break;
        }
    }
    let (Connection::Client(client), Connection::Server(server)) = (client, server) else {
        unreachable!("they were put in that way");
    };
    Ended {
        client,
        server,
        client_error,
        server_error,
    }
}

/// Carries all pending bytes from one side to the other and keeps the first error of the receiver.
fn carry(from: &mut Connection, to: &mut Connection, error: &mut Option<Error>) -> bool {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() && error.is_none() {
        to.read_tls(&mut rest).unwrap();
        *error = to.process_new_packets().err();
    }
    !bytes.is_empty()
}

/// A server that presents what it is told to, and lets in whom `admission` lets in.
pub(crate) fn raw_server(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>, good: ServerConfig) -> ServerConfig {
    let mut config = good;
    let provider = default_provider();
    let certified = rustls::sign::CertifiedKey::from_der(chain, key, &provider).unwrap();
    config.cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    config
}

/// A client that presents what it is told to, or nothing.
pub(crate) fn raw_client(
    presents: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    good: ClientConfig,
) -> ClientConfig {
    let mut config = good;
    config.client_auth_cert_resolver = match presents {
        Some((chain, key)) => {
            let certified = rustls::sign::CertifiedKey::from_der(chain, key, &default_provider()).unwrap();
            Arc::new(rustls::sign::SingleCertAndKey::from(certified))
        }
        None => Arc::new(Nothing),
    };
    config
}

#[derive(Debug)]
struct Nothing;

impl rustls::client::ResolvesClientCert for Nothing {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
