//! What there is, as programs and as people are shown it.

use crate::{
    coordinator::Script,
    laptop::Laptop,
    samples::{ID, failed, summary},
};
use dora_remote_protocol::{
    dataflow::DataflowState,
    ids::{BootId, InstanceId},
    machine::{DiskUse, EngineStatus, LogShipping, MachineFacts, MachineSummary, Quarantine, Reach, Restored},
};
use std::collections::BTreeMap;
use uuid::Uuid;

#[test]
fn what_is_listed_has_a_stable_form_for_programs() {
    let laptop = Laptop::new();
    let machine = MachineSummary {
        name: "robot".parse().expect("a name"),
        facts: MachineFacts {
            labels: BTreeMap::from([("gpu".to_owned(), "true".to_owned())]),
            build: "0.1.0".to_owned(),
            platform: "linux x86_64".to_owned(),
            logs: LogShipping::OnDemand,
            engine: EngineStatus::Down {
                reason: "killed by signal 9".to_owned(),
            },
        },
        reach: Reach::Unreachable { since_unix_ms: 5_000 },
        last_heard_unix_ms: 5_000,
        address: "192.0.2.7:4711".to_owned(),
        rtt_us: None,
        mtu: None,
        black_holes: 0,
        dataflows: vec![ID],
        disk: Some(DiskUse {
            free_bytes: 9,
            free_bytes_min: 8,
            log_bytes: 7,
            log_bytes_max: 6,
            ended_bytes: 5,
            ended_bytes_max: 4,
            bundle_bytes: 3,
            store_bytes: 2,
        }),
        quarantined: vec![Quarantine {
            instance: InstanceId(Uuid::from_u128(8)),
            boot: BootId(Uuid::from_u128(9)),
            address: "192.0.2.8:4711".to_owned(),
            at_unix_ms: 6_000,
            tries: 3,
        }],
        restored: Some(Restored {
            unreachable_since_unix_ms: 1_000,
            at_unix_ms: 2_000,
        }),
    };
    let mut ended = summary("old", DataflowState::Failed);
    ended.result = Some(failed());
    let coordinator = laptop.coordinator(Script {
        dataflows: vec![ended, summary("arm", DataflowState::Running)],
        machines: vec![machine],
        ..Script::default()
    });
    insta::assert_snapshot!("list_json", laptop.run(&coordinator, &["list", "--format", "json"]).stdout);
    insta::assert_snapshot!(
        "machines_json",
        laptop.run(&coordinator, &["machines", "--format", "json"]).stdout
    );
    let told = laptop.run(&coordinator, &["machines"]).stderr;
    assert!(
        told.contains("another machine with the identity of `robot` was refused") && told.contains("from 192.0.2.8:4711)"),
        "{told}"
    );
    let table = laptop.run(&coordinator, &["list"]).stdout;
    assert!(table.starts_with("NAME  STATE    NODES  MACHINES  STARTED"), "{table}");
    assert!(table.contains("robot unreachable since"), "{table}");
    let quiet = laptop.run(&coordinator, &["list", "-q"]).stdout;
    assert_eq!(quiet, format!("{ID}\n{ID}\n"));
    let status = laptop.run(&coordinator, &["status"]).stdout;
    assert!(status.contains("machines     2 connected, 1 unreachable\n"), "{status}");
}
