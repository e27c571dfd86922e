//! Who is not let in, and who may not ask: distinct errors at the asking side, one line in the log of the other.

use crate::{
    raw::{TrustsAnybody, raw, raw_with},
    world::*,
};
use dora_remote_certs::{AdmissionSnapshot, SystemClock};
use dora_remote_link::{CallError, CloseCode, CloseReason, DialError, DialKind, Dialer, Peer, Router, TlsAlert};
use dora_remote_protocol::{
    frame,
    hello::{Hello, HelloAnswer},
    identity::Role,
    ids::{BootId, InstanceId},
    limits::MAX_FRAME_BYTES,
    refusal::RefusalCode,
    request::Answer,
    version::{ALPN, Version, VersionRange},
};
use rustls::crypto::aws_lc_rs;
use serde::de::DeserializeOwned;
use std::{net::UdpSocket, sync::Arc, time::Duration};
use uuid::Uuid;

pub(crate) async fn say_hello(connection: &quinn::Connection) -> HelloAnswer {
    hello_of(connection, VersionRange::OURS).await
}

async fn hello_of(connection: &quinn::Connection, versions: VersionRange) -> HelloAnswer {
    let hello = Hello {
        versions,
        build: "9.9.9".into(),
        features: vec![],
        instance: InstanceId(Uuid::new_v4()),
        boot: BootId(Uuid::new_v4()),
        counter: 1,
    };
    read_one(connection, &frame::encode(&hello, 4096).expect("fits")).await
}

pub(crate) async fn exchange<R: DeserializeOwned>(connection: &quinn::Connection, bytes: &[u8]) -> Answer<R> {
    read_one(connection, bytes).await
}

async fn read_one<T: DeserializeOwned>(connection: &quinn::Connection, bytes: &[u8]) -> T {
    let (mut send, mut recv) = connection.open_bi().await.expect("opened");
    // A server that has seen enough stops reading, which is no reason not to read its answer.
    let _ = send.write_all(bytes).await;
    let _ = send.finish();
    let read = soon(recv.read_to_end(MAX_FRAME_BYTES)).await.expect("answered");
    frame::decode(&read[frame::PREFIX_BYTES..]).expect("one frame")
}

async fn refusal_of(dialer: &Dialer, server: &Server) -> (CallError, CallError) {
    let peer = dialer.dial(&server.address).await.expect("a TLS 1.3 client learns it later");
    let early: Peer = peer.clone();
    tokio::join!(
        async { early.call(&Echo("hi".into()), PATIENCE).await.expect_err("refused") },
        async { peer.welcome().await.expect_err("refused") },
    )
}

#[tokio::test]
async fn a_role_may_ask_only_what_is_meant_for_it() {
    let (lines, _guard) = Lines::capture();
    let world = World::new();
    let mut server = world.serve(Router::new().call(|_, Change(number)| async move { Ok(number) }));
    let dialer = world.dialer(Role::Viewer, "ann");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    match peer.call(&Change(1), PATIENCE).await {
        Err(CallError::Refused(refusal)) => {
            assert_eq!(refusal.code, RefusalCode::Denied);
            assert!(
                refusal.message.contains("viewer") && refusal.message.contains("operator"),
                "{refusal}"
            );
        }
        other => panic!("{other:?}"),
    }
    let line = lines.only_refusal().await;
    assert!(
        line.contains("spiffe://test.example/viewer/ann") && line.contains("Change"),
        "{line}"
    );
    assert_eq!(server.refused().await.name, Some("Change"));

    // A daemon is no person, and the connection survives all of this.
    let dialer = world.dialer(Role::Daemon, "robot");
    let daemon = dialer.dial(&server.address).await.expect("dialled");
    assert!(matches!(daemon.call(&Change(1), PATIENCE).await, Err(CallError::Refused(_))));
    assert!(!peer.is_closed() && !daemon.is_closed());
    server.end().await;
}

#[tokio::test]
async fn an_unknown_verb_is_refused_in_calls_feeds_and_uploads() {
    let world = World::new();
    let server = world.serve(Router::new());
    let dialer = world.dialer(Role::Admin, "root");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    let unknown = |error: CallError| matches!(error, CallError::Refused(no) if no.code == RefusalCode::UnknownVerb);
    assert!(unknown(peer.call(&Echo("hi".into()), PATIENCE).await.expect_err("unknown")));
    let mut feed = peer.feed(&Count(1), None).await.expect("asked");
    assert!(unknown(soon(feed.next()).await.expect_err("unknown")));
    let bytes = vec![0; 4 << 20];
    assert!(unknown(
        peer.upload(&Put("x".into()), &bytes[..], PATIENCE)
            .await
            .expect_err("unknown")
    ));
    server.end().await;
}

