//! Certificates that end, and how nobody is stranded: renewal on live connections, recovery of lapsed daemons, and the coordinator's own.

use crate::{
    joining::{Hands, admin, credentials, member, renew, wish, with},
    support::{Person, Running, World},
};
use dora_remote_certs::{Authority, Clock, Credentials, SystemClock, new_key_and_request};
use dora_remote_coordinator::{
    Options,
    config::{Lives, LivesOptions},
    start,
};
use dora_remote_link::CallError;
use dora_remote_protocol::{
    access::{CreateInvite, ListIdentities, Revoke, RevokeTarget},
    cli_to_coordinator::{GetStatus, ListDataflows},
    daemon_to_coordinator::Heartbeat,
    identity::{Identity, Role},
    machine::EngineStatus,
    refusal::RefusalCode,
};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

#[tokio::test]
async fn a_connection_lives_on_by_renewal_and_ends_without_it() {
    let world = World::new();
    let hands = Hands::new();
    let running = Running::start(world.config_under(hands.clone(), "state")).await;
    let hour = CreateInvite {
        certificate_life_ms: Some(3_600_000),
        ..wish(Role::Operator, "olga")
    };
    let first = member(&world, &running, hands.clone(), hour).await;
    let renewing = with(&first, running.address, hands.clone()).await.unwrap();
    let idle = with(&first, running.address, hands.clone()).await.unwrap();

    hands.forward(HOUR * 2 / 3);
    let request = new_key_and_request(first.identity()).unwrap();
    let issued = renew(&renewing, &request).await.unwrap();
    let second = credentials(&world, request, issued);
    assert_eq!(second.certificate().not_after, first.certificate().not_after + HOUR * 2 / 3);

    hands.forward(HOUR / 2);
    renewing.ask(ListDataflows {}).await.unwrap();
    let refusal = idle.ask(ListDataflows {}).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::CertificateLapsed);
    with(&second, running.address, hands.clone()).await.unwrap();
    let behind = Arc::new(SystemClock);
    let refused = with(&first, running.address, behind).await.map(|_| ()).unwrap_err();
    assert!(
        matches!(refused, CallError::PeerRefusedUs { .. }),
        "people do not recover: {refused}"
    );
    hands.forward(HOUR);
    assert!(
        renewing.ask(ListDataflows {}).await.is_err(),
        "it ends with the certificate that was issued on it"
    );
    running.end().await;
}

#[tokio::test]
async fn a_daemon_that_lapsed_long_ago_recovers_with_its_own_key_and_only_so_often() {
    let world = World::new();
    let hands = Hands::new();
    let config = world.config_under(hands.clone(), "state");
    let running = Running::start(config.clone()).await;
    let robot = member(&world, &running, hands.clone(), wish(Role::Daemon, "robot")).await;
    let former = world.issue(Role::Daemon, "robot", HOUR, hands.now());
    with(&robot, running.address, hands.clone()).await.unwrap();
    running.kill();

    hands.forward(DAY * 300);
    let running = Running::start(config).await;
    let at = running.address;
    let stranger = with(&former, at, hands.clone()).await.unwrap();
    let request = new_key_and_request(robot.identity()).unwrap();
    let refusal = renew(&stranger, &request).await.unwrap_err();
    assert!(
        refusal.code == RefusalCode::Denied && refusal.message.contains("on record"),
        "{refusal}"
    );

    let mut fresh: Option<Credentials> = None;
    for _ in 0..3 {
        let lapsed = with(&robot, at, hands.clone()).await.unwrap();
        assert_eq!(
            beat(&lapsed).await,
            Some(RefusalCode::CertificateLapsed),
            "nothing but renewing"
        );
        let request = new_key_and_request(robot.identity()).unwrap();
        let issued = renew(&lapsed, &request).await.unwrap();
        assert_eq!(
            beat(&lapsed).await,
            Some(RefusalCode::CertificateLapsed),
            "not on this connection"
        );
        fresh = Some(credentials(&world, request, issued));
    }
    let lapsed = with(&robot, at, hands.clone()).await.unwrap();
    let request = new_key_and_request(robot.identity()).unwrap();
    let refusal = renew(&lapsed, &request).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::LimitReached, "{refusal}");

    let back = with(&fresh.unwrap(), at, hands.clone()).await.unwrap();
    assert_ne!(beat(&back).await, Some(RefusalCode::CertificateLapsed));
    let ada = admin(&world, at, hands.clone()).await;
    let listed = ada.ask(ListIdentities {}).await.unwrap();
    let robot_listed = listed.iter().find(|it| it.identity == *robot.identity()).unwrap();
    assert_eq!(robot_listed.recoveries, 3);
    // The old key was given up when the new one was seen.
    hands.forward(DAY * 8);
    let lapsed = with(&robot, at, hands.clone()).await.unwrap();
    assert_eq!(renew(&lapsed, &request).await.unwrap_err().code, RefusalCode::Denied);
    running.end().await;
}

