//! Certificates of people: renewed in passing, by a timer while something is followed, once for all processes; and their end.

use crate::patience::until;
use crate::world::{BIN, Coordinator, Home, OWN};
use std::{
    fs,
    process::Stdio,
    time::{Duration, SystemTime},
};

const MINUTE: Duration = Duration::from_secs(60);

/// Certificates that were issued to somebody on renewal, as the audit has it.
fn renewals(coordinator: &Coordinator) -> usize {
    let lines = coordinator.home.ok(&["audit", "--verb", "renew", "--format", "json"]);
    lines.lines().filter(|line| line.contains("\"renew\"")).count()
}

fn serial(home: &Home) -> String {
    home.serial(&home.path(OWN))
}

#[test]
fn a_command_in_the_last_third_renews_in_passing_and_once() {
    let coordinator = Coordinator::of_yesterday();
    let fresh = coordinator.issued("spiffe://lab/viewer/ann", 60 * MINUTE, 20 * MINUTE);
    let before = serial(&fresh);
    fresh.json(&["list"]);
    assert_eq!(serial(&fresh), before, "there is time enough");

    let old = coordinator.issued("spiffe://lab/viewer/bob", 60 * MINUTE, 50 * MINUTE);
    let before = serial(&old);
    let seen = old.run(&["list", "--format", "json"]);
    assert_eq!(
        (seen.exit, seen.stderr.as_str()),
        (0, ""),
        "a program hears nothing of it: {seen:?}"
    );
    serde_json::from_str::<serde_json::Value>(&seen.stdout).expect("one document");
    let after = serial(&old);
    assert_ne!(after, before);
    assert_eq!(old.json(&["status"])["asker"], "spiffe://lab/viewer/bob", "with the new one");
    assert_eq!(serial(&old), after, "nothing is left to do");
    assert_eq!(renewals(&coordinator), 1);
}

#[test]
fn of_many_processes_one_renews() {
    let coordinator = Coordinator::of_yesterday();
    let home = coordinator.issued("spiffe://lab/viewer/ci", 60 * MINUTE, 50 * MINUTE);
    let spawn = || {
        let mut command = home.command(BIN);
        command.arg("list").stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("runs")
    };
    let all: Vec<_> = (0..6).map(|_| spawn()).collect();
    for child in all {
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success(), "{output:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("warning"), "{output:?}");
    }
    assert_eq!(renewals(&coordinator), 1);
}

#[test]
fn where_the_identity_cannot_be_written_the_command_goes_on_with_a_warning() {
    let coordinator = Coordinator::of_yesterday();
    let home = coordinator.issued("spiffe://lab/viewer/ci", 60 * MINUTE, 50 * MINUTE);
    let before = serial(&home);
    // The user who runs the tests may be allowed to write everywhere; nobody can write a directory as if it were a file.
    fs::create_dir(home.path(OWN).join("renew.lock")).expect("made");
    let seen = home.run(&["list", "--format", "json"]);
    assert_eq!(seen.exit, 0, "{seen:?}");
    assert_eq!(
        seen.stderr.matches("warning: your certificate ends in").count(),
        1,
        "{}",
        seen.stderr
    );
    assert!(seen.stderr.contains("cannot be written"), "{}", seen.stderr);
    assert_eq!(serial(&home), before);
}

#[test]
fn whoever_follows_something_outlives_the_certificate() {
    let coordinator = Coordinator::of_yesterday();
    let life = Duration::from_secs(12);
    let home = coordinator.issued("spiffe://lab/admin/ann", life, Duration::from_secs(4));
    let ends = SystemTime::now() + life - Duration::from_secs(3);
    let before = serial(&home);
    let follow = |name| {
        let mut command = home.command(BIN);
        command.args(["audit", "--follow"]);
        home.start(command, name)
    };
    // One of them renews, and its connection lives on; the other one takes over the new certificate, and connects with it.
    let _following = (follow("first"), follow("second"));
    until("the certificate is renewed", || serial(&home) != before);
    assert!(SystemTime::now() < ends, "before its end");
    until("the old certificate has ended", || SystemTime::now() > ends);
    coordinator.invite("viewer", "after-the-end", &[]);
    for name in ["first", "second"] {
        until("what happens then is followed", || {
            home.text(&format!("{name}.out")).contains("after-the-end")
        });
        let said = home.text(&format!("{name}.err"));
        assert!(!said.contains("error") && !said.contains("warning"), "{name}: {said}");
    }
    let lost = ["first", "second"].map(|name| home.text(&format!("{name}.err")).contains("was lost"));
    assert!(!lost.iter().all(|lost| *lost), "the one who renewed has kept its connection");
    assert_eq!(renewals(&coordinator), 1);
}

#[test]
fn a_certificate_that_has_ended_ends_with_6_and_the_way_back_in() {
    let coordinator = Coordinator::of_yesterday();
    let home = coordinator.issued("spiffe://lab/viewer/ann", 30 * MINUTE, 40 * MINUTE);
    let seen = home.run(&["list"]);
    assert_eq!(seen.exit, 6, "{seen:?}");
    assert!(
        seen.stderr.contains("our certificate ended at") && seen.stderr.contains("dora-remote join"),
        "{}",
        seen.stderr
    );
}
