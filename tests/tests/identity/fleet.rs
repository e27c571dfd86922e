//! How the members of a fleet come in, and what is on record of them and in their files.

use dora_remote_tests::{
    cluster::{Cluster, TRUST_DOMAIN, text},
    lines::numbers,
    patience,
    run_cli::{Cli, Running},
};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
};

/// Makes an invite and gives its token.
#[track_caller]
pub(crate) fn invite(cluster: &Cluster, role: &str, name: &str, more: &[&str]) -> String {
    let words = ["invite", "--role", role, "--name", name, "--token-only"];
    cluster.cli().ok(&[&words, more].concat()).trim().to_owned()
}

/// Uses an invite; the identity goes to that folder of the cluster.
#[track_caller]
pub(crate) fn join(cluster: &Cluster, token: &str, folder: &str) {
    let out = cluster.path(folder);
    cluster
        .offline(&["join", token, "--out", text(&out), "--no-context"])
        .exits_with(0);
}

/// Invites a robot, which joins and starts its daemon. Gives the token.
#[track_caller]
pub(crate) fn add_robot(cluster: &mut Cluster, name: &str, more: &[&str]) -> String {
    let token = invite(cluster, "daemon", name, more);
    join(cluster, &token, &format!("daemon-{name}"));
    cluster.start_daemon(name);
    token
}

/// Invites a person, who joins. Gives them, and the token.
#[track_caller]
pub(crate) fn join_person(cluster: &Cluster, role: &str, name: &str, more: &[&str]) -> (Cli, String) {
    let token = invite(cluster, role, name, more);
    let folder = format!("{role}-{name}");
    join(cluster, &token, &folder);
    (cluster.cli().with_identity(&cluster.path(&folder)), token)
}

/// Waits until somebody has renewed so often, as the audit has it.
#[track_caller]
pub(crate) fn until_renewed(cluster: &Cluster, who: &str, times: usize) {
    let who = format!("spiffe://{TRUST_DOMAIN}/{who}");
    patience::until_true(&format!("{times} renewals of {who}"), || {
        let done = |it: &&Value| it["who"] == who.as_str() && it["result"] == "ok";
        audit(cluster, "renew").iter().filter(done).count() >= times
    });
}

/// Entries of the audit about a verb.
pub(crate) fn audit(cluster: &Cluster, verb: &str) -> Vec<Value> {
    cluster
        .cli()
        .run(&["audit", "--verb", verb, "--format", "json"])
        .exits_with(0)
        .feed()
}

/// Entries of the audit about what was refused.
pub(crate) fn refusals(cluster: &Cluster) -> Vec<Value> {
    let mut all = cluster.cli().run(&["audit", "--format", "json"]).exits_with(0).feed();
    all.retain(|it| it["result"] != "ok");
    all
}

#[track_caller]
pub(crate) fn the_audit_is_whole(cluster: &Cluster) {
    cluster.cli().run(&["audit", "--verify"]).exits_with(0);
}

/// What is on record of an identity.
#[track_caller]
pub(crate) fn record(cluster: &Cluster, role: &str, name: &str) -> Value {
    let shown = cluster.cli().json(&["certs", "show", "--all"]);
    let wanted = format!("spiffe://{TRUST_DOMAIN}/{role}/{name}");
    let all = shown["identities"].as_array().unwrap_or_else(|| panic!("{shown}"));
    let found = all.iter().find(|it| it["identity"] == wanted.as_str());
    found.unwrap_or_else(|| panic!("{wanted} is not in {shown}")).clone()
}

#[track_caller]
pub(crate) fn machine(cli: &Cli, name: &str) -> Value {
    let list = cli.json(&["machines"]);
    let all = list["machines"].as_array().expect("machines");
    let found = all.iter().find(|it| it["name"] == name);
    found.unwrap_or_else(|| panic!("{name} is not in {list}")).clone()
}

pub(crate) fn serial(cluster: &Cluster, identity: &Path) -> String {
    let outcome = cluster.offline(&["certs", "show", text(identity), "--format", "json"]);
    let shown: Value = serde_json::from_str(&outcome.exits_with(0).stdout).expect("one document");
    shown["certificates"][0]["serial"].as_str().expect("a serial").to_owned()
}

/// The process of the only node.
#[track_caller]
pub(crate) fn only_node(cluster: &Cluster) -> u32 {
    let nodes = cluster.nodes();
    assert_eq!(nodes.len(), 1, "{nodes:?}");
    nodes[0].pid
}

pub(crate) fn last(running: &Running) -> u64 {
    numbers(&running.output_of("ticker"), "tick").last().copied().unwrap_or(0)
}

/// Copies a folder with its modes, as whoever clones a disk does. Sockets do not come along.
pub(crate) fn copy(from: &Path, to: &Path) {
    let mode = fs::metadata(from).expect("a folder").mode() & 0o777;
    fs::DirBuilder::new().mode(mode).create(to).expect("a fresh folder");
    for entry in fs::read_dir(from).expect("our own folder") {
        let path = entry.expect("a directory entry").path();
        let target = to.join(path.file_name().expect("a name"));
        let kind = fs::symlink_metadata(&path).expect("a file").file_type();
        if kind.is_dir() {
            copy(&path, &target);
        } else if kind.is_file() {
            fs::copy(&path, &target).expect("our own folder");
        }
    }
}

/// No log and no state file of anybody keeps one of these.
#[track_caller]
pub(crate) fn no_file_has(cluster: &Cluster, secrets: &[&str]) {
    let mut folders = vec![cluster.path("")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("our own folder") {
            let path = entry.expect("a directory entry").path();
            let kind = fs::symlink_metadata(&path).expect("a file").file_type();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let bytes = fs::read(&path).expect("our own file");
                for secret in secrets {
                    let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                    assert!(!found, "a secret lies in {}", path.display());
                }
            }
        }
    }
}
