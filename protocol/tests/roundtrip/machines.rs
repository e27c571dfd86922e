//! Any machines and engines, and what they report.

use crate::{
    dataflows::{failure, link_loss, node_status, placed},
    grammar::{labels, name, node, run, uuid},
    lines::{level, source},
};
use dora_remote_protocol::{
    agent_to_engine::RunOrder,
    daemon_to_coordinator::JoinMachine,
    engine_to_agent::EngineEvent,
    ids::EngineId,
    machine::{EngineStatus, Lifecycle, LifecycleEvent, LogShipping, MachineFacts, OlderEngine, RunPhase, RunReport},
};
use proptest::{collection::vec, prelude::*, sample::select};

pub(crate) fn join() -> impl Strategy<Value = JoinMachine> {
    let report =
        (run(), name(), phase(), vec(node_status(), 0..4), link_loss()).prop_map(|(dataflow, name, phase, nodes, link_loss)| {
            RunReport {
                dataflow,
                name,
                phase,
                nodes,
                link_loss,
            }
        });
    (
        labels(),
        ".{0,12}",
        ".{0,20}",
        engine_status(),
        vec(report, 0..4),
        any::<u64>(),
    )
        .prop_map(|(labels, build, platform, engine, runs, last_seq)| JoinMachine {
            facts: MachineFacts {
                labels,
                build,
                platform,
                engine,
                logs: LogShipping::OnDemand,
            },
            runs,
            last_seq,
            witnessed: None,
            revocations: None,
        })
}

fn engine_status() -> impl Strategy<Value = EngineStatus> {
    prop_oneof![
        Just(EngineStatus::Starting),
        (uuid(), any::<u32>(), ".{0,10}", vec(older_engine(), 0..3)).prop_map(|(engine, pid, dora_version, older)| {
            EngineStatus::Up {
                engine: EngineId(engine),
                pid,
                dora_version,
                older,
            }
        }),
        ".{0,60}".prop_map(|reason| EngineStatus::Down { reason }),
    ]
}

fn older_engine() -> impl Strategy<Value = OlderEngine> {
    let (version, trouble) = (proptest::option::of(".{0,10}"), proptest::option::of(".{0,60}"));
    (any::<u32>(), version, any::<u32>(), trouble).prop_map(|(pid, dora_version, runs, trouble)| OlderEngine {
        pid,
        dora_version,
        runs,
        trouble,
    })
}

fn phase() -> impl Strategy<Value = RunPhase> {
    select(vec![
        RunPhase::Prepared,
        RunPhase::Spawning,
        RunPhase::AtBarrier,
        RunPhase::Running,
        RunPhase::Stopping,
        RunPhase::Ended,
    ])
}

pub(crate) fn lifecycle_event() -> impl Strategy<Value = LifecycleEvent> {
    let what = prop_oneof![
        (node(), any::<u32>()).prop_map(|(node, pid)| Lifecycle::NodeStarted { node, pid }),
        (node(), any::<bool>()).prop_map(|(node, clean)| Lifecycle::NodeStopped { node, clean }),
        vec(node(), 0..3).prop_map(|exited_before_subscribe| Lifecycle::BarrierReached { exited_before_subscribe }),
        (vec(failure(), 0..3), ".{0,40}").prop_map(|(failures, note)| Lifecycle::Finished { failures, note }),
        Just(Lifecycle::LogsShipped),
        any::<u64>().prop_map(|silent_ms| Lifecycle::LinkLost { silent_ms }),
    ];
    (any::<(u64, u64)>(), run(), what).prop_map(|((seq, at_unix_ms), dataflow, what)| LifecycleEvent {
        seq,
        at_unix_ms,
        dataflow,
        what,
    })
}

pub(crate) fn run_order() -> impl Strategy<Value = RunOrder> {
    (run(), name(), ".{0,200}", placed(), name(), ".{0,60}", any::<bool>()).prop_map(
        |(dataflow, name, descriptor, nodes, machine, run_dir, uv)| RunOrder {
            dataflow,
            name,
            descriptor,
            nodes,
            machine,
            run_dir,
            uv,
        },
    )
}

pub(crate) fn engine_event() -> impl Strategy<Value = EngineEvent> {
    prop_oneof![
        vec(failure(), 0..3).prop_map(|failures| EngineEvent::Finished { failures }),
        (source(), level(), ".{0,60}").prop_map(|(source, level, text)| EngineEvent::Message { source, level, text }),
        any::<u64>().prop_map(|count| EngineEvent::MessagesDropped { count }),
        (node(), any::<u64>()).prop_map(|(node, lines)| EngineEvent::LinesLost { node, lines }),
    ]
}
