//! The rules of machines, with time as the tests want it.

use super::{
    Claim, Judgement, Machines,
    claims::{FORMER, SILENT},
};
use crate::{moment::Moment, view::View};
use dora_remote_protocol::{
    dataflow::Labels,
    ids::{BootId, InstanceId},
    limits::UNREACHABLE_AFTER,
    machine::{EngineStatus, LogShipping, MAX_QUARANTINED, MachineFacts, Restored},
    name::MachineName,
    refusal::RefusalCode,
};
use std::time::{Duration, Instant};
use uuid::Uuid;

#[test]
fn who_may_take_over_at_once() {
    let (mut machines, now) = (Machines::default(), moment());
    let used = || claim("robot", 1, 7);
    assert_eq!(machines.judge(&used(), now), Judgement::TakesOver, "nobody has the name");
    machines.take(used(), now).unwrap();
    let ask = Judgement::AskFirst { connection: 1 };
    let cases = [
        (
            claim("ROBOT", 2, 7),
            Judgement::TakesOver,
            "made before the old one was broken, or started again",
        ),
        (
            Claim {
                counter: 1,
                ..claim("robot", 2, 7)
            },
            ask,
            "not later than the one in use",
        ),
        (
            Claim {
                boot: boot(2),
                ..claim("robot", 2, 7)
            },
            ask,
            "the same disk, started elsewhere or again",
        ),
        (claim("robot", 2, 8), ask, "another state directory"),
        (used(), Judgement::TakesOver, "the connection in use joins once more"),
    ];
    for (claim, wanted, why) in cases {
        assert_eq!(machines.judge(&claim, now), wanted, "{why}");
        let silent = later(now, SILENT);
        assert_eq!(
            machines.judge(&claim, silent),
            Judgement::TakesOver,
            "who is silent is not asked"
        );
    }
    machines.left(&name("robot"), 1);
    assert_eq!(
        machines.judge(&claim("robot", 2, 8), now),
        Judgement::TakesOver,
        "nor who has left"
    );
}

#[test]
fn who_gives_no_sign_of_life_gives_way_until_it_does() {
    let (mut machines, now) = (Machines::default(), moment());
    machines.take(claim("robot", 1, 7), now).unwrap();
    let copy = claim("robot", 2, 8);
    machines.unanswered(&name("robot"));
    assert_eq!(machines.judge(&copy, now), Judgement::TakesOver);
    machines.heard(&name("robot"), 1, None, now).unwrap();
    assert_eq!(machines.judge(&copy, now), Judgement::AskFirst { connection: 1 });
    machines.unanswered(&name("Robot"));
    let taken = machines.take(copy, now).unwrap();
    assert_eq!((taken.superseded, taken.name.as_str()), (Some(1), "robot"));
    assert!(
        machines.heard(&name("robot"), 1, None, now).is_err(),
        "the old connection counts no more"
    );
    assert!(!machines.left(&name("robot"), 1));
    let back = claim("robot", 3, 7);
    assert_eq!(
        machines.judge(&back, now),
        Judgement::AskFirst { connection: 2 },
        "the newcomer is not deaf because the former was"
    );
    assert!(machines.left(&name("robot"), 2));
}

