//! Invites: who may get one, for what, and that each is used once.

use super::{NOW, arrive, facts, revoke};
use crate::{
    registry::{
        Registry,
        samples::{Asks, asked, done, identity, registry},
    },
    view::Scope,
};
use dora_remote_protocol::{
    access::{CreateInvite, INVITE_MEMORY_MS, InviteState, MAX_CERTIFICATE_LIFE_MS, MAX_INVITE_LIFE_MS},
    dataflow::Labels,
    refusal::RefusalCode,
};
use std::collections::BTreeMap;

#[test]
fn an_invite_is_used_once_and_each_who_comes_late_hears_why() {
    let mut registry = registry();
    let decided = registry.create_invite("ann", &asked("daemon", "robot-7", 1), NOW);
    let created = done(&mut registry, decided);
    assert_eq!(created.identity, identity("daemon", "robot-7"));
    assert_eq!((created.expires_unix_ms, created.addresses.len()), (NOW + 60_000, 1));

    let asks = Asks::with("aa", NOW + 1);
    let decided = registry.join(&[1; 32], "192.0.2.7:5", &asks, NOW + 1);
    let issued = done(&mut registry, decided);
    let (delta, again) = registry
        .join(&[1; 32], "192.0.2.8:5", &Asks::with("aa", NOW + 2), NOW + 2)
        .unwrap();
    assert!(delta.is_empty() && again == issued, "a lost answer is given again");

    let refusal = registry
        .join(&[1; 32], "192.0.2.9:5", &Asks::with("bb", NOW + 3), NOW + 3)
        .unwrap_err();
    assert_eq!(refusal.code, RefusalCode::InviteVoid);
    assert!(
        refusal
            .message
            .contains("was used at 1970-01-12 13:46:40 UTC from 192.0.2.7:5"),
        "{refusal}"
    );
    assert_eq!(asks.issued.get(), 1);
    assert!(matches!(registry.list_invites(NOW)[0].state, InviteState::Used { .. }));

    let forgotten = registry.tidy(NOW + 1 + INVITE_MEMORY_MS);
    registry.apply(forgotten);
    let refusal = registry.join(&[1; 32], "", &Asks::with("aa", NOW), NOW).unwrap_err();
    assert!(refusal.message.contains("not known"), "{refusal}");
}

#[test]
fn an_ended_and_a_revoked_invite_say_so_and_a_bad_request_uses_none() {
    let mut registry = registry();
    for (name, key) in [("a", 1), ("b", 2), ("c", 3)] {
        let decided = registry.create_invite("ann", &asked("daemon", name, key), NOW);
        done(&mut registry, decided);
    }
    let refusal = registry.join(&[1; 32], "", &Asks::with("aa", NOW), NOW + 60_000).unwrap_err();
    assert!(
        refusal.code == RefusalCode::InviteVoid && refusal.message.contains("ended at"),
        "{refusal}"
    );
    let id = registry
        .list_invites(NOW)
        .into_iter()
        .find(|it| it.identity.name.as_str() == "b")
        .unwrap()
        .id;
    let decided = registry.revoke_invite("bob", &id.to_uppercase(), NOW);
    assert_eq!(done(&mut registry, decided).len(), 1);
    let refusal = registry.join(&[2; 32], "", &Asks::with("aa", NOW), NOW).unwrap_err();
    assert!(
        refusal.code == RefusalCode::InviteVoid && refusal.message.contains("taken back"),
        "{refusal}"
    );
    assert_eq!(
        registry.revoke_invite("bob", "b", NOW).unwrap_err().code,
        RefusalCode::WrongState
    );
    assert_eq!(
        registry.revoke_invite("bob", "nobody", NOW).unwrap_err().code,
        RefusalCode::NotFound
    );

    let refusal = registry.join(&[3; 32], "", &Asks::with("", NOW), NOW).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::BadRequest);
    let decided = registry.join(&[3; 32], "", &Asks::with("aa", NOW), NOW);
    done(&mut registry, decided);
}

