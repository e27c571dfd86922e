//! The socket between a daemon and its engine.

use crate::{no, node, pinned, run};
use dora_remote_protocol::{
    agent_to_engine::{AgentFrame, ENGINE_VERSIONS, EngineOrder},
    engine_to_agent::{EngineEvent, EngineFrame, EngineHello, EngineReply, OperatorKind, RunFacts, Starts},
    log_line::{LogLevel, LogSource},
    version::Version,
};

#[test]
fn engine_socket() {
    let order = EngineOrder::Forget { dataflow: run() };
    pinned(
        &AgentFrame::Order {
            id: 0,
            order: order.clone(),
        },
        0,
    );
    pinned(&AgentFrame::Acked { seq: 0 }, 1);
    pinned(&EngineOrder::Spawn { dataflow: run() }, 1);
    let release = EngineOrder::Release {
        dataflow: run(),
        exited_before_subscribe: vec![],
    };
    pinned(&release, 2);
    let stop = EngineOrder::Stop {
        dataflow: run(),
        grace_ms: None,
        force: false,
    };
    pinned(&stop, 3);
    pinned(&order, 4);
    pinned(&EngineOrder::Shutdown { force: false }, 5);
    pinned(&EngineOrder::Inspect { dataflow: run() }, 6);
    assert_eq!(order.since(), ENGINE_VERSIONS.oldest);
    assert_eq!(EngineOrder::Inspect { dataflow: run() }.since(), Version(2));

    pinned(&EngineHello::Refusal(no()), 1);
    pinned(
        &EngineFrame::Reply {
            id: 0,
            result: Ok(EngineReply::Done),
        },
        0,
    );
    let event = EngineFrame::Event {
        seq: 1,
        at_unix_ms: 0,
        dataflow: None,
        what: EngineEvent::MessagesDropped { count: 0 },
    };
    pinned(&event, 1);
    pinned(&EngineFrame::Alive, 2);
    pinned(&EngineReply::Checked { outputs: vec![] }, 0);
    pinned(&EngineReply::Done, 1);
    pinned(&EngineReply::Facts(RunFacts::default()), 2);
    pinned(&Starts::Nothing, 0);
    pinned(&Starts::ShellCommand, 1);
    let (file, shell) = (String::new(), None);
    pinned(&Starts::Program { file, shell }, 2);
    pinned(&Starts::Python { script: String::new() }, 3);
    pinned(&Starts::Download, 4);
    pinned(&Starts::Operators(vec![]), 5);
    for (kind, index) in [OperatorKind::SharedLibrary, OperatorKind::Python, OperatorKind::Wasm]
        .iter()
        .zip(0..)
    {
        pinned(kind, index);
    }
    pinned(&EngineEvent::NodeStarted { node: node(), pid: 0 }, 0);
    pinned(
        &EngineEvent::NodeStopped {
            node: node(),
            clean: true,
        },
        1,
    );
    pinned(
        &EngineEvent::BarrierReached {
            exited_before_subscribe: vec![],
        },
        2,
    );
    pinned(&EngineEvent::Finished { failures: vec![] }, 3);
    let message = EngineEvent::Message {
        source: LogSource::Machine,
        level: LogLevel::Info,
        text: String::new(),
    };
    pinned(&message, 4);
    pinned(&EngineEvent::MessagesDropped { count: 0 }, 5);
    let lost = EngineEvent::LinesLost { node: node(), lines: 0 };
    pinned(&lost, 6);
    assert_eq!((lost.since(), ENGINE_VERSIONS.newest), (Version(3), Version(3)));
    // Each version, with what it brought: nothing may be said to a side that does not know it.
    for version in [Version(1), Version(2)] {
        let told = lost.clone().told_in(version);
        assert!(
            told.since() <= version && matches!(told, EngineEvent::Message { .. }),
            "{told:?}"
        );
    }
    assert_eq!(lost.clone().told_in(Version(3)), lost);
}
