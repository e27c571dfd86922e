//! Agents that go and come back, and strangers at the socket.

use crate::{
    flows::{STUBBORN, TICKER, finished},
    support::{Engine, started},
};
use dora_remote_protocol::{
    agent_to_engine::EngineOrder,
    dataflow::NodeState,
    engine_to_agent::EngineHello,
    machine::RunPhase,
    refusal::RefusalCode,
    version::{Version, VersionRange},
};
use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
};

#[test]
fn an_agent_that_returns_gets_what_it_missed_exactly_once() {
    let Some(engine) = Engine::start() else { return };
    let mut first = engine.agent();
    let order = engine.order(TICKER, &["source"]);
    let dataflow = order.dataflow;
    first.start(order.clone());
    let pid = first.wait_for(started("source"));
    let known = first.events.last().expect("events").0;
    first.acknowledge(known);
    drop(first);

    // What happens now happens without an agent of the first one's life.
    let mut second = engine.agent_that_knows(Some((engine.id, known)));
    let EngineHello::Welcome {
        engine: id,
        pid: engine_pid,
        runs,
        ..
    } = &second.welcome
    else {
        panic!("welcome");
    };
    assert_eq!((*id, *engine_pid), (engine.id, engine.pid()));
    assert_eq!(runs[0].order, order);
    assert_eq!(runs[0].phase, RunPhase::Running);
    assert_eq!(
        (runs[0].nodes[0].state, runs[0].nodes[0].pid),
        (NodeState::Running, Some(pid))
    );
    second.stop(dataflow, 10_000, false);
    second.wait_for(finished);
    let last = second.events.last().expect("events").0;
    let seqs: Vec<_> = second.events.iter().map(|(seq, _, _)| *seq).collect();
    assert_eq!(
        seqs,
        (known + 1..=last).collect::<Vec<_>>(),
        "neither a hole nor anything twice"
    );

    // Nothing was acknowledged by the second; a third, who knows as much as the first, gets the same again.
    let mut third = engine.agent_that_knows(Some((engine.id, known)));
    third.wait_for(finished);
    assert_eq!(third.events, second.events);
    second.wait_for_end();
    let mut stranger = engine.agent_that_knows(Some((dora_remote_protocol::ids::EngineId(uuid::Uuid::nil()), 77)));
    stranger.wait_for(finished);
    assert_eq!(stranger.events, second.events, "another engine's numbers mean nothing here");
    third.wait_for_end();
}

#[test]
fn who_does_not_speak_the_language_is_turned_away_and_does_no_harm() {
    let Some(engine) = Engine::start() else { return };
    let mut agent = engine.agent();
    let newer = VersionRange {
        oldest: Version(700),
        newest: Version(701),
    };
    let mut stranger = engine.agent_that_speaks(newer);
    assert!(matches!(&stranger.welcome, EngineHello::Refusal(refusal) if refusal.code == RefusalCode::VersionMismatch));
    stranger.wait_for_end();
    let mut garbage = UnixStream::connect(engine.socket()).expect("the engine listens");
    garbage.write_all(&[0xff; 64]).expect("writes");
    let mut answer = Vec::new();
    // Closed with bytes unread, which the kernel may call a reset.
    let _ = garbage.read_to_end(&mut answer);
    assert_eq!(answer, b"");
    let order = engine.order(STUBBORN, &["stubborn"]);
    agent.order(EngineOrder::Check(order)).expect("the agent is heard as before");
}
