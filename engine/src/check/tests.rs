//! Tests of the check, on small descriptors and a temporary run directory.

use super::*;
use dora_remote_protocol::{agent_to_engine::RunOrder, ids::DataflowId};
use std::fs;
use uuid::Uuid;

impl Checked {
    /// Nothing, for tests that do not spawn.
    pub(crate) fn empty() -> Self {
        Self {
            descriptor: Descriptor::new(Vec::new()),
            nodes: BTreeMap::new(),
            local: BTreeSet::new(),
            outputs: Vec::new(),
        }
    }
}

/// An order for machine `here`.
pub(crate) fn order(yaml: &str, nodes: &[(&str, &str, bool)], run_dir: &str) -> RunOrder {
    RunOrder {
        dataflow: DataflowId(Uuid::from_u128(7)),
        name: "flow".parse().expect("a name"),
        descriptor: yaml.to_owned(),
        nodes: nodes
            .iter()
            .map(|(id, machine, dynamic)| PlacedNode {
                id: id.parse().expect("an id"),
                machine: machine.parse().expect("a name"),
                dynamic: *dynamic,
            })
            .collect(),
        machine: "here".parse().expect("a name"),
        run_dir: run_dir.to_owned(),
        uv: false,
    }
}

/// The check of an order that is right.
pub(crate) fn checked(order: &RunOrder) -> Checked {
    check(order).expect("an order that is right")
}

fn refusal(yaml: &str, nodes: &[(&str, &str, bool)], run_dir: &Path) -> Refusal {
    check(&order(yaml, nodes, run_dir.to_str().expect("UTF-8"))).expect_err("an order that is wrong")
}

#[test]
fn a_right_order_names_its_outputs() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("sub")).expect("a directory");
    let yaml = "
nodes:
  - {id: a, path: /bin/sh, outputs: [x], deploy: {working_dir: sub}}
  - {id: b, path: elsewhere/missing, inputs: {x: a/x}, deploy: {machine: there}}
  - {id: c, path: dynamic, inputs: {x: a/x}}
";
    let nodes = [("a", "here", false), ("b", "There", false), ("c", "here", true)];
    let checked = checked(&order(yaml, &nodes, dir.path().to_str().expect("UTF-8")));
    assert_eq!(checked.nodes.len(), 3);
    assert_eq!(checked.local.len(), 2);
    let path = format!(
        "{}/sub/out/00000000-0000-0000-0000-000000000007/log_a.jsonl",
        dir.path().display()
    );
    assert_eq!(checked.outputs[0].path.as_deref(), Some(path.as_str()));
    assert_eq!(checked.outputs[1].path, None, "output of dynamic nodes is not captured");
}

#[test]
fn everything_that_is_missing_is_named_with_its_machine_and_path() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("plain"), "no program").expect("writes");
    let yaml = "
nodes:
  - {id: a, path: gone.py}
  - {id: b, path: bin/gone}
  - {id: c, path: no-such-program-anywhere}
  - {id: d, path: plain}
  - {id: e, path: shell, args: echo}
";
    let nodes = ["a", "b", "c", "d", "e"].map(|id| (id, "here", false));
    let refusal = refusal(yaml, &nodes, dir.path());
    assert_eq!(refusal.code, RefusalCode::NotPrepared);
    let dir = dir.path().display();
    for part in [
        "machine `here`: ".to_owned(),
        format!("node `a`: file {dir}/gone.py does not exist"),
        format!("node `b`: file {dir}/bin/gone does not exist"),
        "node `c`: `no-such-program-anywhere` is neither".to_owned(),
        format!("node `d`: file {dir}/plain is not executable"),
        "node `e`: shell nodes are not allowed".to_owned(),
    ] {
        assert!(refusal.message.contains(&part), "{part:?} in {:?}", refusal.message);
    }
}

#[test]
fn text_and_list_must_agree() {
    let dir = tempfile::tempdir().expect("a directory");
    let yaml = "nodes: [{id: a, path: /bin/sh, deploy: {machine: there}}]";
    for nodes in [
        vec![],
        vec![("b", "here", false)],
        vec![("a", "there", true)],
        vec![("a", "here", false)],
        vec![("a", "there", false), ("b", "here", false)],
    ] {
        let refusal = refusal(yaml, &nodes, dir.path());
        assert_eq!(refusal.code, RefusalCode::BadDescriptor, "{nodes:?}: {refusal}");
        assert!(refusal.message.contains("disagree"), "{refusal}");
    }
    let refusal = refusal(yaml, &[("a", "there", false)], dir.path());
    assert_eq!(refusal.code, RefusalCode::BadRequest, "nothing to do here");
}

#[test]
fn descriptors_that_cannot_run_are_refused_as_such() {
    let dir = tempfile::tempdir().expect("a directory");
    for yaml in [
        "nodes: [{id: a, path: /bin/sh, inputs: {x: b/y}}]",
        "nodes: [{id: a, path: /bin/sh, restart_delay: -1.0}]",
        "nodes: [{id: a, path: /bin/sh, unknown_key: 1}]",
        "nodes: [{id: a, git: 'https://example.com/x.git', path: x}]",
        "nodes: [{id: a, hub: org/thing}]",
        "nodes: [{id: a, module: other.yml}]",
        "nodes: {",
    ] {
        let refusal = refusal(yaml, &[("a", "here", false)], dir.path());
        assert_eq!(refusal.code, RefusalCode::BadDescriptor, "{yaml}: {refusal}");
    }
}

#[test]
fn the_run_directory_must_be_there() {
    let refusal = refusal(
        "nodes: [{id: a, path: /bin/sh}]",
        &[("a", "here", false)],
        Path::new("/no/such/directory"),
    );
    assert_eq!(refusal.code, RefusalCode::NotPrepared);
    assert!(
        refusal.message.contains("directory /no/such/directory does not exist"),
        "{refusal}"
    );
}
