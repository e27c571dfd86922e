//! Dataflows that tests start: the examples, and small ones with one quirk each.

use crate::binary;
use std::{fs, path::Path};

/// A node that prints `tick N at MS` every 100 ms, with its own clock, until it is stopped.
pub const TICKER: &str = r#"
import time
from dora import Node

node, number = Node(), 0
for event in node:
    if event["type"] == "STOP":
        print("ticker: stop", flush=True)
        break
    if event["type"] == "INPUT":
        number += 1
        print(f"tick {number} at {time.time_ns() // 1_000_000}", flush=True)
"#;

/// The dataflow of one [`TICKER`].
pub const TICKER_FLOW: &str = "
nodes:
  - id: ticker
    path: ticker.py
    inputs:
      tick: dora/timer/millis/100
";

/// A node that never looks at its events and ignores SIGTERM.
pub const STUBBORN: &str = r#"
import signal
import time
from dora import Node

node = Node()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("stubborn: up", flush=True)
while True:
    time.sleep(0.2)
"#;

/// The dataflow of one [`STUBBORN`] and one [`TICKER`].
pub const STUBBORN_FLOW: &str = "
nodes:
  - id: ticker
    path: ticker.py
    inputs:
      tick: dora/timer/millis/100
  - id: stubborn
    path: stubborn.py
    inputs:
      tick: dora/timer/millis/1000
";

/// Writes files into a fresh folder.
///
/// # Panics
/// When the folder cannot be written.
pub fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a fresh folder");
        fs::write(path, content).expect("a fresh folder");
    }
}

/// Copies one of the project's examples, with its binaries where it has some.
///
/// # Panics
/// When it is not there or was not built.
pub fn copy_example(name: &str, folder: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    fs::create_dir_all(folder).expect("a fresh folder");
    for entry in fs::read_dir(&source).expect("an example") {
        let path = entry.expect("a directory entry").path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if matches!(ending, "yml" | "py") || path.ends_with(".gitignore") {
            fs::copy(&path, folder.join(path.file_name().expect("a file"))).expect("a fresh folder");
        }
    }
    if name == "rust-pipeline" {
        fs::create_dir_all(folder.join("bin")).expect("a fresh folder");
        for node in ["pipeline-source", "pipeline-transform", "pipeline-sink"] {
            // build.sh has stripped them; unstripped ones would not fit into a bundle.
            let stripped = source.join("bin").join(node);
            assert!(
                stripped.exists() && newer(&stripped, &binary::example_node(node)),
                "{} is not there or older than its build; run examples/rust-pipeline/build.sh",
                stripped.display()
            );
            fs::copy(stripped, folder.join("bin").join(node)).expect("a fresh folder");
        }
    }
}

fn newer(one: &Path, other: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).expect("a file");
    time(one) >= time(other)
}
