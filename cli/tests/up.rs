//! `up` and `down` for real: coordinator, daemon and engine of this binary, in a home of their own.
#![cfg(feature = "server")]
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    path::Path,
    process::{Command, Output},
};

/// A home whose `down` runs whatever becomes of the test.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        // A short path: the engine's socket lies below it, and the names of unix sockets are short.
        Self(tempfile::Builder::new().prefix("up").tempdir_in("/tmp").expect("a home"))
    }

    fn run(&self, line: &[&str]) -> Output {
        run(self.0.path(), line)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        run(self.0.path(), &["down", "--force"]);
    }
}

fn run(home: &Path, line: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dora-remote"))
        .args(line)
        .env_clear()
        .env("HOME", home)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .output()
        .expect("the binary runs")
}

fn json(output: &Output) -> serde_json::Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).expect("one document")
}

#[test]
fn up_brings_a_machine_that_down_takes_away() {
    let home = Home::new();
    let up = json(&home.run(&["up", "--format", "json"]));
    let machines = json(&home.run(&["machines", "--format", "json"]));
    assert_eq!(machines["machines"][0]["name"], "local");
    assert_eq!(machines["machines"][0]["engine"], "up");
    let status = json(&home.run(&["status", "--format", "json"]));
    assert_eq!(status["address"], up["address"]);

    let again = home.run(&["up", "--format", "json"]);
    assert_eq!(json(&again), up);
    assert!(String::from_utf8_lossy(&again.stderr).contains("runs already"));

    let pids = [
        &up["coordinator_pid"],
        &up["daemon_pid"],
        &machines["machines"][0]["engine_pid"],
    ];
    let down = home.run(&["down"]);
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Whoever inherits a process that has ended may not have looked at it yet.
        assert!(stat.is_empty() || stat.contains(") Z "), "{pid} is still there: {stat}");
    }
    assert_eq!(home.run(&["list"]).status.code(), Some(2), "no coordinator is named any more");
    assert!(home.run(&["down"]).status.success(), "a second down has nothing to do");
}

#[test]
fn a_coordinator_without_a_certificate_says_what_it_needs() {
    let home = Home::new();
    let output = home.run(&["coordinator"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("hint: use `--authority DIR` or `--identity DIR`"), "{stderr}");
    let output = home.run(&["coordinator", "--authority", "/nowhere", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(6), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_certificate_of_a_machine_makes_no_coordinator() {
    let home = Home::new();
    let authority = home.0.path().join("authority").display().to_string();
    let out = home.0.path().join("arm").display().to_string();
    assert!(home.run(&["certs", "init", "--out", &authority]).status.success());
    let issue = [
        "certs",
        "issue",
        "--authority",
        &authority,
        "--role",
        "daemon",
        "--name",
        "arm",
        "--out",
        &out,
    ];
    assert!(home.run(&issue).status.success());
    let output = home.run(&["coordinator", "--identity", &out, "--listen", "127.0.0.1:0"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(6), "{stderr}");
    assert!(stderr.contains("/daemon/arm, and not of a coordinator"), "{stderr}");
}

#[test]
fn a_daemon_without_an_identity_says_how_to_get_one() {
    let home = Home::new();
    let output = home.run(&["daemon", "--coordinator-addr", "127.0.0.1:1"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(6), "{stderr}");
    assert!(stderr.contains("`dora-remote invite --role daemon"), "{stderr}");
}
