//! Keeps the certificate of a session alive: a short command renews in passing, one that follows something by a timer.
//!
//! A task beside the command, which it never fails: what goes wrong is a warning. The renewal itself lies in `renewal.rs`.

use super::Shared;
use crate::{
    output::time::span,
    renewal::{self, Renewed, due, warning},
};
use dora_remote_link::DialKind;
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use uuid::Uuid;

/// How long a command that is done waits for a renewal that is under way.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest sleep before the clock is looked at again: it may be set meanwhile, and the machine may be put to sleep.
const GLANCE: Duration = Duration::from_secs(30);
/// Shortest and longest time between two attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(3600));

/// The task. Dropping it ends it.
pub(super) struct Keeper {
    task: JoinHandle<()>,
    /// Whether there is something to wait for.
    busy: watch::Receiver<bool>,
}

impl Keeper {
    /// Starts the task. Must be called within a tokio runtime.
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        let jitter = match shared.kind {
            // Its certificate is renewed when somebody comes by; the lock sees to it that few do.
            DialKind::Command => 0.0,
            DialKind::Follow | DialKind::Daemon => f64::from(Uuid::new_v4().as_bytes()[0]) / 255.0,
        };
        let (out, busy) = watch::channel(is_due(&shared, jitter));
        Self {
            task: tokio::spawn(keep(shared, jitter, out)),
            busy,
        }
    }

    /// Waits for a renewal that is under way, and ends the task.
    pub(super) async fn finish(mut self) {
        // The other end goes away with the task, which is as good as idle.
        drop(timeout(PATIENCE, self.busy.wait_for(|busy| !busy)).await);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn is_due(shared: &Shared, jitter: f64) -> bool {
    SystemTime::now() >= due(shared.credentials().certificate(), jitter)
}

async fn keep(shared: Arc<Shared>, jitter: f64, busy: watch::Sender<bool>) {
    // A connection that was never let in is the command's to tell.
    if shared.current().await.welcome().await.is_err() {
        return;
    }
    let mut told = String::new();
    loop {
        if is_due(&shared, jitter) {
            busy.send_replace(true);
            let wait = attempt(&shared, &mut told).await;
            busy.send_replace(false);
            match wait {
                Some(wait) if shared.kind != DialKind::Command => sleep(wait).await,
                Some(_) => return,
                None => told.clear(),
            }
        } else if shared.kind == DialKind::Command {
            return;
        } else {
            let left = due(shared.credentials().certificate(), jitter).duration_since(SystemTime::now());
            sleep(left.unwrap_or_default().min(GLANCE)).await;
        }
    }
}

/// Renews once; says how long to wait before the next attempt, or nothing when none is needed.
async fn attempt(shared: &Shared, told: &mut String) -> Option<Duration> {
    let held = shared.credentials();
    let peer = shared.current().await;
    let left = || {
        let left = held.certificate().not_after.duration_since(SystemTime::now());
        left.unwrap_or_default()
    };
    let retry = || Some((left() / 8).clamp(RETRY.0, RETRY.1));
    match renewal::renew(&shared.identity, &held, &peer, &shared.address).await {
        Ok(Renewed::Issued(fresh)) => {
            let ends = fresh.certificate().not_after.duration_since(SystemTime::now());
            shared.replace(&fresh).ok()?;
            let ends = span(ends.unwrap_or_default());
            shared
                .printer
                .aside(&format!("renewed your certificate, which ends in {ends} now"));
            None
        }
        Ok(Renewed::Adopted(fresh)) => match shared.adopt(&fresh).await {
            Ok(()) => None,
            Err(_) => retry(),
        },
        Ok(Renewed::Elsewhere) => retry(),
        // The command hears of its lost connection itself, and the next attempt has another one.
        Err(_) if peer.is_closed() => retry(),
        Err(error) => {
            let text = error.story();
            if *told != text {
                shared.printer.warn(&warning(&error, left()));
                *told = text;
            }
            retry()
        }
    }
}
