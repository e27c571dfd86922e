//! The rules about invites, joining, renewal, recovery and revocation, without a disk and without a clock.

use super::{
    Registry, RenewAsk,
    renewals::{MAX_RECOVERIES, RECOVERY_PERIOD_MS},
    samples::{Asks, asked, done, identity, registry, revocation},
};
use crate::{moment::Moment, view::Scope};
use dora_remote_certs::{BACKDATE, CertificateFacts};
use dora_remote_protocol::{
    access::{
        CreateInvite, INVITE_MEMORY_MS, InviteState, MAX_CERTIFICATE_LIFE_MS, MAX_INVITE_LIFE_MS, MAX_REASON_BYTES, Revoke,
        RevokeTarget,
    },
    dataflow::Labels,
    identity::Identity,
    refusal::RefusalCode,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

const NOW: u64 = 1_000_000_000;

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
fn renewal_follows_the_record_and_is_bounded() {
    let mut registry = registry();
    arrive(&mut registry, &facts("operator", "ci", "77", NOW));
    let now = Moment {
        steady: Instant::now(),
        unix_ms: NOW,
    };
    let ask = ask("operator", "ci", "77", false);
    let decided = registry.renew(&ask, &Asks::with("aa", NOW), now);
    let issued = done(&mut registry, decided);
    assert_eq!(issued.not_after_unix_ms, NOW + 3_600_000, "an hour by hand stays an hour");
    let (delta, again) = registry.renew(&ask, &Asks::with("aa", NOW), now).unwrap();
    assert!(delta.is_empty() && again == issued, "a lost answer is given again");
    let refusal = loop {
        match registry.renew(&ask, &Asks::with("bb", NOW), now) {
            Ok((delta, _)) => registry.apply(delta),
            Err(refusal) => break refusal,
        }
    };
    assert!(
        refusal.code == RefusalCode::LimitReached && refusal.message.contains("ms"),
        "{refusal}"
    );
    let (delta, ..) = registry.revoke("ann", &revoke(None, "ci"), NOW).unwrap();
    registry.apply(delta);
    let later = Moment {
        steady: now.steady + Duration::from_secs(60),
        ..now
    };
    let refusal = registry.renew(&ask, &Asks::with("cc", NOW), later).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Denied);
}

#[test]
fn a_lapsed_daemon_recovers_with_its_own_key_a_few_times_a_day_and_not_after_a_restore() {
    let mut registry = registry();
    arrive(&mut registry, &facts("daemon", "a", "77", NOW));
    let steady = Instant::now();
    let at = |hours: u64| Moment {
        steady: steady + Duration::from_secs(hours * 3_600),
        unix_ms: NOW + hours * 3_600_000,
    };
    let stranger = registry
        .renew(&ask("daemon", "a", "66", true), &Asks::with("aa", NOW), at(0))
        .unwrap_err();
    assert!(
        stranger.code == RefusalCode::Denied && stranger.message.contains("on record"),
        "{stranger}"
    );
    let unknown = registry
        .renew(&ask("daemon", "b", "77", true), &Asks::with("aa", NOW), at(0))
        .unwrap_err();
    assert_eq!(unknown.code, RefusalCode::Denied);

    // The new certificate was never seen in use, so the old one still counts.
    for hour in 0..u64::try_from(MAX_RECOVERIES).unwrap() {
        let decided = registry.renew(&ask("daemon", "a", "77", true), &Asks::with("aa", NOW + hour), at(hour * 7));
        done(&mut registry, decided);
    }
    let refusal = registry
        .renew(&ask("daemon", "a", "77", true), &Asks::with("dd", NOW), at(21))
        .unwrap_err();
    assert!(
        refusal.code == RefusalCode::LimitReached && refusal.message.contains("within a day"),
        "{refusal}"
    );
    assert_eq!(registry.identities(&BTreeMap::new())[0].recoveries, 3);
    let day = RECOVERY_PERIOD_MS / 3_600_000;
    let decided = registry.renew(&ask("daemon", "a", "77", true), &Asks::with("ee", NOW), at(day));
    done(&mut registry, decided);

    let (delta, found) = registry.found_restored("daemon `a` has seen more", Vec::new(), NOW);
    assert!(found.is_new);
    registry.apply(delta);
    let refusal = registry
        .renew(&ask("daemon", "a", "77", true), &Asks::with("ff", NOW), at(9 * day))
        .unwrap_err();
    assert!(
        refusal.code == RefusalCode::WrongState && refusal.hint.contains("coordinator accept-restore"),
        "{refusal:?}"
    );
    let (delta, accepted) = registry.accept_restore();
    assert_eq!(accepted.restored.as_deref(), Some("daemon `a` has seen more"));
    registry.apply(delta);
    let decided = registry.renew(&ask("daemon", "a", "77", true), &Asks::with("ff", NOW), at(9 * day));
    done(&mut registry, decided);
    assert_eq!(registry.accept_restore().1.restored, None);
}

