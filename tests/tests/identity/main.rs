//! A fleet whose members were invited, whole: certificates that end while work goes on, people and robots that are shut out, a disk
//! that was copied, an operator who may use one robot, and a coordinator that comes back from a backup.

mod fleet;

use dora_remote_tests::{
    cluster::{Cluster, text},
    flows::{TICKER, TICKER_FLOW},
    lines::{assert_whole, numbers},
    patience, processes, python,
};
use fleet::{
    add_robot, audit, copy, invite, join, join_person, last, machine, no_file_has, only_node, record, refusals, serial,
    the_audit_is_whole, until_renewed,
};
use std::{fs, os::unix::fs::MetadataExt};

/// Exit codes as `dora-remote --help` lists them.
const FAILED: i32 = 1;
const NOT_FOUND: i32 = 3;
const DENIED: i32 = 4;
const CERTIFICATE: i32 = 6;

#[test]
fn dataflow_and_follower_outlive_generations_of_certificates_and_a_killed_coordinator() {
    if python::interpreter().is_none() {
        return;
    }
    let mut cluster = Cluster::start(&[]);
    let token = add_robot(&mut cluster, "A", &["--life", "14s"]);
    cluster.until_connected(&["A"]);
    let (ann, of_ann) = join_person(&cluster, "operator", "ann", &["--life", "14s"]);
    let first = serial(&cluster, &cluster.path("operator-ann"));

    let flow = cluster.flow("tick", &[("dataflow.yml", TICKER_FLOW), ("ticker.py", TICKER)]);
    let mut attached = ann.spawn(&["start", &flow, "--attach", "--name", "tick", "--format", "json"]);
    attached.until_line("tick 5 ");
    let node = only_node(&cluster);

    // A power cut in the middle. It goes unnoticed by nodes, followers and certificates.
    until_renewed(&cluster, "daemon/A", 1);
    cluster.kill_coordinator();
    cluster.start_coordinator();
    until_renewed(&cluster, "daemon/A", 3);
    until_renewed(&cluster, "operator/ann", 2);
    assert_ne!(serial(&cluster, &cluster.path("operator-ann")), first, "it is on disk too");
    let so_far = last(&attached);
    attached.until_line(&format!("tick {} ", so_far + 5));
    assert!(processes::lives(node), "the node has outlived all of it");
    assert_eq!(record(&cluster, "daemon", "A")["recoveries"], 0, "it has never lapsed");
    assert!(
        cluster.cli().until_machine("A", true)["quarantined"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );

    // A fresh command of hers is let in with what came of the renewals.
    ann.run(&["stop", "tick"]).exits_with(0);
    let outcome = attached.wait();
    assert_whole("ticks", &numbers(&outcome.exits_with(0).output_of("ticker"), "tick"), 1);
    cluster.no_node_is_left();
    the_audit_is_whole(&cluster);
    no_file_has(&cluster, &[token.as_str(), of_ann.as_str()]);
}

#[test]
fn who_is_revoked_is_gone_at_once_and_stays_out() {
    if python::interpreter().is_none() {
        return;
    }
    let mut cluster = Cluster::start(&[]);
    let policy = "[run]\nexecutables = ['bundle']\npython = true\n[link]\non_revoked = 'stop'\n";
    cluster.set_policy("strict", policy);
    for robot in ["lax", "strict"] {
        add_robot(&mut cluster, robot, &[]);
    }
    cluster.until_connected(&["lax", "strict"]);
    let admin = cluster.cli();
    let flow = cluster.flow("tick", &[("dataflow.yml", TICKER_FLOW), ("ticker.py", TICKER)]);
    for robot in ["lax", "strict"] {
        admin.ok(&[
            "start",
            &flow,
            "--detach",
            "--name",
            &format!("on-{robot}"),
            "--machine",
            robot,
        ]);
        admin.until_state(&format!("on-{robot}"), "Running");
    }

    // A follower.
    let (vic, _) = join_person(&cluster, "viewer", "vic", &[]);
    let mut following = vic.spawn(&["logs", "on-lax", "--follow"]);
    following.until_line("tick 3 ");
    admin.run(&["revoke", "vic", "--reason", "left us", "--yes"]).exits_with(0);
    following.wait().exits_with(CERTIFICATE).says(&["revoked"]);
    vic.run(&["list"]).exits_with(CERTIFICATE).says(&["revoked"]);

    // A robot whose dataflows go on, and one whose owner wants them stopped then.
    assert_eq!(cluster.nodes().len(), 2);
    for robot in ["lax", "strict"] {
        admin.run(&["revoke", &format!("daemon/{robot}"), "--yes"]).exits_with(0);
        admin.until_machine(robot, false);
    }
    patience::until_true("the end of the strict robot's node", || cluster.nodes().len() == 1);
    let node = only_node(&cluster);
    let flow = admin.dataflow("on-lax").expect("a dataflow");
    assert_eq!(flow["unreachable"][0]["machine"], "lax", "{flow}");

    // Neither a restart of the daemon nor one of the coordinator lets them in.
    cluster.kill_coordinator();
    cluster.start_coordinator();
    let before = cluster.daemon_log("lax").len();
    cluster.kill_daemon("lax");
    cluster.start_daemon("lax");
    patience::until_true("the restarted robot hears that it is revoked", || {
        cluster.daemon_log("lax")[before..].contains("revoked")
    });
    for robot in ["lax", "strict"] {
        assert_eq!(machine(&admin, robot)["connected"], false);
        assert!(record(&cluster, "daemon", robot)["revoked"].is_object());
    }
    assert!(processes::lives(node), "its node goes on over all of it");
    vic.run(&["list"]).exits_with(CERTIFICATE).says(&["revoked"]);
    let revocations = audit(&cluster, "revoke");
    assert_eq!(revocations.len(), 3, "each once: {revocations:#?}");
    the_audit_is_whole(&cluster);
}

#[test]
fn of_a_copied_disk_and_its_original_both_are_named_and_the_original_returns_at_once() {
    let mut cluster = Cluster::start(&[]);
    add_robot(&mut cluster, "R", &[]);
    cluster.until_connected(&["R"]);
    let original = cluster.engine_pid("R");
    cluster.kill_daemon("R");
    copy(&cluster.path("R"), &cluster.path("copy"));
    copy(&cluster.path("daemon-R"), &cluster.path("daemon-copy"));
    cluster.start_daemon("R");
    cluster.until_connected(&["R"]);

    cluster.start_daemon("copy");
    let admin = cluster.cli();
    let twin = patience::until("the copy is refused", || {
        let machine = machine(&admin, "R");
        let twins = machine["quarantined"].as_array()?;
        assert_eq!(machine["connected"], true, "{machine}");
        twins.first().cloned()
    });
    let shown = admin.run(&["machines"]);
    shown.exits_with(0).says(&[
        "another machine with the identity of `R`",
        twin["instance"].as_str().expect("an id"),
    ]);
    patience::until_true("the copy hears why", || {
        cluster
            .daemon_log("copy")
            .contains("another machine with the identity of `R`")
    });
    assert_eq!(
        cluster.engine_pid("R"),
        original,
        "the copy has not touched the engine of the original"
    );

    // The original comes back at once, as often as it likes, while the copy knocks.
    for _ in 0..2 {
        cluster.kill_daemon("R");
        cluster.start_daemon("R");
        cluster.until_connected(&["R"]);
        assert_eq!(cluster.engine_pid("R"), original);
    }
    // Whoever joins anew there is a robot of its own.
    cluster.kill_daemon("copy");
    fs::remove_dir_all(cluster.path("copy")).expect("our own folder");
    add_robot(&mut cluster, "S", &[]);
    cluster.until_connected(&["R", "S"]);
    the_audit_is_whole(&cluster);
}

#[test]
fn an_operator_of_one_robot_has_no_say_on_another_and_sees_nothing_of_it() {
    if python::interpreter().is_none() {
        return;
    }
    let mut cluster = Cluster::start(&[]);
    add_robot(&mut cluster, "arm", &["--labels", "team=arm"]);
    // What a daemon says of itself counts for nothing.
    add_robot(&mut cluster, "leg", &["--labels", "team=leg"]);
    cluster.until_connected(&["arm", "leg"]);
    let admin = cluster.cli();
    let (olga, _) = join_person(&cluster, "operator", "olga", &["--machines", "team=arm"]);
    let flow = cluster.flow("tick", &[("dataflow.yml", TICKER_FLOW), ("ticker.py", TICKER)]);
    admin.ok(&["start", &flow, "--detach", "--name", "theirs", "--machine", "leg"]);
    admin.until_state("theirs", "Running");
    let before = refusals(&cluster).len();

    olga.run(&["start", &flow, "--detach", "--name", "mine", "--machine", "leg"])
        .exits_with(DENIED);
    for words in [&["stop", "theirs"][..], &["logs", "theirs"], &["logs", "theirs", "--follow"]] {
        let outcome = olga.run(words);
        assert!([NOT_FOUND, DENIED].contains(&outcome.code), "{outcome:?}");
        assert!(!outcome.stdout.contains("tick"), "{outcome:?}");
    }
    assert!(olga.dataflow("theirs").is_none());
    let machines = olga.json(&["machines"]);
    let names: Vec<_> = machines["machines"]
        .as_array()
        .expect("machines")
        .iter()
        .map(|it| &it["name"])
        .collect();
    assert_eq!(names, ["arm"]);
    // Everything that she may stop is everything that is hers.
    olga.run(&["stop", "--all", "--yes"]);
    assert_eq!(admin.dataflow("theirs").expect("a dataflow")["state"], "Running");

    // Without a word she gets the one that is hers.
    olga.ok(&["start", &flow, "--detach", "--name", "mine"]);
    let mine = olga.until_state("mine", "Running");
    assert_eq!(mine["nodes"][0]["machine"], "arm", "{mine}");
    olga.run(&["stop", "mine"]).exits_with(0);
    assert!(olga.ok(&["logs", "mine"]).contains("tick 1 "));
    admin.run(&["stop", "theirs"]).exits_with(0);

    let refused = refusals(&cluster).split_off(before);
    let by_olga = refused
        .iter()
        .filter(|it| it["who"].as_str().is_some_and(|who| who.ends_with("/operator/olga")));
    let verbs: Vec<_> = by_olga.map(|it| it["verb"].as_str().expect("a verb")).collect();
    assert_eq!(verbs.iter().filter(|verb| **verb == "start").count(), 1, "{refused:#?}");
    cluster.no_node_is_left();
    the_audit_is_whole(&cluster);
}

#[test]
fn a_coordinator_from_a_backup_lets_in_nobody_whom_it_has_forgotten_to_shut_out() {
    let mut cluster = Cluster::start(&[]);
    let admin = cluster.cli();
    add_robot(&mut cluster, "witness", &[]);
    add_robot(&mut cluster, "lapsing", &["--life", "5s"]);
    cluster.until_connected(&["witness", "lapsing"]);
    let (vic, _) = join_person(&cluster, "viewer", "vic", &[]);
    let (used, open) = (
        invite(&cluster, "viewer", "una", &[]),
        invite(&cluster, "viewer", "otto", &[]),
    );
    cluster.kill_daemon("lapsing");

    let backup = cluster.path("backup");
    admin.ok(&["coordinator", "backup", "--out", text(&backup)]);
    assert_eq!(
        fs::metadata(&backup).expect("a file").mode() & 0o077,
        0,
        "for nobody else to read"
    );
    admin.run(&["revoke", "viewer/vic", "--yes"]).exits_with(0);
    join(&cluster, &used, "viewer-una");
    patience::until_true("the witness knows of the revocation", || {
        cluster.daemon_log("witness").contains("the revocations are kept count=1")
    });
    cluster.kill_coordinator();
    let state = cluster.path("coordinator");
    fs::rename(&state, cluster.path("lost")).expect("our own folder");
    cluster
        .offline(&["coordinator", "restore", text(&backup), "--state", text(&state)])
        .exits_with(0);
    cluster.start_coordinator();
    cluster.until_connected(&["witness"]);

    patience::until_true("the revocation is back", || vic.run(&["list"]).code == CERTIFICATE);
    for token in [&used, &open] {
        let out = cluster.path("thief");
        let outcome = cluster.offline(&["join", token, "--out", text(&out), "--no-context"]);
        outcome.exits_with(DENIED);
        assert!(!out.join("identity.crt").exists());
    }
    cluster.start_daemon("lapsing");
    patience::until_true("the lapsed robot is told to wait", || {
        cluster.daemon_log("lapsing").contains("accept-restore")
    });
    assert_eq!(machine(&admin, "lapsing")["connected"], false);
    admin.run(&["coordinator", "accept-restore"]).exits_with(0);
    admin.until_machine("lapsing", true);
    assert_eq!(record(&cluster, "daemon", "lapsing")["recoveries"], 1);

    // What is right goes on: who has joined since the backup, and new invites. Who was shut out stays so.
    let una = admin.with_identity(&cluster.path("viewer-una"));
    una.run(&["list"]).exits_with(0);
    join_person(&cluster, "viewer", "nora", &[]).0.run(&["list"]).exits_with(0);
    vic.run(&["list"]).exits_with(CERTIFICATE).says(&["revoked"]);
    // Entries were lost with the disk, and one who has witnessed them says so, whatever stands in their place now.
    let verified = cluster.cli().run(&["audit", "--verify"]);
    assert!(
        verified
            .exits_with(FAILED)
            .stdout
            .contains("a restore from a backup may be the reason"),
        "{verified:?}"
    );
    assert_eq!(audit(&cluster, "accept-restore").len(), 1);
}
