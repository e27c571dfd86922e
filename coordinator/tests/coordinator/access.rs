//! Invites and joining: the designed answer to every way of coming in.

use crate::{
    joining::{Hands, Token, address, admin, credentials, invite, member, speaker, system, wish, with},
    support::{PATIENCE, Running, World, soon},
};
use dora_remote_certs::{
    JoinCredentials, JoinTarget,
    facts::{CertificateKind, facts_of, info_of},
    new_key_and_request, new_seed,
};
use dora_remote_coordinator::{CoordinatorError, IdentitySource, start};
use dora_remote_link::{CallError, CloseCode, JoinDialer};
use dora_remote_protocol::{
    access::{CreateInvite, InviteState, Join, ListIdentities, ListInvites, RevokeInvite},
    cli_to_coordinator::{GetStatus, ListDataflows},
    identity::Role,
    refusal::RefusalCode,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_machine_joins_with_a_token_and_is_on_record() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let admin = admin(&world, running.address, system()).await;
    let wanted = CreateInvite {
        labels: [("team".to_owned(), "arm".to_owned())].into(),
        certificate_life_ms: Some(3_600_000),
        ..wish(Role::Daemon, "robot-7")
    };
    let token = invite(&admin, wanted).await.unwrap();
    let request = new_key_and_request(&token.identity).unwrap();
    let issued = token.join(running.address, system(), request.der()).await.unwrap();

    // The answer got lost: the same key gets the same one, another key gets none.
    let again = token.join(running.address, system(), request.der()).await.unwrap();
    assert_eq!(again, issued);
    let other = new_key_and_request(&token.identity).unwrap();
    let refusal = token.join(running.address, system(), other.der()).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::InviteVoid);
    assert!(
        refusal.message.contains("was used at") && refusal.message.contains("127.0.0.1"),
        "{refusal}"
    );

    let credentials = credentials(&world, request, issued);
    let robot = with(&credentials, running.address, system()).await.unwrap();
    let refusal = robot.ask(Join { request: Vec::new() }).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Denied, "joining is for invites alone");
    let identities = admin.ask(ListIdentities {}).await.unwrap();
    let [ada, seven] = identities.as_slice() else {
        panic!("{identities:?}")
    };
    assert_eq!(ada.identity.role, Role::Admin, "certificates by hand are on record too");
    assert_eq!((ada.connections, seven.connections), (1, 1));
    assert_eq!(seven.labels["team"], "arm");
    assert_eq!(seven.serial, credentials.certificate().serial);
    assert!(seven.seen_unix_ms.is_some() && seven.revoked.is_none());
    let invites = admin.ask(ListInvites {}).await.unwrap();
    let InviteState::Used { serial, .. } = &invites[0].state else {
        panic!("{invites:?}")
    };
    assert_eq!(serial, &seven.serial);
    running.end().await;
}

#[tokio::test]
async fn an_invite_that_is_over_or_taken_back_lets_nobody_in_even_after_a_restart() {
    let world = World::new();
    let hands = Hands::new();
    let config = world.config_under(hands.clone(), "state");
    let running = Running::start(config.clone()).await;
    let ada = admin(&world, running.address, hands.clone()).await;
    let over = invite(&ada, wish(Role::Daemon, "over")).await.unwrap();
    let taken = invite(&ada, wish(Role::Daemon, "taken")).await.unwrap();
    let refusal = invite(&ada, wish(Role::Daemon, "TAKEN")).await.map(|_| ()).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NameTaken);

    // A joiner that hesitates is sent away at once.
    let (waiting, _dialer) = taken.dial(running.address, hands.clone()).await;
    waiting.welcome().await.unwrap();
    let which = "taken".to_owned();
    assert_eq!(ada.ask(RevokeInvite { which }).await.unwrap().len(), 1);
    let end = soon("the end of the connection", waiting.closed()).await;
    assert_eq!(end.code(), Some(CloseCode::Revoked));
    hands.forward(Duration::from_secs(60));

    let say = async |running: &Running, token: &Token| {
        let request = new_key_and_request(&token.identity).unwrap();
        token.join(running.address, hands.clone(), request.der()).await.unwrap_err()
    };
    for (token, words) in [(&over, "ended at"), (&taken, "taken back at")] {
        let refusal = say(&running, token).await;
        assert_eq!(refusal.code, RefusalCode::InviteVoid);
        assert!(refusal.message.contains(words), "{refusal}");
    }
    running.kill();
    let running = Running::start(config).await;
    for (token, words) in [(&over, "ended at"), (&taken, "taken back at")] {
        let refusal = say(&running, token).await;
        assert!(refusal.message.contains(words), "{refusal}");
    }
    running.end().await;
}

