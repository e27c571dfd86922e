//! Finds the way to the coordinator: dials, again and again, several at once, until a hello is answered.
//!
//! Each try is a connection of its own: after a long cut one connection alone notices only late that the link is back, because
//! QUIC doubles the pause between its probes.

use super::{
    Silent,
    keys::Keys,
    schedule::Schedule,
    trouble::{self, Trouble},
    way::{Way, WayError},
};
use crate::handlers::{self, Orders};
use dora_remote_certs::{Clock, Utc};
use dora_remote_link::{Address, CallError, CloseReason, retry};
use dora_remote_protocol::limits::{REDIAL_CAP, REDIAL_FAST, REDIAL_FAST_FOR};
use std::{fmt, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{debug, error, warn};

/// Dials under way at once.
const MAX_DIALS: usize = 6;

/// What was found.
pub(super) enum Found {
    /// A new connection whose hello was answered.
    New(Way),
    /// The silent connection answers again.
    Back(Silent),
}

/// Dials.
pub(super) struct Seeker {
    address: Address,
    keys: Arc<Keys>,
    orders: Orders,
    dials: JoinSet<Result<Way, WayError>>,
    next: Instant,
    /// Whether the trouble is one that waiting alone does not cure.
    slow: bool,
    /// The trouble that was last told.
    told: Option<String>,
    /// Whether it was told that the certificate may end before the coordinator is reached.
    told_end: bool,
    /// Whether the coordinator has shut this machine out.
    shut_out: watch::Sender<bool>,
}

impl Seeker {
    /// A seeker that has not dialled yet.
    pub(super) fn new(address: Address, keys: Arc<Keys>, orders: Orders) -> Self {
        Self {
            address,
            keys,
            orders,
            dials: JoinSet::new(),
            next: Instant::now(),
            slow: false,
            told: None,
            told_end: false,
            shut_out: watch::Sender::new(false),
        }
    }

    /// Whether the coordinator has shut this machine out.
    pub(super) fn shut_out(&self) -> watch::Receiver<bool> {
        self.shut_out.subscribe()
    }

    /// Tries until something is found. `since`: when the search began. Cancel safe: tries under way go on at the next call.
    pub(super) async fn seek(&mut self, silent: &mut Option<Silent>, since: Instant) -> Found {
        loop {
            let may_dial = self.dials.len() < MAX_DIALS;
            tokio::select! {
                biased;
                back = answered(silent) => {
                    if back && let Some(silent) = silent.take() {
                        self.arrived();
                        return Found::Back(silent);
                    }
                    *silent = None;
                }
                Some(tried) = self.dials.join_next() => match tried {
                    Ok(Ok(way)) => return Found::New(way),
                    Ok(Err(error)) => {
                        let trouble = error.trouble();
                        self.note(trouble);
                        self.tell(error.key(), &error, None, trouble.is_lasting());
                    }
                    Err(error) => warn!(%error, "a dial broke off"),
                },
                () = sleep_until(self.next), if may_dial => {
                    self.dial();
                    self.next = Instant::now() + self.pause(since);
                }
            }
        }
    }

    /// A connection is in use: drops the other tries, and what is known of former trouble.
    pub(super) fn arrived(&mut self) {
        self.abandon();
        self.next = Instant::now();
        self.slow = false;
        self.told = None;
        self.told_end = false;
        self.shut_out.send_replace(false);
    }

    /// The connection that was in use has ended.
    pub(super) fn ended(&mut self, reason: &CloseReason) {
        self.note(Trouble::of_close(reason));
    }

    /// A connection was found and could not be used. `since`: when the search began.
    pub(super) fn failed(&mut self, error: &CallError, since: Instant) {
        let trouble = Trouble::of_call(error);
        // Its hello was answered, so that this is the newest word on the matter; yet what stays is not forgotten for what passes.
        if trouble.is_lasting() || !self.slow {
            self.note(trouble);
        }
        self.next = self.next.max(Instant::now() + self.pause(since));
        let text = format_args!("the coordinator does not let this machine join: {error}");
        let hint = trouble::hint_of_call(error);
        self.tell(trouble::key_of_call(error), &text, hint, trouble.is_lasting());
    }

    /// Dials at once, unless waiting alone does not help.
    pub(super) fn hurry(&mut self) {
        if !self.slow {
            self.next = Instant::now();
        }
    }

    /// Dials nothing for a while: asking again sooner is in vain.
    pub(super) fn hold_off(&mut self, pause: Duration) {
        self.abandon();
        self.slow = true;
        self.next = Instant::now() + pause;
    }

    /// Ends all tries.
    pub(super) async fn shutdown(&mut self) {
        self.dials.shutdown().await;
    }

    fn abandon(&mut self) {
        self.dials.abort_all();
        self.dials = JoinSet::new();
    }

    fn dial(&mut self) {
        self.warn_of_end();
        let (keys, address, orders) = (Arc::clone(&self.keys), self.address.clone(), self.orders.clone());
        let slow = self.slow;
        self.dials.spawn(async move {
            let renewed = if slow { keys.reload().await } else { Ok(false) };
            let way = Way::open(keys.dialer(), &address, handlers::router(&orders)).await;
            match (way, renewed) {
                (Err(error), Err(unusable)) if error.trouble().is_lasting() => {
                    // Nobody can help before the files are in order.
                    debug!(%error, "the coordinator does not let this machine in");
                    if error.trouble() == Trouble::ShutOut {
                        Err(error)
                    } else {
                        Err(unusable.into())
                    }
                }
                (way, _) => way,
            }
        });
    }

    /// Says once in a search that the certificate, which only a coordinator can renew, is in its last third.
    fn warn_of_end(&mut self) {
        let credentials = self.keys.credentials();
        let certificate = credentials.certificate();
        if !self.told_end && Schedule::of(certificate).is_pressing(self.keys.clock().now()) {
            self.told_end = true;
            let end = Utc(certificate.not_after);
            warn!(%end, "the coordinator must be reached before the certificate of this machine ends, or let it recover afterwards");
        }
    }

    /// The pause before the next dial.
    fn pause(&self, since: Instant) -> Duration {
        if self.slow || since.elapsed() >= REDIAL_FAST_FOR {
            // Never quite nothing: a herd of robots must not be a storm.
            retry::full_jitter(REDIAL_CAP, retry::draw()).max(REDIAL_FAST)
        } else {
            REDIAL_FAST
        }
    }

    fn note(&mut self, trouble: Trouble) {
        self.slow = trouble.is_lasting();
        if trouble == Trouble::ShutOut {
            self.shut_out.send_replace(true);
        }
    }

    /// Logs each change of the trouble once: of lasting trouble its `key` counts, of passing trouble only that there is some.
    fn tell(&mut self, key: String, trouble: &impl fmt::Display, hint: Option<&str>, lasting: bool) {
        let key = if lasting { key } else { "passing".to_owned() };
        if self.told.as_ref() == Some(&key) {
            debug!(%trouble, "still not joined");
            return;
        }
        self.told = Some(key);
        if lasting {
            error!(
                %trouble,
                hint,
                "this machine cannot join the coordinator until somebody helps; it goes on trying"
            );
        } else {
            warn!(%trouble, "the coordinator is not reached; it is tried again");
        }
    }
}

/// Waits for the heartbeat on a silent connection: true when it is answered, false when it never will be.
async fn answered(silent: &mut Option<Silent>) -> bool {
    match silent {
        Some(silent) => matches!((&mut silent.beat).await, Ok(Ok(()))),
        None => std::future::pending().await,
    }
}
