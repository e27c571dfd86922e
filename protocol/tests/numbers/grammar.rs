//! Roles, refusals, and the frames of answers and feeds.

use crate::{no, pinned};
use dora_remote_protocol::{
    hello::{HelloAnswer, Welcome},
    identity::Role,
    refusal::{Changed, RefusalCode},
    request::{Answer, FeedFrame, Priority},
    version::Version,
};

#[test]
fn roles() {
    for (role, index) in Role::ALL.iter().zip(0..) {
        pinned(role, index);
        assert_eq!(*role as u8, index);
    }
    assert_eq!(Role::ALL.len(), 5);
}

#[test]
fn refusals() {
    let numbers: Vec<u16> = RefusalCode::ALL.iter().map(|code| u16::from(*code)).collect();
    assert_eq!(numbers, (1..=26).collect::<Vec<u16>>());
    let texts: Vec<&str> = RefusalCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(
        texts,
        [
            "denied",
            "unknown-verb",
            "bad-request",
            "version-mismatch",
            "not-found",
            "name-taken",
            "unknown-machine",
            "machine-unreachable",
            "no-machine-with-labels",
            "placement-ambiguous",
            "bad-descriptor",
            "bad-bundle",
            "not-prepared",
            "spawn-failed",
            "deadline-exceeded",
            "busy",
            "shutting-down",
            "superseded",
            "wrong-state",
            "internal",
            "engine-down",
            "certificate-lapsed",
            "invite-void",
            "forbidden-by-machine",
            "quarantined",
            "limit-reached",
        ]
    );
    pinned(&Changed::Nothing, 0);
    pinned(&Changed::Partly, 1);
    pinned(&Changed::Unknown, 2);
}

#[test]
fn grammar() {
    pinned(&Answer::Reply(()), 0);
    pinned(&Answer::<()>::Refusal(no()), 1);
    pinned(&FeedFrame::Item(()), 0);
    pinned(&FeedFrame::<()>::Idle, 1);
    pinned(&FeedFrame::<()>::End, 2);
    pinned(&FeedFrame::<()>::Refusal(no()), 3);
    pinned(
        &HelloAnswer::Welcome(Welcome {
            version: Version(1),
            build: String::new(),
            features: vec![],
            role: Role::Admin,
            time_unix_ms: 0,
            store_epoch: 0,
        }),
        0,
    );
    pinned(&HelloAnswer::Refusal(no()), 1);
    let order = [
        Priority::Bundle,
        Priority::Logs,
        Priority::Event,
        Priority::Command,
        Priority::Safety,
    ];
    assert!(order.is_sorted(), "stop goes before everything else");
}
