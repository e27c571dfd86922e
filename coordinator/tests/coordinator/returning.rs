//! The coordinator is killed and comes back, machines go and come back: what is remembered, and what is found.

use crate::support::{Daemon, Memory, Ordered, Running, World, lines, start_running, stop, stop_running};
use dora_remote_protocol::{
    cli_to_coordinator::{ListDataflows, ListMachines},
    dataflow::DataflowState,
    machine::{Lifecycle, Reach},
    refusal::{Changed, RefusalCode},
};

#[tokio::test]
async fn a_killed_coordinator_comes_back_and_nothing_is_lost_or_applied_twice() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let memory = Memory::new();
    let mut daemon = Daemon::join(&world, running.address, "a", &memory).await;
    let person = world.person(running.address).await;
    let id = start_running(&person, &mut daemon, 1).await;
    daemon.ship(id, 1..=4).await;
    let mut config = world.config("state");
    config.listen = running.address;
    let memory = daemon.memory(&memory, id);
    running.kill();

    let running = Running::start(config).await;
    let person = world.person(running.address).await;
    let list = person.ask(ListDataflows {}).await.unwrap();
    assert_eq!((list.len(), list[0].id, list[0].state), (1, id, DataflowState::Running));
    // The daemon kept what was not acknowledged, and more happened while the coordinator was away.
    let memory = Memory {
        last_seq: memory.last_seq + 1,
        ..memory
    };
    let mut daemon = Daemon::join(&world, running.address, "a", &memory).await;
    assert_eq!(
        daemon.joined.acked_seq,
        memory.last_seq - 1,
        "what was acknowledged is remembered"
    );
    assert!(daemon.joined.unwanted.is_empty());
    assert_eq!(daemon.ship(id, 3..=6).await, 6);
    let mut logs = person.logs(id, Some(2), true).await;
    let seen = lines(&mut logs, 4).await;
    assert_eq!(seen.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [3, 4, 5, 6]);
    assert_eq!(seen[3].1, "a 6");

    let finished = Lifecycle::Finished {
        failures: Vec::new(),
        note: String::new(),
    };
    let acked = daemon.report(id, memory.last_seq, finished.clone()).await;
    assert_eq!(acked.seq, memory.last_seq);
    assert_eq!(daemon.report(id, memory.last_seq, finished).await.seq, memory.last_seq);
    let list = person.ask(ListDataflows {}).await.unwrap();
    assert_eq!(list[0].state, DataflowState::Finished);

    // What has ended is remembered as such over the next death too.
    running.kill();
    let running = Running::start(world.config("state")).await;
    let person = world.person(running.address).await;
    assert_eq!(person.ask(ListDataflows {}).await.unwrap()[0].state, DataflowState::Finished);
    running.end().await;
}

#[tokio::test]
async fn a_machine_that_restarted_without_its_run_fails_it() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let memory = Memory::new();
    let mut daemon = Daemon::join(&world, running.address, "a", &memory).await;
    let person = world.person(running.address).await;
    let id = start_running(&person, &mut daemon, 1).await;
    let last_seq = daemon.memory(&memory, id).last_seq;
    daemon.leave();
    let _daemon = Daemon::join(&world, running.address, "a", &Memory { last_seq, ..memory }).await;
    let result = person.ask(ListDataflows {}).await.unwrap()[0]
        .result
        .clone()
        .expect("it has ended");
    assert!(!result.success && result.note.contains("restarted without it"), "{result:?}");
    running.end().await;
}

#[tokio::test]
async fn a_stop_is_kept_for_a_machine_that_cannot_be_reached() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let memory = Memory::new();
    let mut daemon = Daemon::join(&world, running.address, "a", &memory).await;
    let person = world.person(running.address).await;
    let id = start_running(&person, &mut daemon, 1).await;
    let memory = daemon.memory(&memory, id);
    daemon.leave();
    // Answered once the machine counts as lost, long before a stop would time out.
    let refusal = person.ask(stop("flow")).await.unwrap_err();
    assert_eq!(
        (refusal.code, refusal.changed),
        (RefusalCode::MachineUnreachable, Changed::Partly)
    );
    let machines = person.ask(ListMachines {}).await.unwrap();
    assert!(matches!(machines[0].reach, Reach::Unreachable { .. }));
    let list = person.ask(ListDataflows {}).await.unwrap();
    assert_eq!((list[0].state, list[0].unreachable.len()), (DataflowState::Stopping, 1));

    let mut daemon = Daemon::join(&world, running.address, "a", &memory).await;
    assert_eq!(daemon.order().await, Ordered::Stop { force: false });
    daemon.finished(id).await;
    let list = person.ask(ListDataflows {}).await.unwrap();
    assert_eq!(list[0].state, DataflowState::Finished);
    running.end().await;
}

#[tokio::test]
async fn a_run_that_nobody_remembers_is_listed_and_can_be_stopped() {
    let world = World::new();
    let first = Running::start(world.config("first")).await;
    let memory = Memory::new();
    let mut daemon = Daemon::join(&world, first.address, "a", &memory).await;
    let person = world.person(first.address).await;
    let id = start_running(&person, &mut daemon, 1).await;
    let memory = daemon.memory(&memory, id);
    first.kill();

    let running = Running::start(world.config("empty")).await;
    let mut daemon = Daemon::join(&world, running.address, "a", &memory).await;
    let person = world.person(running.address).await;
    let list = person.ask(ListDataflows {}).await.unwrap();
    assert_eq!(
        (list[0].id, list[0].state, list[0].nodes.len()),
        (id, DataflowState::Running, 1)
    );
    let stopped = stop_running(&person, &mut daemon, stop("flow"), id).await;
    assert!(stopped.result.success);
    running.end().await;
}
