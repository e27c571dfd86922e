//! A robot and a laptop, each behind a relay, a node that prints a hundred numbered lines a second by its own clock, and a follower
//! that counts them over whatever happens in between.
//!
//! A fault ends with [`Stand::healed`]; from there on everything must converge: the follower shows what was printed after that moment,
//! and in the end every line once and in order.

mod flood;
mod follower;
mod happen;
mod history;
mod stand;
mod table;
mod tally;

pub use flood::{Consumer, Flood, Seen};
pub use follower::Follower;
pub use happen::Link;
pub use history::{History, Read};
pub use stand::{Report, Stand};
pub use table::{Load, Row};
pub use tally::{Return, Tally};

/// The node. It prints `FLOOD` lines of 25 bytes as fast as it can, then a line every 10 ms, and how many when it is stopped. Its
/// clock is its own: no timer of dora is between two lines.
pub const NODE: &str = r#"
import os
import threading
import time
from dora import Node

node, stopped = Node(), threading.Event()


def milliseconds():
    return time.time_ns() // 1_000_000


def write():
    number, flood = 0, int(os.environ["FLOOD"])
    while number < flood and not stopped.is_set():
        number += 1
        print(f"tick {number:07} at {milliseconds() % 100_000_000:08}", flush=True)
    due = time.monotonic()
    while not stopped.is_set():
        number += 1
        print(f"tick {number} at {milliseconds()}", flush=True)
        due += 0.01
        time.sleep(max(0, due - time.monotonic()))
    print(f"done {number}", flush=True)


writer = threading.Thread(target=write)
writer.start()
for event in node:
    if event["type"] == "STOP":
        break
stopped.set()
writer.join()
"#;

/// The dataflow of one [`NODE`].
#[must_use]
pub fn flow(flood: u64) -> String {
    format!(
        "
nodes:
  - id: ticker
    path: ticker.py
    inputs: {{ tick: dora/timer/millis/1000 }}
    env: {{ FLOOD: '{flood}' }}
"
    )
}