#[tokio::test]
async fn a_hello_of_the_future_is_refused_with_both_versions() {
    let (lines, _guard) = Lines::capture();
    let world = World::new();
    let server = world.serve(echo());
    let credentials = world.credentials(Role::Operator, "olga");
    let (_endpoint, connection) = raw(&credentials, server.socket_address()).await;
    let versions = VersionRange {
        oldest: Version(900),
        newest: Version(901),
    };
    match hello_of(&connection, versions).await {
        HelloAnswer::Refusal(refusal) => {
            assert_eq!(refusal.code, RefusalCode::VersionMismatch);
            assert!(refusal.message.contains("1.900 to 1.901"), "{refusal}");
            assert!(refusal.message.contains(&VersionRange::OURS.to_string()), "{refusal}");
        }
        HelloAnswer::Welcome(welcome) => panic!("{welcome:?}"),
    }
    let line = lines.only_refusal().await;
    assert!(line.contains("1.900") && line.contains("olga"), "{line}");
    // The server gives the asker time to read, then closes by itself.
    match soon(connection.closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => {
            assert_eq!(close.error_code.into_inner(), CloseCode::Refused.number());
        }
        other => panic!("{other:?}"),
    }
    server.end().await;
}

#[tokio::test]
async fn a_client_of_an_unknown_authority_is_told_so() {
    let (lines, _guard) = Lines::capture();
    let (world, other) = (World::new(), World::new());
    // The server shows a certificate that the client trusts, and itself trusts other clients.
    let stranger = other.credentials(Role::Coordinator, "main");
    let server = Server::start(
        options(world.credentials(Role::Coordinator, "main"), Records::of(&stranger)),
        echo(),
    );
    let (call, welcome) = refusal_of(&world.dialer(Role::Admin, "root"), &server).await;
    for error in [call, welcome] {
        let alert = TlsAlert::UNKNOWN_CA;
        assert!(
            matches!(error, CallError::PeerRefusedUs { alert: told } if told == alert),
            "{error:?}"
        );
    }
    let line = lines.only_refusal().await;
    assert!(line.contains("unknown authority") && line.contains("127.0.0.1"), "{line}");
    server.end().await;
}

#[tokio::test]
async fn a_server_of_another_authority_or_role_is_not_trusted() {
    let (lines, _guard) = Lines::capture();
    let (world, other) = (World::new(), World::new());
    let server = world.serve(echo());
    let error = other
        .dialer(Role::Admin, "root")
        .dial(&server.address)
        .await
        .expect_err("not trusted");
    assert!(matches!(error, DialError::ServerNotTrusted { .. }), "{error:?}");
    let line = lines.only_refusal().await;
    assert!(line.contains("does not trust us"), "{line}");
    server.end().await;
}

#[tokio::test]
async fn an_expired_client_is_told_so_by_itself_or_by_the_server() {
    let (lines, _guard) = Lines::capture();
    let world = World::new();
    let server = world.serve(echo());
    let expired = world.expired(Role::Operator, "olga");
    let person = Dialer::new(&expired, speaker(), DialKind::Command).expect("a dialler");
    let error = person.dial(&server.address).await.expect_err("expired");
    assert!(matches!(error, DialError::OurCertificateExpired { .. }), "{error:?}");
    assert!(lines.about_refusals().is_empty(), "nothing was sent");

    let stubborn = Dialer::new(&expired, speaker(), DialKind::Daemon).expect("a dialler");
    let (call, welcome) = refusal_of(&stubborn, &server).await;
    for error in [call, welcome] {
        let alert = TlsAlert::CERTIFICATE_EXPIRED;
        assert!(
            matches!(error, CallError::PeerRefusedUs { alert: told } if told == alert),
            "{error:?}"
        );
    }
    let line = lines.only_refusal().await;
    assert!(line.contains("expired"), "{line}");
    server.end().await;
}

#[tokio::test]
async fn an_expired_server_is_not_trusted() {
    let world = World::new();
    let credentials = world.expired(Role::Coordinator, "main");
    let records = Records::of(&credentials);
    let server = Server::start(options(credentials, records), echo());
    let error = world
        .dialer(Role::Admin, "root")
        .dial(&server.address)
        .await
        .expect_err("expired");
    assert!(matches!(error, DialError::ServerExpired { .. }), "{error:?}");
    server.end().await;
}

#[tokio::test]
async fn a_client_without_a_certificate_gets_an_alert_and_nothing_else() {
    let (lines, _guard) = Lines::capture();
    let world = World::new();
    let server = world.serve(echo());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustsAnybody))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let (_endpoint, connection) = raw_with(tls, server.socket_address()).await.expect("it learns it later");
    match soon(connection.closed()).await {
        quinn::ConnectionError::ConnectionClosed(close) => {
            assert_eq!(
                u64::from(close.error_code),
                0x100 + u64::from(TlsAlert::CERTIFICATE_REQUIRED.0)
            );
        }
        other => panic!("{other:?}"),
    }
    let line = lines.only_refusal().await;
    assert!(line.contains("certificate is required"), "{line}");
    server.end().await;
}

