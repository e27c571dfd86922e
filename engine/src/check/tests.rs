//! Tests of the check, on small descriptors and a temporary run directory.

use super::*;
use dora_remote_protocol::{
    agent_to_engine::RunOrder,
    engine_to_agent::{OperatorFacts, OperatorKind, Starts},
    ids::DataflowId,
};
use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};
use uuid::Uuid;

impl Checked {
    /// Nothing, for tests that do not spawn.
    pub(crate) fn empty() -> Self {
        Self {
            descriptor: Descriptor::new(Vec::new()),
            nodes: BTreeMap::new(),
            local: BTreeSet::new(),
            outputs: Vec::new(),
            facts: RunFacts::default(),
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

#[test]
fn what_would_be_started_is_told_by_its_real_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().canonicalize().expect("there");
    fs::create_dir(root.join("sub")).expect("made");
    fs::write(root.join("cam.py"), "").expect("written");
    fs::write(root.join("op.py"), "").expect("written");
    for (name, content) in [
        ("camera", "\x7fELF"),
        ("run", "#!/bin/sh\n"),
        ("tool", "#!/usr/bin/env python3\n"),
    ] {
        fs::write(root.join(name), content).expect("written");
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o755)).expect("set");
    }
    symlink("/bin/sh", root.join("innocent")).expect("made");
    symlink("/etc/hostname", root.join("sub/linked.py")).expect("made");
    let yaml = "
env: {LD_PRELOAD: x, B: 1}
nodes:
  - {id: a, path: camera, env: {A: 1, B: 2}, build: make}
  - {id: b, path: ./sub/../run}
  - {id: c, path: tool}
  - {id: d, path: cam.py}
  - {id: e, path: linked.py, deploy: {working_dir: sub/../sub}}
  - {id: f, path: innocent, args: -c evil}
  - {id: g, path: dynamic}
  - {id: h, path: 'https://example.com/x'}
  - {id: i, operator: {python: op.py, outputs: [x]}}
  - {id: j, operators: [{id: one, python: {source: op.py, conda_env: env}}, {id: two, shared-library: 'http://example.com/y'}]}
  - {id: k, path: sh}
";
    let nodes = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"].map(|id| (id, "here", id == "g"));
    let checked = checked(&order(yaml, &nodes, root.to_str().expect("UTF-8")));
    let facts = checked.facts;
    assert_eq!(
        facts.environment,
        ["B", "LD_PRELOAD"],
        "names alone, and those of the dataflow apart"
    );
    assert!(!facts.uv);
    let shell = fs::canonicalize("/bin/sh").expect("there");
    let shell = shell.to_str().expect("UTF-8");
    let at = |name: &str| root.join(name).to_str().expect("UTF-8").to_owned();
    let program = |file: String, shell: Option<&str>| Starts::Program {
        file,
        shell: shell.map(str::to_owned),
    };
    let python = |script: String| Starts::Python { script };
    let operator = |kind, file: Option<&str>, conda| OperatorFacts {
        kind,
        file: file.map(at),
        conda,
    };
    let real_shell = Path::new(shell).file_name().expect("a name").to_str().expect("UTF-8");
    let wanted = [
        program(at("camera"), None),
        program(at("run"), Some("it is a script for `/bin/sh`")),
        python(at("tool")),
        python(at("cam.py")),
        python(
            fs::canonicalize("/etc/hostname")
                .expect("there")
                .to_str()
                .expect("UTF-8")
                .to_owned(),
        ),
        program(
            shell.to_owned(),
            Some(&format!("`{real_shell}` starts what its arguments say")),
        ),
        Starts::Nothing,
        Starts::Download,
        Starts::Operators(vec![operator(OperatorKind::Python, Some("op.py"), false)]),
        Starts::Operators(vec![
            operator(OperatorKind::Python, Some("op.py"), true),
            operator(OperatorKind::SharedLibrary, None, false),
        ]),
        program(shell.to_owned(), Some("`sh` starts what its arguments say")),
    ];
    for (facts, starts) in facts.nodes.iter().zip(wanted) {
        assert_eq!(facts.starts, starts, "{}", facts.node);
        let dir = if facts.node.as_str() == "e" { at("sub") } else { at("") };
        assert_eq!(facts.dir, dir.trim_end_matches('/'), "{}", facts.node);
        assert_eq!(facts.build, facts.node.as_str() == "a");
        assert!(!facts.git);
    }
    assert_eq!(facts.nodes[0].environment, ["A", "B"]);
    assert!(facts.nodes[1].environment.is_empty());
    assert_eq!(facts.nodes.len(), nodes.len());
}
