//! The audit: what stands in it, who may follow it, and how it is found out that somebody has changed it.

use crate::{
    joining::{admin, system},
    support::{Daemon, Memory, Ordered, Person, Running, World, next, soon, start_running, stop},
    witness::{Robot, anchor, entry, everything, judge, read},
};
use dora_remote_protocol::{
    audit::{AuditEntry, ReadAudit, chain::Chain, verify::Fault},
    cli_to_coordinator::{GetStatus, ListDataflows, ListMachines},
    identity::Role,
    ids::InstanceId,
    refusal::RefusalCode,
};
use redb::{Database, ReadableTable, TableDefinition};
use uuid::Uuid;

#[tokio::test]
async fn what_was_done_and_what_was_refused_is_on_record_over_restarts() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let mut daemon = Daemon::join(&world, running.address, "a", &Memory::new()).await;
    let ann = world.person(running.address).await;
    let ada = admin(&world, running.address, system()).await;
    let eve = viewer(&world, running.address).await;
    let id = start_running(&ann, &mut daemon, 1).await;
    ann.ask(ListDataflows {}).await.unwrap();
    ann.ask(ListMachines {}).await.unwrap();
    ann.ask(GetStatus {}).await.unwrap();

    let mut follow = ada
        .peer
        .feed(
            &ReadAudit {
                follow: true,
                ..everything()
            },
            None,
        )
        .await
        .unwrap();
    anchor(&mut follow).await;
    let joined = entry(next(&mut follow).await.unwrap().unwrap());
    assert_eq!((joined.verb.as_str(), joined.target.as_str()), ("join-machine", "a"));
    let started = entry(next(&mut follow).await.unwrap().unwrap());
    assert_eq!(
        (started.verb.as_str(), started.result.as_str(), started.target.as_str()),
        ("start", "ok", id.to_string().as_str())
    );
    assert!(started.who.ends_with("/operator/ann") && !started.serial.is_empty() && started.from.starts_with("127.0.0.1:"));

    // Refused by role, before a handler saw it; and by a handler.
    assert_eq!(eve.ask(stop("flow")).await.unwrap_err().code, RefusalCode::Denied);
    let denied = entry(next(&mut follow).await.unwrap().unwrap());
    assert_eq!((denied.verb.as_str(), denied.result.as_str()), ("stop", "denied"));
    assert!(
        denied.who.ends_with("/viewer/eve") && denied.detail.contains("viewer"),
        "{denied:?}"
    );
    assert_eq!(ann.ask(stop("other")).await.unwrap_err().code, RefusalCode::NotFound);
    let unknown = entry(next(&mut follow).await.unwrap().unwrap());
    assert_eq!((unknown.result.as_str(), unknown.target.as_str()), ("not-found", "other"));

    let daemon_side = async {
        assert_eq!(daemon.order().await, Ordered::Stop { force: false });
        daemon.finished(id).await;
        daemon
            .happened(id, dora_remote_protocol::machine::Lifecycle::LogsShipped)
            .await;
    };
    let (stopped, ()) = soon("the stop", async { tokio::join!(ann.ask(stop("flow")), daemon_side) }).await;
    stopped.unwrap();
    let stopped = entry(next(&mut follow).await.unwrap().unwrap());
    assert_eq!((stopped.verb.as_str(), stopped.result.as_str()), ("stop", "ok"));

    let filtered = ReadAudit {
        who: Some("EVE".to_owned()),
        ..everything()
    };
    assert_eq!(read(&ada, &filtered).await.1, [denied]);
    let (_, before) = read(&ada, &everything()).await;
    assert_eq!(before.len(), 5, "looking is not recorded: {before:?}");
    running.kill();

    let running = Running::start(world.config("state")).await;
    let ada = admin(&world, running.address, system()).await;
    let eve = viewer(&world, running.address).await;
    eve.ask(stop("flow")).await.unwrap_err();
    let seen = soon("the entry", async {
        loop {
            let (_, entries) = read(&ada, &everything()).await;
            if entries.len() > before.len() {
                return entries;
            }
        }
    })
    .await;
    assert_eq!(seen[..before.len()], before, "the chain goes on where it ended");
    let verdict = judge(&ada, &world.credentials(Role::Admin, "ada")).await;
    assert!(verdict.is_intact() && verdict.proven_to == 0, "{verdict:?}");
    running.end().await;
}

