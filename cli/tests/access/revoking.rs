//! `revoke`: who is shut out hears so at once, and is never let in again.

use crate::patience::until;
use crate::world::{BIN, Coordinator};
use std::{
    fs::{self, File},
    io::Write,
};

#[test]
fn whoever_follows_something_is_told_within_a_moment_and_ends_with_6() {
    let coordinator = Coordinator::start();
    let bob = coordinator.joined("admin", "bob");
    let mut command = bob.command(BIN);
    command.args(["audit", "--follow"]);
    let mut following = bob.start(command, "audit");
    until("he follows", || bob.text("audit.out").contains("bob"));

    let seen = coordinator.home.run(&["revoke", "admin/bob", "--reason", "laptop stolen"]);
    assert_eq!(seen.exit, 0, "{seen:?}");
    assert_eq!(seen.stdout, "admin/bob\n");
    assert!(seen.stderr.contains("1 connection was closed"), "{}", seen.stderr);
    assert_eq!(following.ended(), 6, "{}", bob.text("audit.err"));
    let said = bob.text("audit.err");
    assert!(said.contains("revoked") && said.contains("ask an admin why"), "{said}");

    let late = bob.run(&["list"]);
    assert_eq!(late.exit, 6, "{late:?}");
    let known = coordinator.home.json(&["certs", "show", "--all"]);
    assert_eq!(known["identities"][0]["state"], "revoked");
    let why = known["identities"][0]["revoked"]["reason"].as_str().expect("a reason");
    assert!(why.starts_with("laptop stolen"), "{why}");
    let again = coordinator.home.json(&["revoke", "bob"]);
    assert_eq!((again["new"].as_bool(), again["role"].as_str()), (Some(false), Some("admin")));
    let line = ["invite", "--role", "admin", "--name", "bob", "--address", "h"];
    assert_ne!(coordinator.home.run(&line).exit, 0, "the name is gone for ever");
}

#[test]
fn one_certificate_can_be_shut_out_by_its_number() {
    let coordinator = Coordinator::start();
    let ann = coordinator.joined("viewer", "ann");
    let serial = ann.serial(&ann.identity("viewer", "ann"));
    let revoked = coordinator.home.json(&["revoke", &serial, "--yes"]);
    assert_eq!(revoked["serial"].as_str(), Some(serial.as_str()));
    assert_eq!(ann.run(&["list"]).exit, 6);
    assert_eq!(coordinator.home.run(&["revoke", "nobody-of-that-name"]).exit, 3);
}

#[test]
fn a_person_is_told_whom_it_asks_and_is_asked_first() {
    let coordinator = Coordinator::start();
    let admin = coordinator.joined("admin", "ann");
    coordinator.joined("viewer", "vera");
    let on_a_terminal = |line: &str, typed: &str| {
        fs::write(admin.path("typed"), typed).expect("written");
        let mut script = admin.command("script");
        script.args(["-qec", &format!("{BIN} {line}"), "/dev/null"]);
        script.stdin(File::open(admin.path("typed")).expect("there"));
        let output = script.output().ok()?;
        let seen = String::from_utf8_lossy(&output.stdout).into_owned();
        Some((output.status.code(), seen))
    };
    let Some((exit, seen)) = on_a_terminal("revoke vera", "no\n") else {
        writeln!(std::io::stderr(), "SKIPPED: no script(1)").expect("written");
        return;
    };
    assert_eq!(exit, Some(1), "{seen}");
    assert!(
        seen.contains(&format!("coordinator {} (context lab)", coordinator.address)),
        "{seen}"
    );
    assert!(
        seen.contains("shuts vera out for good") && seen.contains("nothing was changed"),
        "{seen}"
    );
    let (exit, seen) = on_a_terminal("revoke vera", "vera\n").expect("it was there before");
    assert_eq!(exit, Some(0), "{seen}");
    assert!(seen.contains("viewer/vera is revoked"), "{seen}");
    for line in ["invite list", "certs show --all", "audit", "status", "machines", "list"] {
        let (_, seen) = on_a_terminal(line, "").expect("it was there before");
        assert!(
            seen.contains(&format!("coordinator {}", coordinator.address)),
            "{line}: {seen}"
        );
    }
}
