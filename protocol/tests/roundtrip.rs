//! Properties of the wire: every message survives its frame, and no bytes, however broken, make a decoder panic.

#![expect(clippy::expect_used, reason = "helpers of tests stand outside of test functions")]

#[path = "../fuzz/decode_any.rs"]
mod decode_any;

use dora_remote_protocol::{
    agent_to_engine::{AgentFrame, EngineOrder, RunOrder},
    cli_to_coordinator::{ReadLogs, StartDataflow, StopDataflow},
    coordinator_to_daemon::PrepareRun,
    daemon_to_coordinator::{JoinMachine, ReportEvents, ShipLogs},
    dataflow::{
        BundleRef, DataflowRef, DataflowResult, DataflowSpec, DataflowState, DataflowSummary, FailureCause, Files, Labels,
        LinkLoss, NameWish, NodeFailure, NodeSpec, NodeState, NodeStatus, PlacedNode,
    },
    engine_to_agent::{EngineEvent, EngineFrame},
    frame,
    hello::Hello,
    ids::{BootId, BundleHash, DataflowId, EngineId, InstanceId, NodeId, RequestId},
    limits::MAX_FRAME_BYTES,
    log_line::{LogBatch, LogItem, LogLevel, LogLine, LogRecord, LogSource, LogStream},
    machine::{EngineStatus, Lifecycle, LifecycleEvent, LogShipping, MachineFacts, OlderEngine, Restored, RunPhase, RunReport},
    name::Name,
    packed::Packed,
    refusal::{Changed, Refusal, RefusalCode},
    request::{Answer, FeedFrame, Header, Verb},
    version::{Version, VersionRange},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;
use uuid::Uuid;

proptest! {
    #[test]
    fn headers_and_hellos(header in header(), hello in hello()) {
        survives(&header)?;
        survives(&hello)?;
    }

    #[test]
    fn requests_of_people(start in start(), stop in stop(), logs in read_logs()) {
        survives(&start)?;
        survives(&stop)?;
        survives(&logs)?;
    }

    #[test]
    fn orders_and_reports(prepare in prepare(), join in join(), events in vec(lifecycle_event(), 0..8), batch in batch()) {
        survives(&prepare)?;
        survives(&join)?;
        survives(&ReportEvents { events })?;
        prop_assert_eq!(&ShipLogs::pack(batch.clone()).unpack().expect("packed lines"), &batch);
        survives(&ShipLogs::pack(batch))?;
    }

    #[test]
    fn answers_and_feeds(summary in summary(), item in log_item(), refusal in refusal()) {
        survives(&Answer::Reply(vec![summary]))?;
        survives(&Answer::<()>::Refusal(refusal.clone()))?;
        survives(&FeedFrame::Item(item))?;
        survives(&FeedFrame::<LogItem>::Refusal(refusal))?;
    }

    #[test]
    fn the_engine_socket(order in run_order(), event in engine_event(), id in any::<u64>(), dataflow in option::of(run())) {
        survives(&AgentFrame::Order { id, order: EngineOrder::Check(order) })?;
        survives(&EngineFrame::Event { seq: id, at_unix_ms: id, dataflow, what: event })?;
    }

    #[test]
    fn a_cut_frame_is_refused(start in start(), cut in any::<prop::sample::Index>()) {
        let frame = frame::encode(&start, MAX_FRAME_BYTES).expect("it fits");
        let body = &frame[frame::PREFIX_BYTES..];
        prop_assert!(frame::decode::<StartDataflow>(&body[..cut.index(body.len())]).is_err());
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in vec(any::<u8>(), 0..512)) {
        decode_any::decode_any(&bytes);
    }

    #[test]
    fn a_flipped_bit_decodes_or_is_refused(batch in batch(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut frame = frame::encode(&ShipLogs::pack(batch), MAX_FRAME_BYTES).expect("it fits");
        let body = &mut frame[frame::PREFIX_BYTES..];
        let at = at.index(body.len());
        body[at] ^= 1 << bit;
        for kind in 0..=30 {
            let mut bytes = vec![kind];
            bytes.extend_from_slice(body);
            decode_any::decode_any(&bytes);
        }
    }

    #[test]
    fn names_of_any_text_hold_their_grammar(text in any::<String>()) {
        if let Ok(name) = text.parse::<Name>() {
            prop_assert!(!text.contains(|c: char| c == '/' || c == '\\' || c.is_whitespace() || c.is_control()));
            prop_assert!(!text.starts_with('.') && text.len() <= 63);
            prop_assert_eq!(name.as_str(), text);
        }
    }
}

fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> Result<(), TestCaseError> {
    let frame = frame::encode(value, MAX_FRAME_BYTES).expect("it fits");
    let (prefix, body) = frame.split_at(frame::PREFIX_BYTES);
    let prefix = prefix.try_into().expect("a whole prefix");
    prop_assert_eq!(frame::body_length(prefix, MAX_FRAME_BYTES).expect("in bounds"), body.len());
    prop_assert_eq!(&frame::decode::<T>(body).expect("our own bytes"), value);
    Ok(())
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn run() -> impl Strategy<Value = DataflowId> {
    uuid().prop_map(DataflowId)
}

fn name() -> impl Strategy<Value = Name> {
    "[A-Za-z0-9][A-Za-z0-9._-]{0,62}".prop_map(|text| text.parse().expect("within the grammar"))
}

fn node() -> impl Strategy<Value = NodeId> {
    "[a-z_][a-z0-9_-]{0,40}".prop_map(|text| text.parse().expect("within the grammar"))
}

fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map("[a-z]{1,8}", "\\PC{0,8}", 0..4)
}

fn header() -> impl Strategy<Value = Header> {
    (any::<u16>(), any::<u32>(), uuid()).prop_map(|(verb, deadline_ms, id)| Header {
        verb: Verb(verb),
        deadline_ms,
        request_id: RequestId(id),
    })
}

fn hello() -> impl Strategy<Value = Hello> {
    (
        any::<(u16, u16)>(),
        ".{0,20}",
        vec(".{0,8}", 0..4),
        uuid(),
        uuid(),
        any::<u64>(),
    )
        .prop_map(|((oldest, newest), build, features, instance, boot, counter)| Hello {
            versions: VersionRange {
                oldest: Version(oldest),
                newest: Version(newest),
            },
            build,
            features,
            instance: InstanceId(instance),
            boot: BootId(boot),
            counter,
        })
}

fn node_spec() -> impl Strategy<Value = NodeSpec> {
    (node(), option::of(name()), labels(), any::<bool>()).prop_map(|(id, machine, labels, dynamic)| NodeSpec {
        id,
        machine,
        labels,
        dynamic,
    })
}

fn files() -> impl Strategy<Value = Files> {
    prop_oneof![
        (any::<[u8; 32]>(), any::<(u64, u64, u64)>()).prop_map(|(hash, (bytes, unpacked_bytes, entries))| Files::Bundle(
            BundleRef {
                hash: BundleHash(hash),
                bytes,
                unpacked_bytes,
                entries,
            }
        )),
        ".{0,40}".prop_map(Files::OnMachine),
    ]
}

fn start() -> impl Strategy<Value = StartDataflow> {
    let wish = prop_oneof![name().prop_map(NameWish::Exactly), name().prop_map(NameWish::Like)];
    (
        uuid(),
        wish,
        ".{0,200}",
        vec(node_spec(), 0..6),
        option::of(name()),
        files(),
        any::<bool>(),
        link_loss(),
    )
        .prop_map(
            |(start_id, name, descriptor, nodes, default_machine, files, uv, link_loss)| StartDataflow {
                start_id: RequestId(start_id),
                spec: DataflowSpec {
                    name,
                    descriptor,
                    nodes,
                    default_machine,
                    files,
                    uv,
                    link_loss,
                },
            },
        )
}

fn restored() -> impl Strategy<Value = Restored> {
    any::<(u64, u64)>().prop_map(|(unreachable_since_unix_ms, at_unix_ms)| Restored {
        unreachable_since_unix_ms,
        at_unix_ms,
    })
}

fn link_loss() -> impl Strategy<Value = LinkLoss> {
    prop_oneof![
        Just(LinkLoss::Keep),
        any::<u64>().prop_map(|silence_ms| LinkLoss::StopAfter { silence_ms })
    ]
}

fn dataflow_ref() -> impl Strategy<Value = DataflowRef> {
    prop_oneof![run().prop_map(DataflowRef::Id), ".{0,70}".prop_map(DataflowRef::Name)]
}

fn stop() -> impl Strategy<Value = StopDataflow> {
    (dataflow_ref(), option::of(any::<u64>()), any::<bool>()).prop_map(|(dataflow, grace_ms, force)| StopDataflow {
        dataflow,
        grace_ms,
        force,
    })
}

fn read_logs() -> impl Strategy<Value = ReadLogs> {
    let limits = (option::of(level()), option::of(level()), option::of(".{0,40}"));
    let numbers = any::<([Option<u64>; 4], bool)>();
    (dataflow_ref(), vec(node(), 0..4), numbers, limits).prop_map(
        |(dataflow, nodes, ([tail, after, since_unix_ms, until_unix_ms], follow), (level, machine_level, grep))| ReadLogs {
            dataflow,
            nodes,
            tail,
            after,
            follow,
            since_unix_ms,
            until_unix_ms,
            level,
            machine_level,
            grep,
        },
    )
}

fn placed() -> impl Strategy<Value = Vec<PlacedNode>> {
    vec(
        (node(), name(), any::<bool>()).prop_map(|(id, machine, dynamic)| PlacedNode { id, machine, dynamic }),
        0..6,
    )
}

fn prepare() -> impl Strategy<Value = PrepareRun> {
    let flags = (any::<bool>(), ".{0,60}", link_loss());
    (run(), name(), ".{0,200}", placed(), files(), flags).prop_map(
        |(dataflow, name, descriptor, nodes, files, (uv, by, link_loss))| PrepareRun {
            dataflow,
            name,
            descriptor,
            nodes,
            files,
            uv,
            by,
            link_loss,
        },
    )
}

fn run_order() -> impl Strategy<Value = RunOrder> {
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

fn node_status() -> impl Strategy<Value = NodeStatus> {
    let state = select(vec![
        NodeState::Waiting,
        NodeState::Running,
        NodeState::Stopped,
        NodeState::Failed,
    ]);
    (node(), name(), state, any::<Option<u32>>()).prop_map(|(id, machine, state, pid)| NodeStatus { id, machine, state, pid })
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

fn join() -> impl Strategy<Value = JoinMachine> {
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

fn failure() -> impl Strategy<Value = NodeFailure> {
    let cause = prop_oneof![
        Just(FailureCause::GraceDuration),
        node().prop_map(|caused_by| FailureCause::Cascading { caused_by }),
        ".{0,60}".prop_map(|message| FailureCause::FailedToSpawn { message }),
        ".{0,60}".prop_map(|stderr| FailureCause::Own { stderr }),
        ".{0,60}".prop_map(|message| FailureCause::EngineLost { message }),
    ];
    (node(), name(), cause, ".{0,20}").prop_map(|(node, machine, cause, exit)| NodeFailure {
        node,
        machine,
        cause,
        exit,
    })
}

fn lifecycle_event() -> impl Strategy<Value = LifecycleEvent> {
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

fn engine_event() -> impl Strategy<Value = EngineEvent> {
    prop_oneof![
        vec(failure(), 0..3).prop_map(|failures| EngineEvent::Finished { failures }),
        (source(), level(), ".{0,60}").prop_map(|(source, level, text)| EngineEvent::Message { source, level, text }),
        any::<u64>().prop_map(|count| EngineEvent::MessagesDropped { count }),
        (node(), any::<u64>()).prop_map(|(node, lines)| EngineEvent::LinesLost { node, lines }),
    ]
}

fn source() -> impl Strategy<Value = LogSource> {
    prop_oneof![
        node().prop_map(LogSource::Node),
        Just(LogSource::Machine),
        Just(LogSource::Build)
    ]
}

fn level() -> impl Strategy<Value = LogLevel> {
    select(vec![
        LogLevel::Error,
        LogLevel::Warn,
        LogLevel::Info,
        LogLevel::Debug,
        LogLevel::Trace,
    ])
}

fn stream() -> impl Strategy<Value = LogStream> {
    select(vec![LogStream::Stdout, LogStream::Stderr, LogStream::Message])
}

fn batch() -> impl Strategy<Value = LogBatch> {
    let record = (any::<(u64, u64)>(), stream(), option::of(level()), ".{0,120}").prop_map(
        |((offset, at_unix_ms), stream, level, text)| LogRecord {
            offset,
            at_unix_ms,
            stream,
            level,
            text,
        },
    );
    (run(), source(), any::<(u64, u64)>(), vec(record, 0..8)).prop_map(|(dataflow, source, (epoch, lost_before), records)| {
        LogBatch {
            dataflow,
            source,
            epoch,
            lost_before,
            records,
        }
    })
}

fn log_item() -> impl Strategy<Value = LogItem> {
    let line = (
        any::<(u64, u64)>(),
        name(),
        source(),
        stream(),
        option::of(level()),
        ".{0,120}",
    )
        .prop_map(|((seq, at_unix_ms), machine, source, stream, level, text)| LogLine {
            seq,
            machine,
            source,
            stream,
            level,
            at_unix_ms,
            text,
        });
    prop_oneof![
        vec(line, 0..8).prop_map(|lines| LogItem::Lines(Packed::of_lines(&lines))),
        any::<(u64, u64)>().prop_map(|(lines, next_after)| LogItem::Gap { lines, next_after }),
        Just(LogItem::CaughtUp),
        any::<(u64, u64)>().prop_map(|(lines, milliseconds)| LogItem::Lag { lines, milliseconds }),
        any::<u64>().prop_map(|next_after| LogItem::Passed { next_after }),
        vec(name(), 0..3).prop_map(|machines| LogItem::Fetching { machines }),
        (name(), any::<(Option<u64>, Option<u64>)>()).prop_map(|(machine, (unreachable_since_unix_ms, newest_unix_ms))| {
            LogItem::Unfetched {
                machine,
                unreachable_since_unix_ms,
                newest_unix_ms,
            }
        }),
    ]
}

fn summary() -> impl Strategy<Value = DataflowSummary> {
    let state = select(vec![
        DataflowState::Preparing,
        DataflowState::Starting,
        DataflowState::Running,
        DataflowState::Stopping,
        DataflowState::Finished,
        DataflowState::Failed,
    ]);
    let result = (any::<(bool, bool)>(), vec(failure(), 0..3), ".{0,40}").prop_map(|((success, stopped), failures, note)| {
        DataflowResult {
            success,
            stopped,
            failures,
            note,
        }
    });
    (
        run(),
        name(),
        state,
        any::<(u64, Option<u64>, Option<u64>)>(),
        vec(node_status(), 0..4),
        prop::collection::btree_map(name(), any::<u64>(), 0..3),
        option::of(result),
        link_loss(),
        prop::collection::btree_map(name(), restored(), 0..3),
    )
        .prop_map(
            |(id, name, state, (created, running, ended), nodes, unreachable, result, link_loss, restored)| DataflowSummary {
                id,
                name,
                state,
                created_unix_ms: created,
                running_since_unix_ms: running,
                ended_unix_ms: ended,
                started_by: "spiffe://lab/admin/ann".to_owned(),
                nodes,
                unreachable,
                result,
                link_loss,
                restored,
            },
        )
}

fn refusal() -> impl Strategy<Value = Refusal> {
    let changed = select(vec![Changed::Nothing, Changed::Partly, Changed::Unknown]);
    (any::<u16>(), ".{0,60}", ".{0,60}", changed)
        .prop_map(|(code, message, hint, changed)| Refusal::new(RefusalCode::from(code), message).hint(hint).changed(changed))
}
