//! A line on standard error that moves while something takes its time: with elapsed time, and a bar for uploads. Silent where
//! standard error is no terminal and for whatever is done within half a second.

use super::Printer;
use std::{
    future::Future,
    time::{Duration, Instant},
};
use tokio::time::{MissedTickBehavior, interval_at};

/// How long something may take before the line appears.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the line moves.
const STEP: Duration = Duration::from_millis(200);
/// Width of a bar in characters.
const BAR: u64 = 24;

/// Waits for `work` and shows `text()` with the elapsed time when it takes long.
pub async fn showing<T>(printer: &Printer, text: impl Fn() -> String, work: impl Future<Output = T>) -> T {
    if !printer.may_move() {
        return work.await;
    }
    let began = Instant::now();
    let mut steps = interval_at(tokio::time::Instant::now() + PATIENCE, STEP);
    steps.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut shown = false;
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                if shown {
                    printer.moving_line("");
                }
                return done;
            }
            _ = steps.tick() => {
                shown = true;
                printer.moving_line(&format!("{} ({:.1} s)", text(), began.elapsed().as_secs_f64()));
            }
        }
    }
}

/// A bar with the share that is done.
#[must_use]
pub fn bar(done: u64, all: u64) -> String {
    let all = all.max(1);
    let filled = (done.min(all) * BAR / all) as usize;
    let empty = BAR as usize - filled;
    format!(
        "[{}{}] {:>3} %",
        "#".repeat(filled),
        "-".repeat(empty),
        done.min(all) * 100 / all
    )
}

/// Bytes as people read them: `512 B`, `3.4 MiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_bytes_read_well() {
        assert_eq!(bar(1, 2), "[############------------]  50 %");
        assert_eq!(bar(9, 0), "[########################] 100 %");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(3_565_158), "3.4 MiB");
    }
}