#[tokio::test]
async fn another_major_version_is_told_from_other_failures() {
    let world = World::new();
    let server = world.serve(echo());
    let mut tls = dora_remote_certs::client_config(&world.credentials(Role::Admin, "root"), Arc::new(SystemClock))
        .expect("a configuration");
    tls.alpn_protocols = vec![b"dora-remote/9".to_vec()];
    match raw_with(tls, server.socket_address()).await {
        Err(quinn::ConnectionError::ConnectionClosed(close)) => {
            assert_eq!(
                u64::from(close.error_code),
                0x100 + u64::from(TlsAlert::NO_APPLICATION_PROTOCOL.0)
            );
        }
        other => panic!("{:?}", other.err()),
    }
    server.end().await;
}

#[tokio::test]
async fn a_revoked_peer_loses_its_next_stream_and_its_connection() {
    let world = World::new();
    let credentials = world.credentials(Role::Coordinator, "main");
    let records = Records::of(&credentials);
    let mut server = Server::start(options(credentials, records.clone()), echo());
    let dialer = world.dialer(Role::Operator, "olga");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    peer.call(&Echo("hi".into()), PATIENCE).await.expect("not revoked yet");
    let serial = server.arrived().await.certificate().serial.clone();
    records.change(|snapshot: &mut AdmissionSnapshot| snapshot.revoke_serial(&serial));
    match peer.call(&Echo("hi".into()), PATIENCE).await {
        Err(CallError::Refused(refusal)) => assert_eq!(refusal.code, RefusalCode::Denied),
        other => panic!("{other:?}"),
    }
    assert_eq!(soon(peer.closed()).await.code(), Some(CloseCode::Revoked));
    let (again, _) = refusal_of(&dialer, &server).await;
    let alert = TlsAlert::CERTIFICATE_REVOKED;
    assert!(
        matches!(again, CallError::PeerRefusedUs { alert: told } if told == alert),
        "{again:?}"
    );
    server.end().await;
}

#[tokio::test]
async fn garbage_on_the_port_does_nothing() {
    let world = World::new();
    let server = world.serve(echo());
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let mut state = 0x9e37_79b9_u32;
    for length in [0, 1, 7, 20, 21, 64, 600, 1199, 1200, 1201, 1472] {
        for first in [0x00, 0x40, 0x80, 0xc0, 0xc3, 0xff] {
            let mut datagram = vec![0; length];
            for byte in &mut datagram {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (state >> 24) as u8;
            }
            if let Some(byte) = datagram.first_mut() {
                *byte = first;
            }
            // The version of QUIC that is really spoken, so that some come further than others.
            if length > 20 && first >= 0xc0 {
                datagram[1..5].copy_from_slice(&[0, 0, 0, 1]);
                datagram[5] = 8;
            }
            socket.send_to(&datagram, server.socket_address()).expect("sent");
        }
    }
    let peer = world
        .dialer(Role::Viewer, "ann")
        .dial(&server.address)
        .await
        .expect("dialled");
    assert_eq!(peer.call(&Echo("hi".into()), PATIENCE).await.expect("answered"), "hi");
    server.end().await;
}

#[tokio::test]
async fn a_peer_that_never_says_hello_is_let_go() {
    let (lines, _guard) = Lines::capture();
    let world = World::new();
    let server = world.serve(echo());
    let credentials = world.credentials(Role::Viewer, "mute");
    let (_endpoint, connection) = raw(&credentials, server.socket_address()).await;
    match soon(connection.closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => {
            assert_eq!(close.error_code.into_inner(), CloseCode::Unanswered.number());
        }
        other => panic!("{other:?}"),
    }
    let line = lines.only_refusal().await;
    assert!(line.contains("no hello") && line.contains("mute"), "{line}");
    server.end().await;
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate_unless_it_is_extended() {
    let world = World::new();
    let mut server = world.serve(echo());
    let life = Duration::from_secs(2);
    let brief = world.issue(Role::Operator, "brief", life, std::time::SystemTime::now());
    let renewed = world.issue(Role::Operator, "renewed", life, std::time::SystemTime::now());
    let dialer = |credentials| Dialer::new(credentials, speaker(), DialKind::Follow).expect("a dialler");
    let (brief, renewed) = (dialer(&brief), dialer(&renewed));
    let renewed = renewed.dial(&server.address).await.expect("dialled");
    server
        .arrived()
        .await
        .extend_certificate(std::time::SystemTime::now() + Duration::from_secs(3600));
    let brief = brief.dial(&server.address).await.expect("dialled");
    match soon(brief.closed()).await {
        CloseReason::ByPeer { code, .. } => assert_eq!(code, CloseCode::CertificateLapsed),
        other => panic!("{other:?}"),
    }
    assert_eq!(renewed.call(&Echo("hi".into()), PATIENCE).await.expect("still there"), "hi");
    server.end().await;
}