#[tokio::test]
async fn a_greedy_request_gets_the_plain_leaf_of_the_invite() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let admin = admin(&world, running.address, system()).await;
    let token = invite(&admin, wish(Role::Viewer, "eve")).await.unwrap();
    let issued = token.join(running.address, system(), GREEDY).await.unwrap();
    let leaf = issued.chain[0].clone().into();
    let info = info_of(&leaf).unwrap();
    assert_eq!(info.kind, CertificateKind::Leaf);
    // Reading it as that of a holder holds it to the profile: one URI, no rights of an authority, a client alone.
    let facts = facts_of(&leaf).unwrap();
    assert_eq!(facts.identity, token.identity);
    let life = facts.not_after.duration_since(facts.not_before).unwrap();
    assert!(life <= Duration::from_secs(30 * 24 * 3600 + 3600), "{life:?}");
    running.end().await;
}

#[tokio::test]
async fn a_thousand_wrong_keys_are_turned_away_while_others_are_served() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let ada = admin(&world, running.address, system()).await;
    let good = invite(&ada, wish(Role::Daemon, "late")).await.unwrap();
    let at = running.address;
    let target = JoinTarget {
        trust_domain: good.identity.trust_domain.clone(),
        root_hash: ada
            .ask(CreateInvite {
                join_key: [7; 32],
                ..wish(Role::Daemon, "b")
            })
            .await
            .unwrap()
            .root_hash,
    };
    let is_over = Arc::new(AtomicBool::new(false));
    let looking = {
        let is_over = Arc::clone(&is_over);
        tokio::spawn(async move {
            let mut answers = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                ada.ask(ListDataflows {}).await.unwrap();
                answers += 1;
            }
            answers
        })
    };
    for _ in 0..1_000 {
        let wrong = JoinCredentials::of(&new_seed().unwrap()).unwrap();
        let dialer = JoinDialer::new(wrong, target.clone(), speaker(), system()).unwrap();
        // With TLS 1.3 the refusal comes with the first answer, if not before.
        if let Ok((peer, _)) = soon("a connection", dialer.dial(&address(at))).await {
            let answer = soon("a refusal", peer.call(&Join { request: Vec::new() }, PATIENCE)).await;
            assert!(matches!(answer, Err(CallError::PeerRefusedUs { .. })), "{answer:?}");
        }
    }
    is_over.store(true, Ordering::Relaxed);
    assert!(soon("the last answer", looking).await.unwrap() > 0);
    let request = new_key_and_request(&good.identity).unwrap();
    good.join(at, system(), request.der()).await.unwrap();
    running.end().await;
}

#[tokio::test]
async fn a_holder_is_replaced_only_by_an_invite_that_says_so() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let first = member(&world, &running, system(), wish(Role::Daemon, "robot")).await;
    let ada = admin(&world, running.address, system()).await;
    let refusal = invite(&ada, wish(Role::Daemon, "Robot")).await.map(|_| ()).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NameTaken);
    let replace = CreateInvite {
        replace: true,
        ..wish(Role::Daemon, "robot")
    };
    let second = member(&world, &running, system(), replace).await;
    assert_ne!(first.certificate().serial, second.certificate().serial);
    let listed = ada.ask(ListIdentities {}).await.unwrap();
    assert_eq!(listed[1].serial, second.certificate().serial);
    running.end().await;
}

#[tokio::test]
async fn a_coordinator_makes_its_own_authority_and_keeps_it() {
    let world = World::new();
    let mut config = world.config("state");
    let source = |trust_domain: &str| IdentitySource::Authority {
        dir: world.path("fresh-authority"),
        name: "main".parse().unwrap(),
        trust_domain: trust_domain.parse().ok(),
    };
    config.identity = source("workshop");
    Running::start(config.clone()).await.end().await;
    let root = std::fs::read(world.path("fresh-authority").join("root.crt")).unwrap();
    Running::start(config.clone()).await.end().await;
    assert_eq!(std::fs::read(world.path("fresh-authority").join("root.crt")).unwrap(), root);
    config.identity = source("elsewhere");
    match start(config, CancellationToken::new()).await {
        Err(CoordinatorError::OtherTrustDomain { has, .. }) => assert_eq!(has.as_str(), "workshop"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_coordinator_without_an_authority_says_so() {
    let world = World::new();
    let mut config = world.config("state");
    let dir = world.path("identity");
    world.credentials(Role::Coordinator, "main").save(&dir, false).unwrap();
    config.identity = IdentitySource::Credentials(dir);
    let running = Running::start(config).await;
    let admin = admin(&world, running.address, system()).await;
    assert!(admin.ask(GetStatus {}).await.unwrap().identity.ends_with("/coordinator/main"));
    let refusal = invite(&admin, wish(Role::Viewer, "eve")).await.map(|_| ()).unwrap_err();
    assert!(
        refusal.code == RefusalCode::WrongState && refusal.message.contains("holds no authority"),
        "{refusal}"
    );
    running.end().await;
}

/// A request (PKCS#10) that asks for a certificate of an authority, of `spiffe://lab/admin/eve` and of a coordinator, and, by a private
/// key usage period, until 2036; made with openssl.
const GREEDY: &[u8] = include_bytes!("greedy.csr");
