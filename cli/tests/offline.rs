//! Whole commands of the real binary that need no coordinator: help, and every error before one is reached.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A home of its own for one test.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a home"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, line: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_dora-remote"))
            .args(line)
            .current_dir(self.path())
            .env_clear()
            .env("HOME", self.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .output()
            .expect("the binary runs")
    }

    /// Runs a command line and gives exit code, standard output and standard error as one text, the home's path taken out.
    fn seen(&self, line: &[&str]) -> String {
        let output = self.run(line);
        let text = format!(
            "exit {}\n--- stdout\n{}--- stderr\n{}",
            output.status.code().expect("no signal"),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let home = fs::canonicalize(self.path()).expect("it exists");
        text.replace(&home.display().to_string(), "HOME")
            .replace(&self.path().display().to_string(), "HOME")
    }
}

fn exit(output: &Output) -> i32 {
    output.status.code().expect("no signal")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_help_shows_the_verbs_and_the_exit_codes() {
    let output = Home::new().run(&["--help"]);
    assert_eq!(exit(&output), 0);
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    for verb in [
        "start", "stop", "list", "logs", "machines", "status", "certs", "context", "can-i",
    ] {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb} is missing:\n{help}");
    }
    assert!(
        help.contains("Exit codes:\n    0  ok\n") && help.contains("  130  interrupted"),
        "{help}"
    );
    assert!(
        !help.contains("\n  engine "),
        "the engine is started by the daemon alone:\n{help}"
    );
}

#[test]
fn every_verb_has_examples() {
    let home = Home::new();
    let lines: &[&[&str]] = &[
        &["start"],
        &["stop"],
        &["list"],
        &["logs"],
        &["machines"],
        &["status"],
        &["certs", "init"],
        &["certs", "issue"],
        &["certs", "show"],
        &["can-i"],
        &["context", "list"],
        &["context", "use"],
        &["context", "show"],
        &["context", "add"],
        &["context", "rename"],
        &["context", "remove"],
    ];
    for line in lines {
        let output = home.run(&[line, &["--help"][..]].concat());
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(help.contains("Examples:\n  dora-remote "), "{line:?}:\n{help}");
    }
}

#[test]
fn the_help_of_start() {
    insta::assert_snapshot!(Home::new().seen(&["start", "--help"]));
}

#[test]
fn a_verb_that_does_not_exist_is_a_usage_error() {
    assert_eq!(exit(&Home::new().run(&["frobnicate"])), 2);
}

#[test]
fn a_datagram_of_a_size_that_cannot_be_is_a_usage_error() {
    for size in ["1199", "1473", "many"] {
        let output = Home::new().run(&["list", "--mtu", size]);
        assert_eq!(exit(&output), 2);
        assert!(stderr(&output).contains("from 1200 to 1472"), "{}", stderr(&output));
    }
}

#[test]
fn a_dataflow_that_does_not_exist() {
    insta::assert_snapshot!(Home::new().seen(&["start", "missing.yml"]));
}

#[test]
fn a_broken_dataflow_names_file_line_and_column() {
    let home = Home::new();
    fs::write(home.path().join("flow.yml"), "nodes:\n  - id: a\n    pathh: x.py\n").expect("written");
    insta::assert_snapshot!(home.seen(&["start", "flow.yml"]));
}

#[test]
fn a_node_whose_file_is_missing() {
    let home = Home::new();
    fs::write(home.path().join("flow.yml"), "nodes:\n  - id: a\n    path: bin/node\n").expect("written");
    insta::assert_snapshot!(home.seen(&["start", "flow.yml"]));
}

