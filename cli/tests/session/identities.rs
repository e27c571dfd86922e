//! Commands that the coordinator turns away for who asks.

use crate::{coordinator::Script, laptop::Laptop};

#[test]
fn a_viewer_may_not_stop_and_is_told_so() {
    let laptop = Laptop::new();
    let coordinator = laptop.coordinator(Script::default());
    let issue = [
        "certs",
        "issue",
        "--authority",
        "authority",
        "--role",
        "viewer",
        "--name",
        "vic",
        "--out",
        "vic",
    ];
    assert!(laptop.command(&issue).output().expect("runs").status.success());
    let seen = laptop.run(&coordinator, &["stop", "arm", "--identity", "vic"]);
    assert_eq!(seen.exit, 4, "{seen:?}");
    assert!(seen.stderr.contains("nothing was changed"), "{}", seen.stderr);
}

#[test]
fn an_identity_of_another_authority_is_a_certificate_failure() {
    let laptop = Laptop::new();
    let coordinator = laptop.coordinator(Script::default());
    assert!(
        laptop
            .command(&["certs", "init", "--out", "other"])
            .output()
            .expect("runs")
            .status
            .success()
    );
    let seen = laptop.run(&coordinator, &["list", "--identity", "other/admin"]);
    assert_eq!(seen.exit, 6, "{seen:?}");
    assert!(seen.stderr.contains("authority that we do not know"), "{}", seen.stderr);
}
