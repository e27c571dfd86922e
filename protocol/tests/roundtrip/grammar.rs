//! Any words and sentences: names, ids, headers, hellos, refusals.

use dora_remote_protocol::{
    dataflow::Labels,
    hello::Hello,
    ids::{BootId, DataflowId, InstanceId, NodeId, RequestId},
    name::Name,
    refusal::{Changed, Refusal, RefusalCode},
    request::{Header, Verb},
    version::{Version, VersionRange},
};
use proptest::{collection::vec, prelude::*, sample::select};
use uuid::Uuid;

pub(crate) fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

pub(crate) fn run() -> impl Strategy<Value = DataflowId> {
    uuid().prop_map(DataflowId)
}

pub(crate) fn name() -> impl Strategy<Value = Name> {
    "[A-Za-z0-9][A-Za-z0-9._-]{0,62}".prop_map(|text| text.parse().expect("within the grammar"))
}

pub(crate) fn node() -> impl Strategy<Value = NodeId> {
    "[a-z_][a-z0-9_-]{0,40}".prop_map(|text| text.parse().expect("within the grammar"))
}

pub(crate) fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map("[a-z]{1,8}", "\\PC{0,8}", 0..4)
}

pub(crate) fn header() -> impl Strategy<Value = Header> {
    (any::<u16>(), any::<u32>(), uuid()).prop_map(|(verb, deadline_ms, id)| Header {
        verb: Verb(verb),
        deadline_ms,
        request_id: RequestId(id),
    })
}

pub(crate) fn hello() -> impl Strategy<Value = Hello> {
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

pub(crate) fn refusal() -> impl Strategy<Value = Refusal> {
    let changed = select(vec![Changed::Nothing, Changed::Partly, Changed::Unknown]);
    (any::<u16>(), ".{0,60}", ".{0,60}", changed)
        .prop_map(|(code, message, hint, changed)| Refusal::new(RefusalCode::from(code), message).hint(hint).changed(changed))
}