#[test]
fn both_are_named_and_a_copy_is_news_once() {
    let (mut machines, now) = (Machines::default(), moment());
    machines.take(claim("robot", 1, 7), now).unwrap();
    let copy = |connection| Claim {
        boot: boot(2),
        address: format!("192.0.2.9:{connection}"),
        ..claim("robot", connection, 7)
    };
    let first = machines.quarantine(&copy(2), later(now, Duration::from_secs(2)));
    assert!(first.is_news);
    let refusal = first.refusal;
    assert_eq!(refusal.code, RefusalCode::Quarantined);
    let instance = InstanceId(Uuid::from_u128(7)).to_string();
    for told in ["`robot`", "127.0.0.1:1", "192.0.2.9:2", "last heard 2 s ago", &instance] {
        assert!(refusal.message.contains(told), "{told}: {refusal:?}");
    }
    for told in [boot(1), boot(2)].map(|boot| boot.to_string()) {
        assert!(refusal.message.contains(&told), "{told}: {refusal:?}");
    }
    assert!(refusal.hint.contains("invite --role daemon") && refusal.hint.contains("revoke robot"));

    assert!(!machines.quarantine(&copy(3), now).is_news, "its port alone has changed");
    let moved = Claim {
        address: "192.0.2.10:1".to_owned(),
        ..copy(4)
    };
    assert!(machines.quarantine(&moved, now).is_news, "it has moved");
    let seen = machines.quarantined(&name("ROBOT"), now);
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].tries, seen[0].address.as_str(), seen[0].boot),
        (3, "192.0.2.10:1", boot(2))
    );

    let hours = later(now, Duration::from_secs(2 * 3600));
    assert!(machines.quarantined(&name("robot"), hours).is_empty(), "it has given up");
    assert!(machines.quarantine(&copy(5), hours).is_news, "and is back");
    machines.left(&name("robot"), 1);
    machines.take(copy(6), hours).unwrap();
    assert!(
        machines.quarantined(&name("robot"), hours).is_empty(),
        "the copy is what is in use now"
    );
}

#[test]
fn a_herd_of_copies_is_remembered_up_to_its_bound() {
    let (mut machines, now) = (Machines::default(), moment());
    machines.take(claim("robot", 1, 1), now).unwrap();
    let herd = MAX_QUARANTINED as u64 + 2;
    for number in 2..=herd {
        assert!(machines.quarantine(&claim("robot", number, u128::from(number)), now).is_news);
    }
    let seen = machines.quarantined(&name("robot"), now);
    assert_eq!(seen.len(), MAX_QUARANTINED);
    assert_eq!(
        seen.last().map(|twin| twin.instance),
        Some(InstanceId(Uuid::from_u128(u128::from(herd))))
    );
}

#[test]
fn silence_is_told_once_and_ends_with_a_word() {
    let (mut machines, now) = (Machines::default(), moment());
    machines.take(claim("robot", 1, 7), now).unwrap();
    assert!(
        machines
            .tick(later(now, UNREACHABLE_AFTER - Duration::from_secs(1)))
            .is_empty()
    );
    let silent = later(now, UNREACHABLE_AFTER);
    assert_eq!(machines.tick(silent), [(name("robot"), now.unix_ms)]);
    assert!(machines.tick(silent).is_empty());
    assert!(!machines.candidates(&View::default(), silent)[0].is_connected);
    assert!(machines.heard(&name("robot"), 1, None, silent).unwrap());
    assert!(machines.candidates(&View::default(), silent)[0].is_connected);
    machines.left(&name("robot"), 1);
    assert!(
        !machines.candidates(&View::default(), silent)[0].is_connected,
        "nothing can be ordered without a connection"
    );
    assert!(machines.tick(silent).is_empty(), "it may be back at once");
}

#[test]
fn a_return_is_remembered_with_the_silence_before_it() {
    let (mut machines, now) = (Machines::default(), moment());
    let restored = |machines: &Machines| machines.get(&name("robot")).unwrap().restored;
    machines.take(claim("robot", 1, 7), now).unwrap();
    // A connection that is replaced in time is no return.
    machines
        .take(claim("robot", 2, 7), later(now, Duration::from_secs(1)))
        .unwrap();
    assert_eq!(restored(&machines), None);
    let silent = later(now, Duration::from_secs(1) + UNREACHABLE_AFTER);
    machines.tick(silent);
    machines
        .heard(&name("robot"), 2, None, later(silent, Duration::from_secs(4)))
        .unwrap();
    let first = Restored {
        unreachable_since_unix_ms: now.unix_ms + 1_000,
        at_unix_ms: silent.unix_ms + 4_000,
    };
    assert_eq!(restored(&machines), Some(first));
    machines
        .take(claim("robot", 3, 7), later(silent, Duration::from_secs(5)))
        .unwrap();
    assert_eq!(restored(&machines), Some(first), "it stays until the next one");
    let silent = later(silent, Duration::from_secs(5) + UNREACHABLE_AFTER);
    machines.tick(silent);
    machines.take(claim("robot", 4, 7), silent).unwrap();
    assert_eq!(
        restored(&machines).unwrap().at_unix_ms,
        silent.unix_ms,
        "by another connection"
    );
}

