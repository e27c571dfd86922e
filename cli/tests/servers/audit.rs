//! The audit of a real coordinator: listed, followed, checked, and tampered with.

use crate::{
    home::{Lines, PATIENCE, Service, good},
    site::Site,
};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;
use std::{process::Stdio, time::Instant};

/// Number to entry, as the coordinator keeps them.
const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
/// Among others the number of the last entry that was written.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Among others its hash.
const HASHES: TableDefinition<'_, &str, [u8; 32]> = TableDefinition::new("hashes");

fn names(prefix: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |n| format!("{prefix}{n}"))
}

fn seqs(entries: &[Value]) -> Vec<u64> {
    entries.iter().map(|entry| entry["seq"].as_u64().expect("a number")).collect()
}

#[test]
fn what_was_done_and_what_was_refused_is_listed_and_can_be_narrowed_down() {
    let site = Site::new();
    site.invite(names("robot", 3));
    let viewer = site.identity("viewer", "vic");
    let refused = site
        .home
        .run(&["stop", "arm", "--coordinator-addr", &site.address, "--identity", &viewer]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");

    let wanted = Instant::now() + PATIENCE;
    // A refusal is written soon, and nobody waits for it.
    let denied = loop {
        let found = site.entries(&["--who", "VIEWER/vic", "--verb", "stop"]);
        if let [only] = found.as_slice() {
            break only.clone();
        }
        assert!(found.is_empty() && Instant::now() < wanted, "{found:?}");
    };
    assert_eq!(denied["result"], "denied");
    assert_eq!(denied["who"], "spiffe://lab/viewer/vic");
    assert!(!denied["serial"].as_str().expect("text").is_empty());
    assert!(denied["from"].as_str().expect("text").starts_with("127.0.0.1:"), "{denied}");
    assert_eq!(denied["request_id"].as_str().map(str::len), Some(36), "{denied}");

    let all = site.entries(&[]);
    let numbers = seqs(&all);
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    let invites = site.entries(&["--verb", "invite", "--since", "1h"]);
    assert_eq!(invites.len(), 3);
    assert!(
        invites
            .iter()
            .all(|entry| entry["who"].as_str().is_some_and(|who| who.starts_with("local ")))
    );
    assert!(
        invites[2]["target"].as_str().is_some_and(|target| target.contains("robot2")),
        "{invites:?}"
    );
    assert!(site.entries(&["--since", "2100-01-01"]).is_empty());

    let table = good(&site.local(&["audit", "--verb", "stop"]));
    assert!(table.starts_with("TIME"), "{table}");
    let row = table.lines().nth(1).expect("a row");
    for cell in ["spiffe://lab/viewer/vic", "stop", "denied"] {
        assert!(row.contains(cell), "{table}");
    }
    // Over the network it is the same, for an admin and for nobody else.
    let admin = site.identity("admin", "ann");
    let remote = ["--coordinator-addr", &site.address, "--identity"];
    let line = |identity: &str| {
        site.home
            .run(&[&["audit", "--verb", "stop"], &remote[..], &[identity]].concat())
    };
    assert_eq!(good(&line(&admin)), table);
    assert_eq!(line(&viewer).status.code(), Some(4));
}

#[test]
fn a_follower_sees_each_entry_once_over_the_death_of_the_coordinator() {
    let mut site = Site::new();
    site.invite(names("before", 2));
    let admin = site.identity("admin", "ann");
    let line = [
        "audit",
        "-f",
        "--format",
        "json",
        "--verb",
        "invite",
        "--coordinator-addr",
        &site.address,
        "--identity",
        &admin,
    ];
    let mut command = site.home.command(line);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut follower = Service(command.spawn().expect("starts"));
    let lines = Lines::of(follower.0.stdout.take().expect("piped"));
    let target = |line: String| {
        let entry: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(entry["type"], "entry");
        entry["target"].as_str().expect("text").to_owned()
    };
    for name in names("before", 2) {
        assert!(target(lines.next()).contains(&name));
    }
    site.invite(names("live", 1));
    assert!(target(lines.next()).contains("live0"));
    site.kill();
    site.start();
    site.invite(names("after", 2));
    for name in names("after", 2) {
        let seen = target(lines.next());
        assert!(seen.contains(&name), "{seen} instead of {name}");
    }
}

#[test]
fn a_whole_audit_is_intact_and_what_cannot_be_proven_is_said() {
    let site = Site::new();
    site.invite(names("robot", 3));
    let (exit, document, told) = site.verify();
    assert_eq!(exit, Some(0), "{told}");
    assert_eq!(
        (&document["intact"], &document["witnessed_to"]),
        (&Value::Bool(true), &Value::from(0))
    );
    assert_eq!(document["entries"], document["last_seq"]);
    assert!(
        document["not_proven"].to_string().contains("no daemon confirms this chain"),
        "{document}"
    );
    let people = good(&site.local(&["audit", "--verify"]));
    let last = document["last_seq"].as_u64().expect("a number");
    assert!(people.starts_with(&format!("intact up to entry {last} (hash ")), "{people}");
    assert!(people.contains("not proven:\n- "), "{people}");

    // With a witness, the same over the network, by the root that the identity pins.
    let _daemon = site.daemon();
    let admin = site.identity("admin", "ann");
    let line = [
        "audit",
        "--verify",
        "--format",
        "json",
        "--coordinator-addr",
        &site.address,
        "--identity",
        &admin,
    ];
    let wanted = Instant::now() + PATIENCE;
    let document = loop {
        let document: Value = serde_json::from_str(&good(&site.home.run(&line))).expect("a document");
        let witnessed = document["witnessed_to"].as_u64().expect("a number");
        if witnessed >= last {
            break document;
        }
        assert!(Instant::now() < wanted, "{document}");
    };
    assert_eq!(document["signatures_checked"], true);
    assert_eq!(document["witnesses"][0]["machine"], "arm");
    assert_eq!(document["witnesses"][0]["problems"], Value::Array(Vec::new()));
    // A root that has not signed what the machine keeps makes it worth nothing.
    good(&site.home.run(&[
        "certs",
        "init",
        "--trust-domain",
        "lab",
        "--out",
        &site.home.path("other").display().to_string(),
    ]));
    let other = site.home.path("other/root.crt").display().to_string();
    let output = site.local(&["audit", "--verify", "--root", &other, "--format", "json"]);
    let document: Value = serde_json::from_str(&good(&output)).expect("a document");
    assert_eq!(document["witnessed_to"], 0);
    assert!(
        document["witnesses"][0]["problems"].to_string().contains("does not count"),
        "{document}"
    );
}

#[test]
fn an_entry_that_was_altered_removed_or_moved_is_named() {
    let mut site = Site::new();
    site.invite(names("robot", 6));
    site.stop();
    let original: Vec<(u64, Vec<u8>)> = {
        let database = site.database();
        let read = database.begin_read().expect("begun");
        let table = read.open_table(ENTRIES).expect("there");
        let rows = table.iter().expect("rows").map(|row| row.expect("a row"));
        rows.map(|(seq, row)| (seq.value(), row.value().to_vec())).collect()
    };
    let (at, row) = original
        .iter()
        .find(|(_, row)| row.windows(6).any(|text| text == b"robot2"))
        .expect("the invite of robot2");
    let mut altered = row.clone();
    let place = altered.windows(6).position(|text| text == b"robot2").expect("there");
    altered[place + 5] = b'9';
    let next = &original[usize::try_from(*at).expect("small")].1;
    let tampered: [(&str, Vec<Change>, String); 3] = [
        ("altered", vec![(*at, Some(altered))], format!("entry {at} was altered")),
        ("removed", vec![(*at, None)], format!("entry {at} is missing")),
        (
            "moved",
            vec![(*at, Some(next.clone())), (*at + 1, Some(row.clone()))],
            format!("entry {at} "),
        ),
    ];
    for (what, changes, wanted) in tampered {
        write(&site, &changes);
        site.start();
        let (exit, document, told) = site.verify();
        assert_eq!(exit, Some(1), "{what}: {document}");
        assert_eq!(document["intact"], false, "{what}");
        assert!(told.contains("error: the audit is not what was written"), "{what}: {told}");
        assert!(document["faults"].to_string().contains(&wanted), "{what}: {document}");
        let people = site.local(&["audit", "--verify"]);
        assert_eq!(people.status.code(), Some(1));
        assert!(
            String::from_utf8_lossy(&people.stdout).starts_with("broken: entr"),
            "{people:?}"
        );
        site.stop();
        let restored: Vec<_> = original.iter().map(|(seq, row)| (*seq, Some(row.clone()))).collect();
        write(&site, &restored);
    }
}

/// What stands under a number from now on, or that nothing does.
type Change = (u64, Option<Vec<u8>>);

fn write(site: &Site, changes: &[Change]) {
    let database = site.database();
    let writing = database.begin_write().expect("begun");
    {
        let mut table = writing.open_table(ENTRIES).expect("there");
        for (seq, row) in changes {
            match row {
                Some(row) => drop(table.insert(seq, row.as_slice()).expect("written")),
                None => drop(table.remove(seq).expect("removed")),
            }
        }
    }
    writing.commit().expect("committed");
}

#[test]
fn ten_entries_that_were_cut_off_are_missed_by_the_daemon_that_witnessed_them() {
    let mut site = Site::new();
    site.invite(names("robot", 15));
    let daemon = site.daemon();
    let last = *seqs(&site.entries(&[])).last().expect("entries");
    let wanted = Instant::now() + PATIENCE;
    while site.verify().1["witnessed_to"].as_u64() < Some(last) {
        assert!(Instant::now() < wanted, "{:?}", site.verify());
    }
    site.stop();
    // Somebody who knows the format: the end is made to fit, so that nothing in the file itself is wrong.
    let database = site.database();
    let writing = database.begin_write().expect("begun");
    {
        let mut table = writing.open_table(ENTRIES).expect("there");
        for _ in 0..10 {
            drop(table.pop_last().expect("an entry"));
        }
        let (seq, row) = table.last().expect("read").expect("more entries");
        let mut hash = [0; 32];
        hash.copy_from_slice(&row.value()[row.value().len() - 32..]);
        writing
            .open_table(META)
            .expect("there")
            .insert("head", seq.value())
            .expect("written");
        writing
            .open_table(HASHES)
            .expect("there")
            .insert("head", hash)
            .expect("written");
    }
    writing.commit().expect("committed");
    drop(database);

    site.start();
    // Without the witness nothing can be said against the file; with it, the cut is found as soon as it is back.
    let wanted = Instant::now() + PATIENCE;
    let (document, told) = loop {
        let (exit, document, told) = site.verify();
        if exit == Some(1) {
            break (document, told);
        }
        assert!(exit == Some(0) && Instant::now() < wanted, "{document}");
    };
    assert!(document["faults"].to_string().contains("arm witnesses"), "{document}");
    assert!(told.contains("error: the audit is not what was written"), "{told}");
    drop(daemon);
}
