//! From nothing to a running dataflow as people do it: a fresh coordinator in the cloud, and one pasted line each on a laptop and on a
//! robot behind NAT. No file is copied by hand, and nothing is prepared but the program.

use dora_remote_tests::{
    flows::{self, TICKER, TICKER_FLOW},
    lines::{assert_rising, numbers},
    netns::{CLOUD, World},
    patience, processes,
    processes::MARKER,
    python,
    run_cli::{Cli, Running},
};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use uuid::Uuid;

/// What the project promises for this, the build not counted.
const PROMISED: Duration = Duration::from_secs(120);

/// Everybody's home folders, and the end of everything that was started there.
struct Homes {
    folder: TempDir,
    marker: String,
}

impl Homes {
    fn new() -> Self {
        // A short path: the engine's unix socket lies below it, and those have at most 107 bytes.
        let folder = tempfile::Builder::new().prefix("drp").tempdir_in("/tmp");
        Self {
            folder: folder.expect("a temporary folder"),
            marker: Uuid::new_v4().to_string(),
        }
    }

    fn user(&self, world: &World, place: &str) -> Cli {
        let home = self.folder.path().join(place);
        fs::create_dir(&home).expect("a fresh folder");
        let mut cli = Cli::nobody(&home);
        cli.prefix = world.prefix(place);
        cli.environment.push((MARKER.to_owned(), self.marker.clone()));
        cli
    }
}

impl Drop for Homes {
    fn drop(&mut self) {
        processes::end_all(&self.marker, self.folder.path());
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "the figure is worth seeing")]
fn two_pasted_lines_from_a_fresh_coordinator_to_a_first_dataflow() {
    if python::interpreter().is_none() {
        return;
    }
    let Some(world) = World::new() else { return };
    let homes = Homes::new();
    let (cloud, laptop, robot) = (
        homes.user(&world, "cloud"),
        homes.user(&world, "laptop"),
        homes.user(&world, "robot"),
    );
    let began = Instant::now();

    let line = format!("exec dora-remote coordinator --trust-domain lab.test --advertise {CLOUD}");
    let coordinator = cloud.paste(&line);
    let to_laptop = invite(&cloud, "admin", "ann");
    laptop.paste(&to_laptop).wait().exits_with(0);

    // From here on the cloud is left alone: the laptop invites the robot.
    let to_robot = invite(&laptop, "daemon", "robot");
    let robot = robot.paste(&to_robot);
    wait_for_engine(&laptop, &robot);

    let flow = laptop.folder.join("tick");
    flows::write(&flow, &[("dataflow.yml", TICKER_FLOW), ("ticker.py", TICKER)]);
    let mut attached = laptop.spawn(&["start", "tick/dataflow.yml", "--attach", "--name", "tick", "--format", "json"]);
    attached.until_line("tick 3 ");
    let took = began.elapsed();
    eprintln!(
        "fresh coordinator to first lines of a first dataflow: {:.1} s",
        took.as_secs_f64()
    );
    assert!(took < PROMISED, "it took {took:?}");

    laptop.run(&["stop", "tick"]).exits_with(0);
    let outcome = attached.wait();
    assert_rising("ticks", &numbers(&outcome.exits_with(0).output_of("ticker"), "tick"));

    // What was done can be told afterwards, and the chain of it holds.
    let audit = laptop.ok(&["audit", "--format", "json"]);
    for verb in ["invite", "join", "start", "stop"] {
        assert!(audit.contains(&format!("\"{verb}\"")), "{verb}: {audit}");
    }
    laptop.run(&["audit", "--verify"]).exits_with(0);
    no_secret_is_left(&homes, &to_robot);
    drop((coordinator, robot));
}

/// The line to paste for a new identity. Asked again while the coordinator is not up yet.
fn invite(from: &Cli, role: &str, name: &str) -> String {
    let mut seen = String::new();
    let line = patience::until("an invite", || {
        let outcome = from.run(&["invite", "--role", role, "--name", name]);
        seen = outcome.stderr;
        (outcome.code == 0).then_some(outcome.stdout)
    });
    assert_eq!(line.lines().count(), 1, "one line to paste: {line}\n{seen}");
    line.trim().to_owned()
}

fn wait_for_engine(laptop: &Cli, robot: &Running) {
    patience::until(&format!("the robot's engine; {}", robot.complaints()), || {
        let machine = laptop.until_machine("robot", true);
        (machine["engine"] == "up").then_some(())
    });
}

/// The token stood on the command line that was pasted; no log and no file keeps it.
fn no_secret_is_left(homes: &Homes, pasted: &str) {
    let token = pasted
        .split_whitespace()
        .find(|word| word.starts_with("dri1-"))
        .expect("a token");
    look_for(homes.folder.path(), token.as_bytes());
}

fn look_for(folder: &Path, secret: &[u8]) {
    for entry in fs::read_dir(folder).expect("our own folder") {
        let path = entry.expect("a directory entry").path();
        let kind = fs::symlink_metadata(&path).expect("a file").file_type();
        if kind.is_dir() {
            look_for(&path, secret);
        } else if kind.is_file() {
            let bytes = fs::read(&path).expect("our own file");
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "the token lies in {}", path.display());
        }
    }
}