#[test]
fn event_numbers_belong_to_an_instance() {
    let (mut machines, now) = (Machines::default(), moment());
    machines.take(claim("robot", 1, 7), now).unwrap();
    machines.applied(&name("robot"), 5);
    assert_eq!(machines.take(claim("robot", 2, 7), now).unwrap().acked_seq, 5);
    let reboot = Claim {
        boot: boot(2),
        ..claim("robot", 3, 7)
    };
    assert_eq!(machines.take(reboot, now).unwrap().acked_seq, 5, "the disk is the same");
    let fewer = Claim {
        last_seq: 3,
        ..claim("robot", 4, 7)
    };
    assert_eq!(
        machines.take(fewer, now).unwrap().acked_seq,
        0,
        "a state that was lost counts anew"
    );
    machines.applied(&name("robot"), 5);
    assert_eq!(machines.take(claim("robot", 5, 8), now).unwrap().acked_seq, 0);
    machines.applied(&name("robot"), 2);
    assert_eq!(
        machines.take(claim("robot", 6, 7), now).unwrap().acked_seq,
        5,
        "nothing of the first is applied twice when it is back"
    );
    let record = machines.get(&name("robot")).unwrap().clone();
    let mut machines = Machines::restored(vec![record], now);
    assert_eq!(machines.take(claim("robot", 1, 8), now).unwrap().acked_seq, 2);
    for other in 9..9 + FORMER as u128 {
        machines.take(claim("robot", 2, other), now).unwrap();
    }
    assert_eq!(machines.get(&name("robot")).unwrap().former.len(), FORMER);
    assert_eq!(
        machines.take(claim("robot", 3, 7), now).unwrap().acked_seq,
        0,
        "long forgotten"
    );
}

#[test]
fn one_that_is_given_up_is_told_once_and_may_be_back() {
    let (mut machines, now) = (Machines::default(), moment());
    machines.take(claim("robot", 1, 7), now).unwrap();
    machines.left(&name("robot"), 1);
    assert_eq!(machines.lose(&name("robot")), Some(now.unix_ms));
    assert_eq!(machines.lose(&name("robot")), None);
    assert!(machines.tick(later(now, UNREACHABLE_AFTER)).is_empty());
    machines.take(claim("robot", 2, 7), now).unwrap();
    assert_eq!(machines.lose(&name("robot")), Some(now.unix_ms));
}

fn moment() -> Moment {
    Moment {
        steady: Instant::now(),
        unix_ms: 1_000_000,
    }
}

fn later(now: Moment, time: Duration) -> Moment {
    Moment {
        steady: now.steady + time,
        unix_ms: now.unix_ms + time.as_millis() as u64,
    }
}

fn boot(number: u128) -> BootId {
    BootId(Uuid::from_u128(number))
}

fn name(text: &str) -> MachineName {
    text.parse().unwrap()
}

fn claim(text: &str, connection: u64, instance: u128) -> Claim {
    Claim {
        name: name(text),
        connection,
        instance: InstanceId(Uuid::from_u128(instance)),
        boot: boot(1),
        counter: connection,
        facts: MachineFacts {
            labels: Labels::new(),
            build: "0.1.0".to_owned(),
            platform: "linux x86_64".to_owned(),
            engine: EngineStatus::Starting,
            logs: LogShipping::Always,
        },
        address: "127.0.0.1:1".to_owned(),
        last_seq: 5,
    }
}
