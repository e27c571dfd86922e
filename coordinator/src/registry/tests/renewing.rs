//! Renewals, and the recovery of daemons whose certificate has lapsed.

use super::{NOW, arrive, facts, revoke};
use crate::{
    moment::Moment,
    registry::{
        RenewAsk,
        renewals::{MAX_RECOVERIES, RECOVERY_PERIOD_MS},
        samples::{Asks, done, identity, registry},
    },
};
use dora_remote_protocol::refusal::RefusalCode;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

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

fn ask(role: &str, name: &str, serial: &str, has_lapsed: bool) -> RenewAsk {
    RenewAsk {
        identity: identity(role, name),
        serial: serial.to_owned(),
        has_lapsed,
    }
}
