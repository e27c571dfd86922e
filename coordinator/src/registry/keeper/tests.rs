//! The thread with a real authority and a real file: what is answered is on the disk and at the door.

use super::*;
use crate::registry::{Rules, samples::asked};
use dora_remote_certs::{Admit, JoinCredentials, SystemClock, admit, new_key_and_request, sha256};
use dora_remote_protocol::{
    access::{InviteState, RevokeTarget},
    invite::InviteSeed,
};
use std::path::Path;

#[tokio::test]
async fn what_is_answered_is_at_the_door_and_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Arc::new(Authority::init(&dir.path().join("authority"), &"lab".parse().unwrap(), SystemTime::now()).unwrap());
    let path = dir.path().join("access.redb");
    let handle = open(&path, &authority);
    let joiner = JoinCredentials::of(&InviteSeed([7; 32])).unwrap();
    let wish = CreateInvite {
        join_key: joiner.join_key().0,
        ..asked("daemon", "a", 0)
    };
    let invited = || {
        let chain = [joiner.certificate().clone()];
        matches!(
            admit(&chain, SystemTime::now(), &handle.admission().snapshot()),
            Admit::JoinOnly(..)
        )
    };
    assert!(!invited());
    let created = handle.create_invite("ann".to_owned(), wish).await.unwrap();
    assert!(invited());
    let request = new_key_and_request(&created.identity).unwrap();
    let from = "192.0.2.7:5".to_owned();
    let issued = handle.join(joiner.join_key(), from, request.der().to_vec()).await.unwrap();
    let chain: Vec<_> = issued.chain.into_iter().map(Into::into).collect();
    let door = |handle: &RegistryHandle| admit(&chain, SystemTime::now(), &handle.admission().snapshot());
    assert!(matches!(door(&handle), Admit::Full(_)));
    let revoke = Revoke {
        target: RevokeTarget::Holder {
            role: None,
            name: "A".parse().unwrap(),
        },
        reason: String::new(),
    };
    let changes = handle.changes();
    handle.revoke("ann".to_owned(), revoke).await.unwrap();
    assert!(changes.has_changed().unwrap() && matches!(door(&handle), Admit::No(_)));
    drop(handle);

    let handle = open(&path, &authority);
    assert!(matches!(door(&handle), Admit::No(_)));
    let invites = handle.list_invites().await.unwrap();
    assert!(matches!(invites[0].state, InviteState::Used { .. }));
    assert_eq!(handle.identities().await.unwrap()[0].identity, created.identity);
}

#[tokio::test]
async fn a_restore_that_is_found_out_stops_recoveries_until_it_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Arc::new(Authority::init(&dir.path().join("authority"), &"lab".parse().unwrap(), SystemTime::now()).unwrap());
    let path = dir.path().join("access.redb");
    let handle = open(&path, &authority);
    handle
        .create_invite("ann".to_owned(), asked("daemon", "open", 1))
        .await
        .unwrap();
    let identity: Identity = "spiffe://lab/daemon/a".parse().unwrap();
    let credentials = authority
        .issue(&identity, Duration::from_secs(60), SystemTime::now())
        .unwrap();
    handle.arrived(credentials.certificate());
    let lapsed = RenewAsk {
        identity: identity.clone(),
        serial: credentials.certificate().serial.clone(),
        has_lapsed: true,
    };
    let found = handle
        .found_restored("`a` has seen more".to_owned(), Vec::new())
        .await
        .unwrap();
    assert!(found.is_new && found.voided_invites == 1);
    let request = || new_key_and_request(&identity).unwrap().der().to_vec();
    let refusal = handle.renew(lapsed.clone(), 0, request()).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::WrongState, "{refusal}");
    drop(handle);

    let handle = open(&path, &authority);
    let refusal = handle.renew(lapsed.clone(), 0, request()).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::WrongState, "not after a restart either: {refusal}");
    assert_eq!(handle.accept_restore().await.unwrap().voided_invites, 1);
    handle.renew(lapsed, 0, request()).await.unwrap();
    assert_eq!(handle.identities().await.unwrap()[0].recoveries, 1);
}

fn open(path: &Path, authority: &Arc<Authority>) -> RegistryHandle {
    let (file, stored) = AccessFile::open(path).unwrap();
    let name: Identity = "spiffe://lab/coordinator/c".parse().unwrap();
    let own = authority.issue(&name, Duration::from_secs(3_600), SystemTime::now()).unwrap();
    let rules = Rules {
        trust_domain: authority.trust_domain().clone(),
        root_hash: sha256(authority.root()),
        addresses: Vec::new(),
        lives: crate::config::Lives::default(),
        can_issue: true,
    };
    start(KeeperParts {
        file,
        epoch: stored.epoch,
        registry: Registry::new(rules, stored),
        base: AdmissionSnapshot::of(&own).unwrap(),
        authority: Some(Arc::clone(authority)),
        clock: Arc::new(SystemClock),
        roster: Roster::default(),
        view: ViewHandle::default(),
    })
    .unwrap()
}