#[tokio::test]
async fn only_admins_read_the_audit() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let ann = world.person(running.address).await;
    let mut feed = ann.peer.feed(&everything(), None).await.unwrap();
    assert_eq!(next(&mut feed).await.unwrap_err().code, RefusalCode::Denied);
    running.end().await;
}

#[tokio::test]
async fn a_tail_of_ten_that_was_cut_off_is_found_with_a_daemon_as_witness() {
    let world = World::new();
    let robot = Robot::new();
    let trusted = world.credentials(Role::Admin, "ada");
    let running = Running::start(world.config("state")).await;
    let connected = robot.join(&world, running.address, true).await;
    let ada = admin(&world, running.address, system()).await;
    let ann = world.person(running.address).await;
    for number in 0..20 {
        ann.ask(stop(&format!("flow-{number}"))).await.unwrap_err();
    }
    robot
        .keeps("the end of the chain", |kept| {
            kept.heads.last().is_some_and(|it| it.head.count == 21)
        })
        .await;
    let verdict = judge(&ada, &trusted).await;
    assert!(verdict.is_intact() && verdict.proven_to == 21, "{verdict:?}");
    drop(connected);
    running.end().await;

    cut_tail(&world, 10);
    let running = Running::start(world.config("state")).await;
    let ada = admin(&world, running.address, system()).await;
    let verdict = judge(&ada, &trusted).await;
    assert!(verdict.is_intact(), "nobody who was there is back");
    assert!(
        verdict.cannot_prove()[0].contains("no daemon confirms"),
        "{:?}",
        verdict.cannot_prove()
    );
    let connected = robot.join(&world, running.address, false).await;
    let verdict = judge(&ada, &trusted).await;
    assert!(!verdict.is_intact() && !verdict.may_be_a_restore());
    assert!(
        matches!(&verdict.faults[0], Fault::Cut { witnessed, last_seq: 11, .. } if witnessed.head.count == 21),
        "{verdict:?}"
    );

    // The coordinator finds it out too, once the daemon says what it has seen; and once is enough.
    connected.peer.close(dora_remote_link::CloseCode::Done, "");
    let connected = robot.join(&world, running.address, true).await;
    let found = ReadAudit {
        verb: Some("found-restored".to_owned()),
        ..everything()
    };
    let (_, entries) = read(&ada, &found).await;
    assert_eq!((entries.len(), entries[0].who.as_str()), (1, "coordinator"));
    assert!(entries[0].target.contains("21 entries"), "{entries:?}");
    connected.peer.close(dora_remote_link::CloseCode::Done, "");
    robot.join(&world, running.address, true).await;
    assert_eq!(read(&ada, &found).await.1.len(), 1);
    running.end().await;
}

/// Cuts off the newest entries, and makes the file say that they never were.
fn cut_tail(world: &World, count: u64) {
    const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
    const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
    const HASHES: TableDefinition<'_, &str, [u8; 32]> = TableDefinition::new("hashes");
    let db = Database::create(world.path("state").join("audit.redb")).unwrap();
    let transaction = db.begin_write().unwrap();
    {
        let mut rows = transaction.open_table(ENTRIES).unwrap();
        for _ in 0..count {
            rows.pop_last().unwrap().unwrap();
        }
        let last: AuditEntry = postcard::from_bytes(rows.last().unwrap().unwrap().1.value()).unwrap();
        let end = Chain::ending(last.seq, last.hash);
        transaction.open_table(META).unwrap().insert("head", end.last_seq()).unwrap();
        transaction.open_table(HASHES).unwrap().insert("head", end.hash()).unwrap();
    }
    transaction.commit().unwrap();
}

async fn viewer(world: &World, at: std::net::SocketAddr) -> Person {
    let dialer = world.dialer(Role::Viewer, "eve", InstanceId(Uuid::new_v4()));
    let peer = soon("a connection", dialer.dial(&crate::joining::address(at))).await.unwrap();
    Person::of(peer, dialer)
}
