//! Backup and restore: what was revoked stays refused, what was used stays used, and nobody restores by accident.

use crate::{
    joining::{admin, invite, member, system, wish, with},
    support::{Person, Running, World, next, soon},
    witness::{Robot, everything, judge, read},
};
use dora_remote_certs::{Credentials, new_key_and_request};
use dora_remote_coordinator::{RestoreError, restore};
use dora_remote_link::CallError;
use dora_remote_protocol::{
    access::{AcceptRestore, ListIdentities, Revoke, RevokeTarget},
    audit::ReadAudit,
    backup::ReadBackup,
    cli_to_coordinator::ListMachines,
    identity::Role,
    refusal::RefusalCode,
};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

#[tokio::test]
async fn a_restore_keeps_revocations_and_voids_invites() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let ada = admin(&world, running.address, system()).await;
    let early = member(&world, &running, system(), wish(Role::Viewer, "early")).await;
    let late = member(&world, &running, system(), wish(Role::Viewer, "late")).await;
    revoke(&ada, "early").await;
    let used = invite(&ada, wish(Role::Daemon, "used")).await.unwrap();
    let open = invite(&ada, wish(Role::Daemon, "open")).await.unwrap();
    let archive = back_up(&ada, world.path("backup")).await;
    let epoch = ada.peer.welcome().await.unwrap().store_epoch;

    // After the backup.
    revoke(&ada, "late").await;
    let request = new_key_and_request(&used.identity).unwrap();
    used.join(running.address, system(), request.der()).await.unwrap();
    let refused = restore(&archive, &world.path("state"), SystemTime::now());
    assert!(matches!(refused, Err(RestoreError::InUse { .. })), "{refused:?}");
    running.end().await;

    let state = world.path("state");
    let report = restore(&archive, &state, SystemTime::now()).unwrap();
    assert_eq!(
        (report.voided_invites, report.kept_revocations, report.aside.len()),
        (2, 1, 3),
        "{report:?}"
    );
    assert!(report.coordinator.ends_with("/coordinator/coordinator") && report.audit_fault.is_none());
    let running = Running::start(world.config("state")).await;
    let ada = admin(&world, running.address, system()).await;
    assert_ne!(ada.peer.welcome().await.unwrap().store_epoch, epoch);
    for credentials in [&early, &late] {
        assert_shut_out(credentials, running.address).await;
    }
    for token in [&used, &open] {
        let request = new_key_and_request(&token.identity).unwrap();
        let refusal = token.join(running.address, system(), request.der()).await.unwrap_err();
        assert_eq!(refusal.code, RefusalCode::InviteVoid, "{refusal}");
    }
    let verdict = judge(&ada, &world.credentials(Role::Admin, "ada")).await;
    assert!(verdict.is_intact(), "{verdict:?}");
    let told = ReadAudit {
        verb: Some("restore".to_owned()),
        ..everything()
    };
    assert_eq!(read(&ada, &told).await.1.len(), 1);
    let accepted = ada.ask(AcceptRestore {}).await.unwrap();
    assert!(accepted.restored.is_some_and(|why| why.contains("backup")));
    assert_eq!(accepted.voided_invites, 2);
    running.end().await;
}

#[tokio::test]
async fn a_daemon_gives_back_what_a_restored_coordinator_has_forgotten() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let ada = admin(&world, running.address, system()).await;
    let eve = member(&world, &running, system(), wish(Role::Viewer, "eve")).await;
    let robot = Robot::new();
    let _connected = robot.join(&world, running.address, true).await;
    let archive = back_up(&ada, world.path("backup")).await;
    revoke(&ada, "eve").await;
    robot
        .keeps("the revocation", |kept| {
            kept.revocations.as_ref().is_some_and(|kept| kept.revocations.len() == 1)
        })
        .await;
    running.end().await;

    // The old disk is lost.
    let report = restore(&archive, &world.path("other"), SystemTime::now()).unwrap();
    assert_eq!((report.kept_revocations, report.aside), (0, Vec::<PathBuf>::new()));
    assert_eq!(report.machines, 1);
    let running = Running::start(world.config("other")).await;
    let ada = admin(&world, running.address, system()).await;
    let eve_again = with(&eve, running.address, system()).await.unwrap();
    robot.join(&world, running.address, true).await;
    soon("the end of her connection", eve_again.peer.closed()).await;
    assert_shut_out(&eve, running.address).await;
    let listed = ada.ask(ListIdentities {}).await.unwrap();
    assert_eq!(listed.iter().filter(|it| it.revoked.is_some()).count(), 1);
    running.end().await;
}

