//! Two machines with one identity: who takes over at once, who waits, and who is refused.

use crate::{
    joining::{admin, system},
    support::{Daemon, Memory, PATIENCE, Person, Running, World, next, soon, start_running, stop_running},
};
use dora_remote_link::{CloseCode, Peer};
use dora_remote_protocol::{
    audit::{AuditItem, ReadAudit},
    cli_to_coordinator::{ListMachines, StopDataflow},
    daemon_to_coordinator::Heartbeat,
    dataflow::DataflowRef,
    identity::Role,
    ids::{BootId, InstanceId},
    machine::{EngineStatus, Lifecycle, MachineSummary, Reach},
    refusal::RefusalCode,
};
use uuid::Uuid;

#[tokio::test]
async fn a_new_connection_of_the_same_daemon_takes_over_at_once() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    // It would give no sign of life: nobody asks for one.
    let memory = Memory {
        is_deaf: true,
        ..Memory::new()
    };
    let first = Daemon::join(&world, running.address, "a", &memory).await;
    let second = Daemon::join(&world, running.address, "a", &memory).await;
    let closed = soon("the end of the former connection", first.peer.closed()).await;
    assert_eq!(closed.code(), Some(CloseCode::Superseded));
    beat(&second.peer).await.unwrap();
    running.end().await;
}

#[tokio::test]
async fn a_restarted_machine_takes_over_from_its_own_last_life() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let person = world.person(running.address).await;
    let memory = Memory {
        is_deaf: true,
        ..Memory::new()
    };
    let mut before = Daemon::join(&world, running.address, "a", &memory).await;
    let id = start_running(&person, &mut before, 1).await;
    let memory = Memory {
        boot: boot(2),
        ..before.memory(&memory, id)
    };
    // Its last life has ended without a word, and gives no sign when it is looked for.
    let mut after = Daemon::join(&world, running.address, "a", &memory).await;
    assert_eq!(after.joined.acked_seq, memory.last_seq, "the disk is the same");
    soon("the end of the former connection", before.peer.closed()).await;
    assert!(machine(&person).await.quarantined.is_empty());
    let asked = StopDataflow {
        dataflow: DataflowRef::Id(id),
        grace_ms: None,
        force: false,
    };
    let stopped = stop_running(&person, &mut after, asked, id).await;
    assert!(stopped.result.success);
    running.end().await;
}

#[tokio::test]
async fn a_cloned_disk_beside_the_original_is_quarantined_and_both_are_named() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let person = world.person(running.address).await;
    let memory = Memory::new();
    let mut original = Daemon::join(&world, running.address, "a", &memory).await;
    let id = start_running(&person, &mut original, 1).await;
    let clones = [
        Memory {
            boot: boot(2),
            ..original.memory(&memory, id)
        },
        Memory {
            instance: InstanceId(Uuid::from_u128(3)),
            ..memory.clone()
        },
    ];
    for (clone, tries) in clones.iter().zip([1, 2]) {
        for _ in 0..tries {
            let Err(refusal) = Daemon::try_join(&world, running.address, "a", clone).await else {
                panic!("a clone took over");
            };
            assert_eq!(refusal.code, RefusalCode::Quarantined);
            for told in [
                memory.instance.to_string(),
                memory.boot.to_string(),
                clone.instance.to_string(),
                clone.boot.to_string(),
            ] {
                assert!(refusal.message.contains(&told), "{told}: {refusal:?}");
            }
        }
    }
    let seen = machine(&person).await;
    assert_eq!(seen.reach, Reach::Connected);
    let named: Vec<_> = seen
        .quarantined
        .iter()
        .map(|twin| (twin.instance, twin.boot, twin.tries))
        .collect();
    assert_eq!(
        named,
        [
            (clones[0].instance, clones[0].boot, 1),
            (clones[1].instance, clones[1].boot, 2)
        ]
    );

    // However often they try, each is recorded once.
    let ada = admin(&world, running.address, system()).await;
    let read = ReadAudit {
        after: 0,
        since_unix_ms: None,
        who: None,
        verb: Some("join-machine".to_owned()),
        follow: false,
    };
    let mut audit = ada.peer.feed(&read, None).await.unwrap();
    let mut refused = 0;
    while let Some(item) = next(&mut audit).await.unwrap() {
        refused += usize::from(matches!(item, AuditItem::Entry(entry) if entry.result == "quarantined"));
    }
    assert_eq!(refused, clones.len());

    // The original was not disturbed.
    assert!(!original.peer.is_closed());
    beat(&original.peer).await.unwrap();
    let node = "n-a".parse().unwrap();
    original.happened(id, Lifecycle::NodeStarted { node, pid: 8 }).await;
    running.end().await;
}

#[tokio::test]
async fn of_two_that_want_the_place_of_a_dead_machine_one_gets_it() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let dead = Memory {
        is_deaf: true,
        ..Memory::new()
    };
    let dead = Daemon::join(&world, running.address, "a", &dead).await;
    let (one, two) = (Memory::new(), Memory::new());
    let (one, two) = tokio::join!(
        Daemon::try_join(&world, running.address, "a", &one),
        Daemon::try_join(&world, running.address, "a", &two)
    );
    soon("the end of the dead one", dead.peer.closed()).await;
    let (Ok(joined), Err(refusal)) = (if one.is_ok() { (one, two) } else { (two, one) }) else {
        panic!("one is in use, and the other one is not");
    };
    assert_eq!(refusal.code, RefusalCode::Quarantined);
    beat(&joined.peer).await.unwrap();
    running.end().await;
}

#[tokio::test]
async fn a_connection_that_was_not_let_in_is_not_used() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let _original = Daemon::join(&world, running.address, "a", &Memory::new()).await;
    let dialer = world.dialer(Role::Daemon, "a", InstanceId(Uuid::new_v4()));
    let clone = dialer.dial(&running.address.to_string().parse().unwrap()).await.unwrap();
    let refused = beat(&clone).await.unwrap_err();
    assert!(refused.contains("has not joined"), "{refused}");
    running.end().await;
}

#[tokio::test]
async fn nothing_is_applied_twice_when_an_original_is_back_after_a_clone() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let person = world.person(running.address).await;
    let memory = Memory::new();
    let mut original = Daemon::join(&world, running.address, "a", &memory).await;
    let id = start_running(&person, &mut original, 1).await;
    let memory = original.memory(&memory, id);
    original.leave();
    let clone = Daemon::join(
        &world,
        running.address,
        "a",
        &Memory {
            instance: InstanceId(Uuid::from_u128(3)),
            ..memory.clone()
        },
    )
    .await;
    assert_eq!(clone.joined.acked_seq, 0, "its numbers are its own");
    clone.leave();
    let back = Daemon::join(&world, running.address, "a", &memory).await;
    assert_eq!(back.joined.acked_seq, memory.last_seq);
    running.end().await;
}

async fn machine(person: &Person) -> MachineSummary {
    person.ask(ListMachines {}).await.unwrap().remove(0)
}

async fn beat(peer: &Peer) -> Result<(), String> {
    let beat = Heartbeat {
        engine: EngineStatus::Starting,
        disk: None,
    };
    peer.call(&beat, PATIENCE).await.map_err(|error| error.to_string())
}

fn boot(number: u128) -> BootId {
    BootId(Uuid::from_u128(number))
}