#[test]
fn the_old_certificate_is_given_up_once_the_new_one_is_seen() {
    let mut registry = registry();
    arrive(&mut registry, &facts("daemon", "a", "77", NOW));
    let now = Moment {
        steady: Instant::now(),
        unix_ms: NOW,
    };
    let decided = registry.renew(&ask("daemon", "a", "77", false), &Asks::with("aa", NOW), now);
    done(&mut registry, decided);
    arrive(&mut registry, &facts("daemon", "a", "aa01", NOW));
    let refusal = registry
        .renew(&ask("daemon", "a", "77", true), &Asks::with("bb", NOW), now)
        .unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Denied);
    // Nor does it count again when it comes once more, as one that is issued by hand later does.
    arrive(&mut registry, &facts("daemon", "a", "77", NOW - 5_000));
    assert_eq!(registry.identities(&BTreeMap::new())[0].serial, "aa01");
    arrive(&mut registry, &facts("daemon", "a", "88", NOW + 5_000));
    assert_eq!(registry.identities(&BTreeMap::new())[0].serial, "88");
}

#[test]
fn a_restore_voids_open_invites_once_and_brings_revocations_back() {
    let mut registry = registry();
    for (name, key) in [("a", 1), ("b", 2)] {
        let decided = registry.create_invite("ann", &asked("daemon", name, key), NOW);
        done(&mut registry, decided);
    }
    let decided = registry.join(&[1; 32], "", &Asks::with("aa", NOW), NOW);
    done(&mut registry, decided);
    let forgotten = vec![revocation("daemon", "lost"), revocation("daemon", "lost")];
    let (delta, found) = registry.found_restored("a test", forgotten, NOW);
    assert_eq!((found.is_new, found.voided_invites, found.merged_revocations), (true, 1, 1));
    registry.apply(delta);
    assert!(registry.restored.is_some());
    let refusal = registry.join(&[2; 32], "", &Asks::with("aa", NOW), NOW).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::InviteVoid);
    let refusal = registry.join(&[1; 32], "", &Asks::with("bb", NOW), NOW).unwrap_err();
    assert!(refusal.message.contains("was used at"), "a used invite stays void: {refusal}");

    // Whom an admin invites now was not forgotten.
    let decided = registry.create_invite("ann", &asked("daemon", "c", 3), NOW);
    done(&mut registry, decided);
    let (delta, found) = registry.found_restored("again", vec![revocation("daemon", "lost")], NOW);
    assert!(delta.is_empty() && !found.is_new && found.merged_revocations == 0);
}

#[test]
fn a_name_is_revoked_by_itself_when_one_role_has_it() {
    let mut registry = registry();
    for (role, name, key) in [("daemon", "x", 1), ("viewer", "x", 2), ("admin", "ann", 3)] {
        let decided = registry.create_invite("ann", &asked(role, name, key), NOW);
        done(&mut registry, decided);
        let decided = registry.join(&[key; 32], "", &Asks::with("aa", NOW), NOW);
        done(&mut registry, decided);
    }
    let refusal = registry.revoke("ann", &revoke(None, "x"), NOW).unwrap_err();
    assert!(refusal.message.contains("viewer/x, daemon/x"), "{refusal}");
    assert_eq!(
        registry.revoke("ann", &revoke(None, "nobody"), NOW).unwrap_err().code,
        RefusalCode::NotFound
    );
    for bad in [
        revoke(Some("coordinator"), "c"),
        Revoke {
            target: RevokeTarget::Serial("xyz".to_owned()),
            reason: String::new(),
        },
        Revoke {
            reason: "x".repeat(MAX_REASON_BYTES + 1),
            ..revoke(Some("daemon"), "x")
        },
    ] {
        assert_eq!(registry.revoke("ann", &bad, NOW).unwrap_err().code, RefusalCode::BadRequest);
    }
    let (delta, revocation, _) = registry.revoke("bob", &revoke(None, "ann"), NOW).unwrap();
    assert!(revocation.reason.contains("the last admin on record"), "{revocation:?}");
    registry.apply(delta);
    let (delta, again, is_new) = registry.revoke("eve", &revoke(Some("admin"), "ANN"), NOW + 1).unwrap();
    assert!(delta.is_empty() && !is_new && again == revocation);
    let listed = registry.identities(&BTreeMap::new());
    assert_eq!(listed[0].revoked.as_ref(), Some(&revocation));
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

fn revoke(role: Option<&str>, name: &str) -> Revoke {
    Revoke {
        target: RevokeTarget::Holder {
            role: role.map(|role| role.parse().unwrap()),
            name: name.parse().unwrap(),
        },
        reason: "stolen".to_owned(),
    }
}

fn ask(role: &str, name: &str, serial: &str, has_lapsed: bool) -> RenewAsk {
    RenewAsk {
        identity: identity(role, name),
        serial: serial.to_owned(),
        has_lapsed,
    }
}

/// A certificate of an hour.
fn facts(role: &str, name: &str, serial: &str, made_unix_ms: u64) -> CertificateFacts {
    let made = SystemTime::UNIX_EPOCH + Duration::from_millis(made_unix_ms);
    let identity: Identity = identity(role, name);
    CertificateFacts {
        identity,
        serial: serial.to_owned(),
        not_before: made - BACKDATE,
        not_after: made + Duration::from_secs(3_600),
        fingerprint: String::new(),
    }
}

fn arrive(registry: &mut Registry, facts: &CertificateFacts) {
    let arrived = registry.arrived(facts, NOW).unwrap();
    registry.apply(arrived.delta);
}
