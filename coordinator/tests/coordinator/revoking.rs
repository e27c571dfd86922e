//! Revocation: at once, for good, and over restarts.

use crate::{
    joining::{admin, credentials, renew, system, wish, with},
    support::{Daemon, Memory, PATIENCE, Running, World, next, soon, start_running},
};
use dora_remote_certs::new_key_and_request;
use dora_remote_link::{CallError, CloseCode, Feed};
use dora_remote_protocol::{
    access::{CreateInvite, ListIdentities, Revoke, RevokeTarget},
    cli_to_coordinator::ListDataflows,
    identity::Role,
    log_line::LogItem,
    refusal::RefusalCode,
};
use std::time::Duration;

#[tokio::test]
async fn a_follower_and_a_daemon_are_cut_off_at_once_and_stay_out() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let ada = admin(&world, running.address, system()).await;
    let mut daemon = Daemon::join(&world, running.address, "a", &Memory::new()).await;
    let person = world.person(running.address).await;
    let id = start_running(&person, &mut daemon, 1).await;
    let eve = world.issue(Role::Viewer, "eve", Duration::from_secs(3_600), system().now());
    let eve_follows = with(&eve, running.address, system()).await.unwrap();
    let mut follow = eve_follows.logs(id, None, true).await;
    assert!(matches!(next(&mut follow).await.unwrap(), Some(LogItem::CaughtUp)));

    let revoked = ada.ask(revoke(None, "EVE")).await.unwrap();
    assert_eq!((revoked.is_new, revoked.closed), (true, 1));
    assert_eq!(revoked.revocation.target.to_string(), "viewer/eve");
    assert_eq!(end_of(&mut follow).await, CloseCode::Revoked);
    assert!(with(&eve, running.address, system()).await.is_err(), "she cannot come back");
    let again = ada.ask(revoke(Some(Role::Viewer), "eve")).await.unwrap();
    assert_eq!((again.is_new, again.revocation), (false, revoked.revocation));

    ada.ask(revoke(Some(Role::Daemon), "a")).await.unwrap();
    let end = soon("the end of the daemon's connection", daemon.peer.closed()).await;
    assert_eq!(end.code(), Some(CloseCode::Revoked));
    let robot = world.credentials(Role::Daemon, "a");
    assert!(with(&robot, running.address, system()).await.is_err());
    soon("the machine to be unreachable", async {
        while person.ask(ListDataflows {}).await.unwrap()[0].unreachable.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;

    running.kill();
    let running = Running::start(world.config("state")).await;
    for credentials in [&eve, &robot] {
        assert!(
            with(credentials, running.address, system()).await.is_err(),
            "not after a restart either"
        );
    }
    let ada = admin(&world, running.address, system()).await;
    let refusal = crate::joining::invite(
        &ada,
        CreateInvite {
            replace: true,
            ..wish(Role::Viewer, "eve")
        },
    )
    .await
    .map(|_| ())
    .unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NameTaken);
    let listed = ada.ask(ListIdentities {}).await.unwrap();
    assert_eq!(listed.iter().filter(|it| it.revoked.is_some()).count(), 2);
    running.end().await;
}

#[tokio::test]
async fn whoever_shuts_out_itself_reads_the_answer_and_nothing_more() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let ada = admin(&world, running.address, system()).await;
    let elsewhere = admin(&world, running.address, system()).await;
    let revoked = ada.ask(revoke(None, "ada")).await.unwrap();
    assert_eq!((revoked.is_new, revoked.closed), (true, 2));
    assert!(
        ada.peer.call(&ListDataflows {}, PATIENCE).await.is_err(),
        "it is shut out though it is still there"
    );
    for person in [&elsewhere, &ada] {
        let end = soon("the end of a connection", person.peer.closed()).await;
        assert_eq!(end.code(), Some(CloseCode::Revoked));
    }
    running.end().await;
}

#[tokio::test]
async fn a_revoked_serial_ends_connections_that_were_renewed_to_it() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let ada = admin(&world, running.address, system()).await;
    let olga = world.issue(Role::Operator, "olga", Duration::from_secs(3_600), system().now());
    let renewed = with(&olga, running.address, system()).await.unwrap();
    let other = with(&olga, running.address, system()).await.unwrap();
    let request = new_key_and_request(olga.identity()).unwrap();
    let issued = renew(&renewed, &request).await.unwrap();
    let fresh = credentials(&world, request, issued);

    let revoked = ada.ask(by_serial(&fresh.certificate().serial.to_uppercase())).await.unwrap();
    assert_eq!((revoked.is_new, revoked.closed), (true, 1));
    let end = soon("the end of the connection", renewed.peer.closed()).await;
    assert_eq!(end.code(), Some(CloseCode::Revoked));
    assert!(with(&fresh, running.address, system()).await.is_err());
    other.ask(ListDataflows {}).await.unwrap();
    with(&olga, running.address, system()).await.unwrap();

    // An issuing certificate takes with it all that it has signed.
    let issuing = dora_remote_certs::facts::info_of(&olga.chain()[1]).unwrap();
    drop(ada.peer.call(&by_serial(&issuing.serial), PATIENCE).await);
    let end = soon("the end of the connection", other.peer.closed()).await;
    assert_eq!(end.code(), Some(CloseCode::Revoked));
    running.end().await;
}

/// How the connection under a feed of lines ended.
async fn end_of(follow: &mut Feed<LogItem>) -> CloseCode {
    loop {
        match soon("the end of a feed", follow.next()).await {
            Ok(Some(_)) => {}
            Err(CallError::Lost(reason)) => return reason.code().expect("a reason"),
            other => panic!("{other:?}"),
        }
    }
}

fn revoke(role: Option<Role>, name: &str) -> Revoke {
    Revoke {
        target: RevokeTarget::Holder {
            role,
            name: name.parse().unwrap(),
        },
        reason: "stolen".to_owned(),
    }
}

fn by_serial(serial: &str) -> Revoke {
    Revoke {
        target: RevokeTarget::Serial(serial.to_owned()),
        reason: "leaked".to_owned(),
    }
}