#[test]
fn settings_beside_the_dataflow_that_are_not_understood() {
    let home = Home::new();
    fs::write(home.path().join("node.py"), "").expect("written");
    fs::write(home.path().join("flow.yml"), "nodes:\n  - id: a\n    path: node.py\n").expect("written");
    for (settings, words) in [
        ("\non-link-los = 'keep'\n", ["line 2", "unknown field `on-link-los`"]),
        ("on-link-loss = 'stop-after=1s'\n", ["line 1", "at least 5s"]),
    ] {
        fs::write(home.path().join(".dora-remote.toml"), settings).expect("written");
        // The flag does not excuse the file.
        let output = home.run(&["start", "flow.yml", "--on-link-loss", "keep"]);
        let told = stderr(&output);
        assert_eq!(exit(&output), 2, "{told}");
        let all = words.iter().chain(&[".dora-remote.toml", "nothing was changed"]);
        assert!(all.clone().all(|word| told.contains(word)), "{told}");
    }
    let output = home.run(&["start", "flow.yml", "--on-link-loss", "stop-after=soon"]);
    assert!(
        exit(&output) == 2 && stderr(&output).contains("stop-after=soon"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn no_coordinator_is_named() {
    insta::assert_snapshot!(Home::new().seen(&["list"]));
}

#[test]
fn no_identity_is_there() {
    insta::assert_snapshot!(Home::new().seen(&["list", "--coordinator-addr", "127.0.0.1:1"]));
}

#[test]
fn a_coordinator_that_does_not_answer_is_told_within_seconds() {
    let home = Home::new();
    assert_eq!(exit(&home.run(&["certs", "init", "--out", "authority"])), 0);
    // A port that is bound and never answers: no refusal comes back.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound").to_string();
    let began = Instant::now();
    let output = home.run(&["list", "--identity", "authority/admin", "--coordinator-addr", &address]);
    assert_eq!(exit(&output), 5, "{}", stderr(&output));
    assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
    let text = stderr(&output);
    assert!(
        text.starts_with(&format!("error: cannot connect to the coordinator at {address}\n  cause: ")),
        "{text}"
    );
    assert!(text.contains("\nhint: ") && text.contains("UDP blocked?"), "{text}");
    assert!(output.stdout.is_empty());
}

#[test]
fn certificates_are_made_shown_and_not_overwritten() {
    let home = Home::new();
    let init = home.run(&["certs", "init", "--trust-domain", "lab.example", "--out", "authority"]);
    assert_eq!(exit(&init), 0, "{}", stderr(&init));
    let issue = [
        "certs",
        "issue",
        "--authority",
        "authority",
        "--role",
        "daemon",
        "--name",
        "arm-1",
        "--out",
        "arm-1",
    ];
    assert_eq!(exit(&home.run(&issue)), 0);
    let again = home.run(&issue);
    assert_eq!(exit(&again), 6);
    assert!(stderr(&again).contains("nothing was changed"), "{}", stderr(&again));
    assert_eq!(exit(&home.run(&[&issue[..], &["--overwrite"]].concat())), 0);

    let shown = home.run(&["certs", "show", "arm-1", "--format", "json"]);
    let document: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("one document");
    assert_eq!(document["schema"], 1);
    let identities: Vec<_> = document["certificates"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|certificate| certificate["identity"].as_str())
        .collect();
    assert_eq!(identities, [Some("spiffe://lab.example/daemon/arm-1"), None, None]);
    assert!(!String::from_utf8_lossy(&shown.stdout).contains("PRIVATE"));
    let nothing = home.run(&["certs", "show", "nowhere"]);
    assert_eq!(exit(&nothing), 6);
}

#[test]
fn values_of_variables_are_not_told_in_errors() {
    let home = Home::new();
    let output = home.run(&["start", "missing.yml", "--env", "1BAD=topsecret"]);
    assert_eq!(exit(&output), 2);
    assert!(!stderr(&output).contains("topsecret"), "{}", stderr(&output));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let home = Home::new();
    assert_eq!(exit(&home.run(&["certs", "init", "--out", "authority"])), 0);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = Command::new(env!("CARGO_BIN_EXE_dora-remote"))
        .args(["certs", "show", "authority"])
        .current_dir(home.path())
        .env("HOME", home.path())
        .stdout(writer)
        .status()
        .expect("the binary runs");
    assert_eq!(status.code(), Some(0));
}
