//! `join`: the line that is pasted, the same line again, and all the tokens that open no door.

use crate::patience::until;
use crate::world::{BIN, Coordinator, Home};
use dora_remote_protocol::invite::InviteToken;
use std::{fs, net::UdpSocket};

/// The same token with one part exchanged.
fn tampered(token: &str, addresses: Option<&[&str]>, root_hash: Option<[u8; 32]>) -> String {
    let token: InviteToken = token.parse().expect("a token");
    let given = addresses.map(|all| all.iter().map(ToString::to_string).collect());
    let addresses = given.unwrap_or_else(|| token.addresses().to_vec());
    let root_hash = root_hash.unwrap_or_else(|| *token.root_hash());
    let (seed, expires) = (token.seed().clone(), token.expires_unix_ms());
    let token = InviteToken::new(token.identity(), addresses, root_hash, seed, expires);
    token.expect("a token").to_string()
}

#[test]
fn two_pasted_lines_bring_a_machine() {
    let coordinator = Coordinator::start();
    let line = ["invite", "--role", "daemon", "--name", "robot-7", "--labels", "team=arm"];
    let printed = coordinator
        .home
        .ok(&[&line[..], &["--address", &coordinator.address]].concat());
    assert!(
        printed.starts_with("dora-remote join dri1-") && printed.ends_with(" && dora-remote daemon"),
        "{printed}"
    );
    assert_eq!(printed.lines().count(), 1);

    let robot = Home::new();
    let mut shell = robot.command("sh");
    shell.args(["-c", &printed]);
    let _daemon = robot.start(shell, "daemon");
    let admin = coordinator.joined("admin", "ann");
    until("the robot is connected", || {
        let machines = admin.json(&["machines"]);
        let machine = &machines["machines"][0];
        machine["name"] == "robot-7" && machine["connected"] == true && machine["labels"]["team"] == "arm"
    });
    let known = admin.json(&["certs", "show", "--all"]);
    let robot = known["identities"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|row| row["name"] == "robot-7");
    assert_eq!(robot.expect("known")["connections"], 1);
    assert_eq!(robot.expect("known")["state"], "ample");
}

#[test]
fn a_join_says_whom_it_trusts_and_writes_identity_and_context() {
    let coordinator = Coordinator::start();
    let made = coordinator.home.run(&[
        "invite",
        "--role",
        "viewer",
        "--name",
        "ann",
        "--address",
        &coordinator.address,
    ]);
    assert_eq!(made.exit, 0, "{made:?}");
    let fingerprint = made
        .stderr
        .split("SHA-256 ")
        .nth(1)
        .expect("shown")
        .split_whitespace()
        .next()
        .expect("one");
    let home = Home::new();
    let seen = home.feed(&["join"], &made.stdout);
    assert_eq!(seen.exit, 0, "{seen:?}");
    assert_eq!(
        seen.stdout.trim_end(),
        home.identity("viewer", "ann").to_str().expect("UTF-8")
    );
    for words in [
        "trust domain lab",
        "spiffe://lab/viewer/ann",
        fingerprint,
        "context `lab`",
        "it is the current one",
    ] {
        assert!(seen.stderr.contains(words), "{words}: {}", seen.stderr);
    }
    assert_eq!(home.json(&["status"])["asker"], "spiffe://lab/viewer/ann");
    assert_eq!(home.run(&["certs", "show", "--all"]).exit, 4, "a viewer is no admin");
    let left: Vec<_> = fs::read_dir(home.identity("viewer", "ann"))
        .expect("there")
        .flatten()
        .collect();
    assert!(
        left.iter()
            .all(|entry| !entry.file_name().to_string_lossy().contains("pending")),
        "{left:?}"
    );

    let second = coordinator.invite("viewer", "bob", &[]);
    fs::write(home.path("token"), &second).expect("written");
    let taken = home.run(&["join", "token"]);
    assert_eq!(taken.exit, 1, "{taken:?}");
    assert!(taken.stderr.contains("there is a context `lab` already") && taken.stderr.contains("nothing was changed"));
    let joined = home.json(&["join", "token", "--context-name", "other"]);
    assert_eq!(
        (joined["identity"].as_str(), joined["current"].as_bool()),
        (Some("spiffe://lab/viewer/bob"), Some(false))
    );
    assert_eq!(
        home.json(&["--context", "other", "status"])["asker"],
        "spiffe://lab/viewer/bob"
    );
}

