//! Backup and restore by the real program.

use crate::home::{Home, Service, good};
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt, process::Stdio};

fn start(home: &Home, state: &str) -> Service {
    let line = [
        "coordinator",
        "--trust-domain",
        "lab",
        "--state",
        state,
        "--listen",
        "127.0.0.1:0",
    ];
    let mut command = home.command(line);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut service = Service(command.spawn().expect("starts"));
    service.address();
    service
}

fn stop(mut service: Service) {
    service.terminate();
    assert!(service.0.wait().expect("ends").success());
}

#[test]
fn a_backup_comes_back_with_what_was_revoked_and_without_the_open_invites() {
    let home = Home::new();
    let path = |name: &str| home.path(name).display().to_string();
    let (state, socket, file) = (path("state"), path("state/admin.sock"), path("saved"));
    let coordinator = start(&home, &state);
    let local = |line: &[&str]| home.run(&[line, &["--admin-socket", &socket]].concat());
    let invite = |name: &str| {
        good(&local(&[
            "invite",
            "--role",
            "viewer",
            "--name",
            name,
            "--address",
            "127.0.0.1:1",
            "--token-only",
        ]))
    };
    invite("vic");
    invite("eve");
    good(&local(&["revoke", "viewer/eve", "--reason", "left", "--yes"]));

    let saved = good(&local(&["coordinator", "backup", "--out", &file]));
    assert_eq!(saved.trim(), file);
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    let again = local(&["coordinator", "backup", "--out", &file]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    good(&local(&["coordinator", "backup", "--overwrite", "--out", &file]));
    let piped = local(&["coordinator", "backup", "--out", "-"]);
    assert!(piped.status.success() && piped.stdout.len() > 1_000, "{}", piped.stdout.len());
    let left: Vec<_> = fs::read_dir(home.path(""))
        .expect("read")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert!(
        !left.iter().any(|name| name.to_string_lossy().starts_with(".tmp")),
        "{left:?}"
    );

    let busy = home.run(&["coordinator", "restore", &file, "--state", &state]);
    assert_eq!(busy.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&busy.stderr).contains("end it first"), "{busy:?}");
    // Younger than the backup, so the restore must not forget it.
    invite("mallory");
    good(&local(&["revoke", "viewer/mallory", "--reason", "stolen", "--yes"]));
    stop(coordinator);

    let restored = good(&home.run(&["coordinator", "restore", &file, "--state", &state, "--format", "json"]));
    let report: Value = serde_json::from_str(&restored).expect("a document");
    assert_eq!(report["voided_invites"], 1, "{report}");
    assert_eq!(report["kept_revocations"], 1, "{report}");
    let coordinator = start(&home, &state);
    let invites: Value = serde_json::from_str(&good(&local(&["invite", "list", "--format", "json"]))).expect("a document");
    assert!(!invites.to_string().contains("\"open\""), "{invites}");
    for name in ["eve", "mallory"] {
        let refused = local(&["invite", "--role", "viewer", "--name", name, "--address", "127.0.0.1:1"]);
        assert!(!refused.status.success(), "{name} is shut out for ever");
    }
    let accepted: Value =
        serde_json::from_str(&good(&local(&["coordinator", "accept-restore", "--format", "json"]))).expect("a document");
    assert!(
        accepted["restored"].as_str().is_some_and(|why| why.contains("backup")),
        "{accepted}"
    );
    let again: Value =
        serde_json::from_str(&good(&local(&["coordinator", "accept-restore", "--format", "json"]))).expect("a document");
    assert_eq!(again["restored"], Value::Null);
    let told = good(&local(&["audit", "--format", "json"]));
    assert!(
        told.contains(r#""verb":"restore""#) && told.contains(r#""verb":"accept-restore""#),
        "{told}"
    );
    assert!(local(&["audit", "--verify"]).status.success());
    stop(coordinator);
}

#[test]
fn what_is_no_backup_changes_nothing() {
    let home = Home::new();
    let (state, file) = (home.path("state").display().to_string(), home.path("file"));
    stop(start(&home, &state));
    let before = fs::read(home.path("state/access.redb")).expect("there");
    for text in ["", "not a backup", "PK\u{3}\u{4}"] {
        fs::write(&file, text).expect("written");
        let line = ["coordinator", "restore", file.to_str().expect("UTF-8"), "--state", &state];
        let output = home.run(&line);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("nothing was changed"), "{told}");
    }
    assert_eq!(fs::read(home.path("state/access.redb")).expect("there"), before);
}
