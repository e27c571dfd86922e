//! Any dataflows, and the requests and orders about them.

use crate::grammar::{labels, name, node, run, uuid};
use dora_remote_protocol::{
    cli_to_coordinator::{StartDataflow, StopDataflow},
    coordinator_to_daemon::PrepareRun,
    dataflow::{
        BundleRef, DataflowRef, DataflowResult, DataflowSpec, DataflowState, DataflowSummary, FailureCause, Files, LinkLoss,
        NameWish, NodeFailure, NodeSpec, NodeState, NodeStatus, PlacedNode,
    },
    ids::{BundleHash, RequestId},
    machine::Restored,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

pub(crate) fn start() -> impl Strategy<Value = StartDataflow> {
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

pub(crate) fn link_loss() -> impl Strategy<Value = LinkLoss> {
    prop_oneof![
        Just(LinkLoss::Keep),
        any::<u64>().prop_map(|silence_ms| LinkLoss::StopAfter { silence_ms })
    ]
}

pub(crate) fn stop() -> impl Strategy<Value = StopDataflow> {
    (dataflow_ref(), option::of(any::<u64>()), any::<bool>()).prop_map(|(dataflow, grace_ms, force)| StopDataflow {
        dataflow,
        grace_ms,
        force,
    })
}

pub(crate) fn dataflow_ref() -> impl Strategy<Value = DataflowRef> {
    prop_oneof![run().prop_map(DataflowRef::Id), ".{0,70}".prop_map(DataflowRef::Name)]
}

pub(crate) fn prepare() -> impl Strategy<Value = PrepareRun> {
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

pub(crate) fn placed() -> impl Strategy<Value = Vec<PlacedNode>> {
    vec(
        (node(), name(), any::<bool>()).prop_map(|(id, machine, dynamic)| PlacedNode { id, machine, dynamic }),
        0..6,
    )
}

pub(crate) fn node_status() -> impl Strategy<Value = NodeStatus> {
    let state = select(vec![
        NodeState::Waiting,
        NodeState::Running,
        NodeState::Stopped,
        NodeState::Failed,
    ]);
    (node(), name(), state, any::<Option<u32>>()).prop_map(|(id, machine, state, pid)| NodeStatus { id, machine, state, pid })
}

pub(crate) fn failure() -> impl Strategy<Value = NodeFailure> {
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

pub(crate) fn summary() -> impl Strategy<Value = DataflowSummary> {
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

fn restored() -> impl Strategy<Value = Restored> {
    any::<(u64, u64)>().prop_map(|(unreachable_since_unix_ms, at_unix_ms)| Restored {
        unreachable_since_unix_ms,
        at_unix_ms,
    })
}