#[test]
fn a_lost_answer_is_asked_for_again_with_the_same_key() {
    let mut coordinator = Coordinator::start();
    let token = coordinator.invite("viewer", "ann", &[]);
    coordinator.stop();
    let home = Home::new();
    let lost = home.run(&["join", &token]);
    assert_eq!(lost.exit, 5, "{lost:?}");
    let dir = home.identity("viewer", "ann");
    let pending = fs::read_dir(&dir)
        .expect("there")
        .flatten()
        .next()
        .expect("the key is on the disk")
        .path();
    let key = fs::read(&pending).expect("readable");

    coordinator.run();
    home.ok(&["join", &token]);
    let serial = home.serial(&dir);
    assert!(!pending.exists(), "it has become the key of the identity");
    assert_eq!(fs::read(dir.join("identity.key")).expect("there"), key);
    let again = home.run(&["join", &token]);
    assert_eq!(again.exit, 0, "pasting it twice does no harm: {again:?}");
    assert!(again.stderr.contains("was used here before"), "{}", again.stderr);

    // As if the machine had lost its power after the coordinator had answered and before anything was saved.
    for entry in fs::read_dir(&dir).expect("there").flatten() {
        fs::remove_file(entry.path()).expect("removed");
    }
    fs::write(&pending, &key).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&pending, mode).expect("set");
    home.ok(&["join", &token]);
    assert_eq!(home.serial(&dir), serial, "the same certificate once more");

    let other = Home::new().run(&["join", &token]);
    assert_eq!(other.exit, 4, "{other:?}");
    assert!(
        other.stderr.contains("the invite was used at") && other.stderr.contains("from 127.0.0.1"),
        "{}",
        other.stderr
    );
}

#[test]
fn each_token_that_opens_no_door_has_its_words_and_its_exit_code() {
    let coordinator = Coordinator::start();
    let home = Home::new();
    let token = coordinator.invite("viewer", "ann", &[]);
    let expect = |line: &[&str], exit: i32, words: &str| {
        let seen = home.run(&[&["join"], line].concat());
        assert_eq!(seen.exit, exit, "{seen:?}");
        assert!(seen.stderr.contains(words), "{words}: {}", seen.stderr);
        assert!(!seen.stderr.contains(&token[20..]), "a token is a secret: {}", seen.stderr);
    };
    expect(&[&token[..token.len() - 9]], 2, "cut off");
    expect(&[&token.replace("dri1-", "dri2-")], 2, "version 2");
    expect(&["no-such-file"], 3, "cannot read a token from no-such-file");

    let wrong_root = tampered(&token, None, Some([7; 32]));
    expect(&[&wrong_root], 6, "it has learnt nothing");
    // A port that is bound and never answers.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let nobody = silent.local_addr().expect("bound").to_string();
    expect(&[&tampered(&token, Some(&[&nobody]), None)], 5, "cannot connect");
    let stranger = Coordinator::start();
    let elsewhere = tampered(&token, Some(&[&stranger.address]), None);
    expect(&[&elsewhere], 6, "it has learnt nothing");
    // It is under the right root, but of an authority that has never heard of the invite.
    let foreign: InviteToken = stranger.invite("viewer", "ann", &[]).parse().expect("a token");
    let foreign = tampered(&token, Some(&[&stranger.address]), Some(*foreign.root_hash()));
    expect(&[&foreign], 4, "does not know this invite");

    coordinator.home.ok(&["invite", "revoke", "ann"]);
    expect(&[&token], 4, "the invite was taken back");
    let short = coordinator.invite("viewer", "bob", &["--expires", "1s"]);
    until("the invite ends", || {
        let invites = coordinator.home.json(&["invite", "list"]);
        invites["invites"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|invite| invite["state"] == "expired")
    });
    expect(&[&short], 4, "the invite ended at");
    let dir = home.path(".config/dora-remote");
    assert!(!dir.join("contexts.toml").exists(), "none of them has left a context");

    let token = coordinator.invite("viewer", "carl", &[]);
    let both = tampered(&token, Some(&[&nobody, &coordinator.address]), None);
    home.ok(&["join", &both]);
}

#[test]
fn an_identity_that_is_there_is_replaced_only_when_that_is_asked_for() {
    let coordinator = Coordinator::start();
    let robot = coordinator.joined("daemon", "robot-7");
    let refused = coordinator
        .home
        .run(&["invite", "--role", "daemon", "--name", "robot-7", "--address", "h"]);
    assert_ne!(refused.exit, 0, "the name is taken");
    assert!(refused.stderr.contains("--replace"), "{}", refused.stderr);
    let token = coordinator.invite("daemon", "robot-7", &["--replace"]);
    let before = robot.serial(&robot.identity("daemon", "robot-7"));
    let kept = robot.run(&["join", &token]);
    assert_eq!(kept.exit, 1, "{kept:?}");
    assert!(
        kept.stderr.contains("spiffe://lab/daemon/robot-7") && kept.stderr.contains("--overwrite"),
        "{}",
        kept.stderr
    );
    robot.ok(&["join", &token, "--overwrite"]);
    assert_ne!(robot.serial(&robot.identity("daemon", "robot-7")), before);
}

#[test]
fn a_machine_without_a_home_can_join_into_any_directory() {
    let coordinator = Coordinator::start();
    let token = coordinator.invite("daemon", "robot-7", &[]);
    let home = Home::new();
    let mut command = home.command(BIN);
    command
        .env_remove("HOME")
        .args(["join", &token, "--out", "identity", "--no-context"]);
    let output = command.output().expect("runs");
    assert!(output.status.success(), "{output:?}");
    assert!(home.path("identity/identity.key").exists());
}