#[tokio::test]
async fn files_that_were_put_back_by_hand_are_found_out_by_a_daemon() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    running.end().await;
    let old = world.path("old");
    copy(&world.path("state"), &old);
    let running = Running::start(world.config("state")).await;
    let ada = admin(&world, running.address, system()).await;
    let eve = member(&world, &running, system(), wish(Role::Viewer, "eve")).await;
    let robot = Robot::new();
    let _connected = robot.join(&world, running.address, true).await;
    revoke(&ada, "eve").await;
    robot
        .keeps("the revocation and the end of the audit", |kept| {
            kept.revocations.is_some() && kept.heads.last().is_some_and(|it| it.head.count >= 4)
        })
        .await;
    running.end().await;

    copy(&old, &world.path("state"));
    let running = Running::start(world.config("state")).await;
    let ada = admin(&world, running.address, system()).await;
    let token = invite(&ada, wish(Role::Daemon, "b")).await.unwrap();
    let connected = robot.join(&world, running.address, true).await;
    // The life of the store is the same, so it tells the revocations only once it sees that they are forgotten.
    soon("the end of the connection", connected.peer.closed()).await;
    robot.join(&world, running.address, true).await;
    assert_shut_out(&eve, running.address).await;
    let request = new_key_and_request(&token.identity).unwrap();
    let refusal = token.join(running.address, system(), request.der()).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::InviteVoid, "{refusal}");
    let accepted = ada.ask(AcceptRestore {}).await.unwrap();
    assert!(accepted.restored.is_some_and(|why| why.contains("has witnessed")));
    // Accepted is accepted: the same witness does not undo it.
    robot.join(&world, running.address, true).await;
    assert_eq!(ada.ask(AcceptRestore {}).await.unwrap().restored, None);
    assert_eq!(ada.ask(ListMachines {}).await.unwrap().len(), 1);
    running.end().await;
}

#[tokio::test]
async fn what_is_not_a_whole_backup_replaces_nothing() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let ada = admin(&world, running.address, system()).await;
    let archive = back_up(&ada, world.path("backup")).await;
    let mut ann = world
        .person(running.address)
        .await
        .peer
        .feed(&ReadBackup {}, None)
        .await
        .unwrap();
    assert_eq!(next(&mut ann).await.unwrap_err().code, RefusalCode::Denied);
    running.end().await;
    let state = world.path("state");
    let whole = fs::read(&archive).unwrap();
    let before = fs::read(state.join("access.redb")).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for bytes in [&whole[..whole.len() - 1], &damaged, b"", b"dora-remote backup 2\n"] {
        fs::write(&archive, bytes).unwrap();
        let refused = restore(&archive, &state, SystemTime::now());
        assert!(matches!(refused, Err(RestoreError::Archive { .. })), "{refused:?}");
    }
    assert!(fs::read(state.join("access.redb")).unwrap() == before, "nothing was touched");
    let left: Vec<_> = fs::read_dir(&state)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("restor") || name.contains("backup"))
        .collect();
    assert_eq!(left, Vec::<String>::new(), "nothing is left behind");

    // A restore that was broken off between two files is repeated before anything starts.
    fs::write(state.join("restore-in-progress"), "").unwrap();
    let error = dora_remote_coordinator::start(world.config("state"), Default::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("repeat it"), "{error}");
    fs::write(&archive, &whole).unwrap();
    restore(&archive, &state, SystemTime::now()).unwrap();
    Running::start(world.config("state")).await.end().await;
}

async fn assert_shut_out(credentials: &Credentials, at: SocketAddr) {
    match with(credentials, at, system()).await {
        Err(CallError::PeerRefusedUs { .. } | CallError::Lost(_)) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{} was let in", credentials.identity()),
    }
}

async fn revoke(admin: &Person, name: &str) {
    let request = Revoke {
        target: RevokeTarget::Holder {
            role: None,
            name: name.parse().unwrap(),
        },
        reason: "stolen".to_owned(),
    };
    admin.ask(request).await.unwrap();
}

/// Writes a backup to a file.
async fn back_up(admin: &Person, to: PathBuf) -> PathBuf {
    let mut feed = admin.peer.feed(&ReadBackup {}, None).await.unwrap();
    let mut archive = Vec::new();
    while let Some(chunk) = next(&mut feed).await.unwrap() {
        archive.extend(chunk.0);
    }
    fs::write(&to, archive).unwrap();
    to
}

/// Copies the databases of a coordinator that has ended.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in ["access.redb", "store.redb", "audit.redb"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}
