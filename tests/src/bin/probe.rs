//! Asks a coordinator for its dataflows on one connection, again and again, for `scripts/bench flood`.
//!
//! Usage: `probe ADDR IDENTITY_DIR SECONDS`. Writes one line for each answer: when it came (milliseconds since the Unix epoch) and
//! how long it took (microseconds). The connection is never made anew: losing it is an error.

use anyhow::{Context, Result};
use dora_remote_certs::Credentials;
use dora_remote_link::{Address, CloseCode, DialKind, Dialer, Speaker};
use dora_remote_protocol::{
    cli_to_coordinator::ListDataflows,
    ids::{BootId, InstanceId},
};
use std::{
    io::{Write, stdout},
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use uuid::Uuid;

/// Time from one question to the next.
const PAUSE: Duration = Duration::from_millis(25);
/// Longest time that an answer may take.
const DEADLINE: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let usage = "usage: probe ADDR IDENTITY_DIR SECONDS";
    let mut words = std::env::args().skip(1);
    let address: Address = words.next().context(usage)?.parse()?;
    let credentials = Credentials::load(Path::new(&words.next().context(usage)?))?;
    let time = Duration::from_secs(words.next().context(usage)?.parse().context(usage)?);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(ask(&address, &credentials, time))
}

async fn ask(address: &Address, credentials: &Credentials, time: Duration) -> Result<()> {
    let speaker = Speaker {
        build: "probe".to_owned(),
        features: Vec::new(),
        instance: InstanceId(Uuid::new_v4()),
        boot: BootId(Uuid::new_v4()),
    };
    let peer = Dialer::new(credentials, speaker, DialKind::Follow)?.dial(address).await?;
    let began = Instant::now();
    let mut ticks = tokio::time::interval(PAUSE);
    while began.elapsed() < time {
        ticks.tick().await;
        let asked = Instant::now();
        peer.call(&ListDataflows {}, DEADLINE).await?;
        let took = asked.elapsed().as_micros();
        let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        writeln!(stdout(), "{at} {took}")?;
    }
    peer.close_and_flush(CloseCode::Done, "").await;
    Ok(())
}