#[tokio::test]
async fn a_daemon_recovers_more_than_a_year_after_its_certificate_and_the_one_above_it_have_ended() {
    let world = World::new();
    let hands = Hands::new();
    let config = world.config_under(hands.clone(), "state");
    let running = Running::start(config.clone()).await;
    let robot = member(&world, &running, hands.clone(), wish(Role::Daemon, "robot")).await;
    with(&robot, running.address, hands.clone()).await.unwrap();
    running.kill();

    hands.forward(DAY * 800);
    assert!(robot.certificate().not_after + DAY * 366 < hands.now());
    assert!(world.authority().issuing().not_after + DAY * 366 < hands.now());
    let former = world.authority().issuing().serial.clone();
    // What its operator does, as the coordinator cannot issue by an authority that has ended.
    assert!(start(config.clone(), CancellationToken::new()).await.is_err());
    let renewed = Authority::renew_issuing(&world.path("authority"), hands.now()).unwrap();

    let running = Running::start(config).await;
    let at = running.address;
    let lapsed = with(&robot, at, hands.clone()).await.unwrap();
    assert_eq!(beat(&lapsed).await, Some(RefusalCode::CertificateLapsed));
    let request = new_key_and_request(robot.identity()).unwrap();
    let issued = renew(&lapsed, &request).await.unwrap();
    let fresh = credentials(&world, request, issued);
    assert!(fresh.certificate().not_after > hands.now());
    let back = with(&fresh, at, hands.clone()).await.unwrap();
    assert_ne!(beat(&back).await, Some(RefusalCode::CertificateLapsed));

    // Once the former issuing certificate is shut out, nothing that it has signed is good for a recovery.
    let ada: Identity = "spiffe://lab/admin/ada".parse().unwrap();
    let ada = renewed.issue(&ada, DAY, hands.now()).unwrap();
    let ada = with(&ada, at, hands.clone()).await.unwrap();
    let target = RevokeTarget::Serial(former);
    let reason = String::new();
    ada.ask(Revoke { target, reason }).await.unwrap();
    let refused = with(&robot, at, hands.clone()).await.map(|_| ()).unwrap_err();
    assert!(matches!(refused, CallError::PeerRefusedUs { .. }), "{refused}");
    with(&fresh, at, hands.clone()).await.unwrap();
    running.end().await;
}

#[tokio::test]
async fn the_coordinator_renews_its_own_certificate_under_live_connections() {
    let world = World::new();
    let hands = Hands::new();
    let mut config = world.config_under(hands.clone(), "state");
    config.lives = lives();
    let running = Running::start(config).await;
    let ada = admin(&world, running.address, hands.clone()).await;
    let before = ada.ask(GetStatus {}).await.unwrap().certificate_ends_unix_ms;
    let shown = ada.peer.certificate().serial.clone();
    hands.forward(Duration::from_secs(9));
    let after = loop {
        // Asked on the old connection all the while.
        let status = ada.ask(GetStatus {}).await.unwrap();
        if status.certificate_ends_unix_ms != before {
            break status.certificate_ends_unix_ms;
        }
        tokio::task::yield_now().await;
    };
    assert!(after > before);
    hands.forward(Duration::from_secs(4));
    let again = admin(&world, running.address, hands.clone()).await;
    assert_ne!(again.peer.certificate().serial, shown);
    ada.ask(ListDataflows {}).await.unwrap();
    assert!(!ada.peer.is_closed());
    running.end().await;
}

fn lives() -> Lives {
    let options = Options {
        state_dir: Some("unused".into()),
        authority_dir: Some("unused".into()),
        lives: LivesOptions {
            coordinator: "12s".parse().ok(),
            ..LivesOptions::default()
        },
        ..Options::default()
    };
    options.checked().unwrap().lives
}

async fn beat(daemon: &Person) -> Option<RefusalCode> {
    let beat = Heartbeat {
        engine: EngineStatus::Starting,
        disk: None,
    };
    daemon.ask(beat).await.err().map(|refusal| refusal.code)
}
