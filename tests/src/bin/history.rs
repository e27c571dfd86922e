//! What reading a long history costs, for `scripts/bench history`.
//!
//! Usage: `history LINES`. A node prints that many lines; then they are read: all of them, the last ten, and by time. Prints times and
//! memory, of the command, of the coordinator and of others who list dataflows meanwhile. Ends with 1 when a target is missed.

#![expect(clippy::print_stdout, reason = "the result of a measurement")]

use anyhow::{Context, Result, ensure};
use dora_remote_tests::{
    faults::{History, Read},
    python,
};
use std::{process::ExitCode, time::Duration};

/// Listings while nobody reads.
const IDLE: usize = 15;
/// Time until the first line of any reading.
const AT_ONCE: Duration = Duration::from_millis(500);
/// Most memory that reading everything takes more than reading a fifth of it, and reading it again more than the first time.
const MOST_MORE: u64 = 8 << 20;
/// Most memory that the coordinator takes more for reading, the cache of its store included.
const MOST_OF_THE_COORDINATOR: u64 = 48 << 20;
/// Most that a listing may take while somebody reads, in its time while nobody does.
const MOST_DISTURBED: f64 = 3.0;

fn main() -> Result<ExitCode> {
    let usage = "usage: history LINES";
    let lines: u64 = std::env::args().nth(1).context(usage)?.parse().context(usage)?;
    ensure!(lines > 0 && std::env::args().count() == 2, usage);
    python::interpreter().context("the bench needs a Python with dora-rs: DORA_REMOTE_TEST_PYTHON")?;
    let history = History::of(lines);
    let idle = median((0..IDLE).map(|_| history.list()).collect());
    let (began, last) = history.times();
    let tail = show("--tail 10", &history.read(&["--node", "flood", "--tail", "10"]));
    let fifth = (lines / 5).to_string();
    let part = show(
        "--tail, a fifth of all",
        &history.read(&["--node", "flood", "--tail", &fifth]),
    );
    let whole = show("everything", &history.read(&[]));
    let again = show("everything, again", &history.read(&[]));
    let since = show("--since, the last second", &history.read(&["--since", &last]));
    let until = show(
        "--until, before the first",
        &history.read(&["--node", "flood", "--until", &began]),
    );
    let disturbed = median([whole.lists.clone(), again.lists.clone()].concat());
    println!(
        "list: {:.1} ms while nobody reads, {:.1} ms while somebody does",
        1e3 * idle.as_secs_f64(),
        1e3 * disturbed.as_secs_f64()
    );
    let targets = [
        (
            "every line came once, in order",
            whole.seen.is_whole() && whole.seen.lines == lines,
        ),
        (
            "the first line comes at once",
            [&tail, &whole, &since].iter().all(|read| read.first <= AT_ONCE),
        ),
        ("the command's memory is constant", whole.memory <= part.memory + MOST_MORE),
        (
            "the coordinator's memory is bounded",
            whole.coordinator_grew <= MOST_OF_THE_COORDINATOR,
        ),
        ("a second reading takes no more memory", again.coordinator_grew <= MOST_MORE),
        (
            "ten lines are not found by reading all",
            tail.took * 2 < whole.took && until.took * 2 < whole.took,
        ),
        (
            "others are not disturbed",
            disturbed.as_secs_f64() <= MOST_DISTURBED * idle.as_secs_f64(),
        ),
    ];
    let mut code = ExitCode::SUCCESS;
    for (what, is_met) in targets {
        println!("{what:<42}{}", if is_met { "yes" } else { "no   MISSED" });
        if !is_met {
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

fn show(what: &str, read: &Read) -> Read {
    println!(
        "{what:<26}{:8} lines, first after {:5.0} ms, all after {:6.0} ms; command {:5.1} MiB; coordinator {:5.1} MiB more, {:.2} s of processor time",
        read.seen.lines,
        1e3 * read.first.as_secs_f64(),
        1e3 * read.took.as_secs_f64(),
        mib(read.memory),
        mib(read.coordinator_grew),
        read.coordinator_time,
    );
    read.clone()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