#[test]
fn names_are_unique_ignoring_case_and_revoked_ones_are_never_given_again() {
    let mut registry = registry();
    let decided = registry.create_invite("ann", &asked("daemon", "Robot", 1), NOW);
    done(&mut registry, decided);
    let (delta, _) = registry.create_invite("ann", &asked("daemon", "Robot", 1), NOW + 5).unwrap();
    assert!(delta.is_empty(), "asking again for the same invite changes nothing");
    let taken = |registry: &Registry, name: &str, key: u8, replace: bool| {
        let request = CreateInvite {
            replace,
            ..asked("daemon", name, key)
        };
        registry.create_invite("ann", &request, NOW).map(|(_, created)| created)
    };
    let refusal = taken(&registry, "rOBOT", 2, false).unwrap_err();
    assert!(
        refusal.code == RefusalCode::NameTaken && refusal.message.contains("open already"),
        "{refusal}"
    );
    let decided = registry.join(&[1; 32], "", &Asks::with("aa", NOW), NOW);
    done(&mut registry, decided);
    assert_eq!(taken(&registry, "Robot", 2, false).unwrap_err().code, RefusalCode::NameTaken);
    assert_eq!(taken(&registry, "rOBOT", 2, true).unwrap_err().code, RefusalCode::NameTaken);
    taken(&registry, "Robot", 2, true).unwrap();
    let decided = registry.create_invite("ann", &asked("viewer", "Robot", 3), NOW);
    done(&mut registry, decided);

    let (delta, revocation, is_new) = registry.revoke("ann", &revoke(Some("daemon"), "robot"), NOW).unwrap();
    assert!(is_new && revocation.target.to_string() == "daemon/Robot", "{revocation:?}");
    registry.apply(delta);
    let refusal = taken(&registry, "robot", 4, true).unwrap_err();
    assert!(
        refusal.code == RefusalCode::NameTaken && refusal.message.contains("never given again"),
        "{refusal}"
    );
}

#[test]
fn what_no_invite_may_say_is_refused() {
    let registry = registry();
    let labels: Labels = [("team".to_owned(), "arm".to_owned())].into();
    let good = asked("daemon", "a", 1);
    for (why, request) in [
        ("a coordinator", asked("coordinator", "a", 1)),
        (
            "labels of a person",
            CreateInvite {
                labels: labels.clone(),
                ..asked("operator", "a", 1)
            },
        ),
        (
            "a limit of a daemon",
            CreateInvite {
                machines: labels,
                ..good.clone()
            },
        ),
        (
            "too long",
            CreateInvite {
                life_ms: MAX_INVITE_LIFE_MS + 1,
                ..good.clone()
            },
        ),
        (
            "too short",
            CreateInvite {
                life_ms: 0,
                ..good.clone()
            },
        ),
        (
            "a decade",
            CreateInvite {
                certificate_life_ms: Some(MAX_CERTIFICATE_LIFE_MS + 1),
                ..good.clone()
            },
        ),
        (
            "too many labels",
            CreateInvite {
                labels: (0..65).map(|number| (number.to_string(), String::new())).collect(),
                ..good.clone()
            },
        ),
    ] {
        assert_eq!(
            registry.create_invite("ann", &request, NOW).unwrap_err().code,
            RefusalCode::BadRequest,
            "{why}"
        );
    }
    let decided = registry.create_invite("ann", &good, NOW);
    assert!(decided.is_ok());
}

#[test]
fn records_of_invited_machines_and_operators_are_seen_and_others_say_nothing() {
    let mut registry = registry();
    let labels: Labels = [("team".to_owned(), "arm".to_owned())].into();
    let machine = CreateInvite {
        labels: labels.clone(),
        ..asked("daemon", "a", 1)
    };
    let person = CreateInvite {
        machines: labels.clone(),
        ..asked("operator", "olga", 2)
    };
    for (request, key) in [(machine, 1), (person, 2)] {
        let decided = registry.create_invite("ann", &request, NOW);
        done(&mut registry, decided);
        let decided = registry.join(&[key; 32], "", &Asks::with("aa", NOW), NOW);
        done(&mut registry, decided);
    }
    arrive(&mut registry, &facts("daemon", "by-hand", "77", NOW));
    let view = registry.view();
    assert_eq!(view.labels_of(&"A".parse().unwrap()), Some(&labels));
    assert_eq!(view.labels_of(&"by-hand".parse().unwrap()), None);
    assert_eq!(view.scope_of(Some(&identity("operator", "olga"))), Scope::Machines(labels));
    assert_eq!(registry.identities(&BTreeMap::new()).len(), 3);
}

#[test]
fn without_an_authority_nobody_is_invited() {
    let mut registry = registry();
    registry.rules.can_issue = false;
    let refusal = registry.create_invite("ann", &asked("daemon", "a", 1), NOW).unwrap_err();
    assert!(
        refusal.code == RefusalCode::WrongState && refusal.message.contains("holds no authority"),
        "{refusal}"
    );
}
