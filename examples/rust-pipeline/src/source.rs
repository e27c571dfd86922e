//! Source of the pipeline: measures a made-up temperature `COUNT` times, `RATE_HZ` times a second, and sends each value on.
//!
//! `COUNT=0` goes on until the dataflow is stopped.

use dora_node_api::{DoraNode, Event};
use eyre::Context;
use std::time::{Duration, Instant};

fn main() -> eyre::Result<()> {
    let count: u64 = setting("COUNT", 20)?;
    let rate: f64 = setting("RATE_HZ", 10.0)?;
    eyre::ensure!(rate > 0.0 && rate.is_finite(), "RATE_HZ is {rate}, and must be above 0");
    let (mut node, mut events) = DoraNode::init_from_env()?;
    println!("source: {count} readings at {rate} Hz");

    let step = Duration::from_secs_f64(1.0 / rate);
    let mut due = Instant::now();
    let mut sent = 0;
    while count == 0 || sent < count {
        due += step;
        // Waiting for the next reading and for a stop are one wait, so that a slow rate does not delay the stop.
        while let Some(wait) = due.checked_duration_since(Instant::now()) {
            match events.recv_timeout(wait) {
                Some(Event::Stop(_)) | None => {
                    println!("source: stopped after {sent} readings");
                    return Ok(());
                }
                Some(_) => {}
            }
        }
        sent += 1;
        let celsius = 20.0 + 5.0 * (sent as f64 / 10.0).sin();
        node.send_output("reading".to_owned().into(), Default::default(), vec![sent as f64, celsius])
            .wrap_err_with(|| format!("failed to send reading {sent}"))?;
        println!("source: reading {sent} is {celsius:.2} C");
    }
    println!("source: done");
    Ok(())
}

/// Reads a setting from the environment.
fn setting<T: std::str::FromStr>(key: &str, default: T) -> eyre::Result<T> {
    match std::env::var(key) {
        Ok(text) => text.parse().map_err(|_| eyre::eyre!("{key} is `{text}`, which is no number")),
        Err(_) => Ok(default),
    }
}
