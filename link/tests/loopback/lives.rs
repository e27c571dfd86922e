//! Certificates that begin and end under connections that stand, and what a lapsed daemon may do.

use crate::world::*;
use dora_remote_link::{CallError, CloseCode, DialError, DialKind, Dialer, Patience, Rights, Router};
use dora_remote_protocol::{identity::Role, refusal::RefusalCode};
use std::time::{Duration, SystemTime};

#[tokio::test]
async fn a_coordinator_renews_its_certificate_under_live_connections_without_a_cut() {
    let world = World::new();
    let now = SystemTime::now();
    let brief = world.issue(Role::Coordinator, "main", Duration::from_secs(2), now);
    let mut server = Server::start(
        options(brief.clone(), Records::of(&brief)),
        echo().feed(|_, Count(from), sink| async move {
            for number in from.. {
                if sink.send(number).await.is_err() {
                    break;
                }
            }
            Ok(())
        }),
    );
    let dialer = world.dialer(Role::Operator, "olga");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    let mut feed = peer.feed(&Count(0), None).await.expect("asked");
    let renewed = world.credentials(Role::Coordinator, "main");
    server.replacer.replace(&renewed).expect("replaced");

    // The feed runs on beyond the end of the certificate under which it began, without a gap.
    let mut expected = 0;
    soon(async {
        while SystemTime::now() <= brief.certificate().not_after + Duration::from_secs(1) {
            assert_eq!(feed.next().await.expect("an item"), Some(expected));
            expected += 1;
        }
    })
    .await;
    assert!(expected > 0 && !peer.is_closed());
    assert_eq!(peer.certificate().serial, brief.certificate().serial);
    let after = dialer.dial(&server.address).await.expect("dialled");
    assert_eq!(after.certificate().serial, renewed.certificate().serial);
    assert_eq!(after.call(&Echo("hi".into()), PATIENCE).await.expect("answered"), "hi");
    server.arrived().await;
    server.end().await;
}

#[tokio::test]
async fn a_lapsed_daemon_may_renew_and_nothing_else_and_not_for_long() {
    let world = World::new();
    let credentials = world.credentials(Role::Coordinator, "main");
    let records = Records::of(&credentials);
    records.change(|snapshot| snapshot.set_renew_window(Duration::from_secs(3600)));
    let router = Router::new()
        .call(|_, Report(number)| async move { Ok(number) })
        .call(|_, Again(number)| async move { Ok(number + 1) })
        .also_for_lapsed::<Again>();
    let patience = Patience {
        one_purpose: Duration::from_secs(2),
        ..Patience::default()
    };
    let mut server = Server::with_patience(options(credentials, records), router, patience);
    let lapsed = world.expired(Role::Daemon, "robot-7");
    let dialer = Dialer::new(&lapsed, speaker(), DialKind::Daemon).expect("a dialler");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    match peer.call(&Report(1), PATIENCE).await {
        Err(CallError::Refused(refusal)) => assert_eq!(refusal.code, RefusalCode::CertificateLapsed),
        other => panic!("{other:?}"),
    }
    assert_eq!(peer.call(&Again(1), PATIENCE).await.expect("renewed"), 2);
    let seen = server.arrived().await;
    assert_eq!(seen.rights(), Rights::RenewOnly);
    // What it was issued counts on the connection that it makes with it, not on this one.
    seen.extend_certificate(SystemTime::now() + Duration::from_secs(3600));
    assert!(matches!(peer.call(&Report(1), PATIENCE).await, Err(CallError::Refused(_))));
    assert_eq!(soon(peer.closed()).await.code(), Some(CloseCode::TimeOver));

    // A person that lapsed is let in to nothing.
    let person = world.expired(Role::Operator, "olga");
    let dialer = Dialer::new(&person, speaker(), DialKind::Command).expect("a dialler");
    let error = dialer.dial(&server.address).await.expect_err("lapsed");
    assert!(matches!(error, DialError::OurCertificateExpired { .. }));
    server.end().await;
}
