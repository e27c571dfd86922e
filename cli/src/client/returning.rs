//! How a session goes on after its connection is lost, and while it is silent: the feeds of one session share one way back.

use super::{
    Holder, Session, Shared,
    seek::{self, Tried, seek},
    trouble,
};
use crate::{exit::Exit, failure::Failure};
use dora_remote_link::{CallError, CloseCode, CloseReason, DialKind, Feed, LinkError, Nudges, Peer, retry};
use dora_remote_protocol::limits::{REDIAL_FAST, SILENCE};
use serde::de::DeserializeOwned;
use std::{
    future::pending,
    mem,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::time::sleep;

/// How long a lost connection is dialled again before a command gives up that follows nothing.
pub const RETURN_DEADLINE: Duration = Duration::from_secs(60);
/// Silence on a feed after which such a command takes its connection for lost. Feeds say every two seconds that they are alive.
const LOST_AFTER: Duration = SILENCE.saturating_mul(2);
/// How often silence is looked at.
const GLANCE: Duration = Duration::from_millis(250);
/// By how much a glance must be late to be taken for a sleep of the whole machine.
const SLEPT: Duration = Duration::from_secs(4);

/// What the last search for a connection left behind.
#[derive(Default)]
pub(super) struct Sought {
    /// When it found one.
    found: Option<tokio::time::Instant>,
}

impl Session {
    /// Whether a new connection may help against what ended a feed on `lost`: against the end of its certificate too, once
    /// that was renewed, by this process or another one.
    pub async fn may_return(&self, lost: &Peer, error: &CallError) -> bool {
        if trouble::is_lost(error) {
            return true;
        }
        trouble::is_lapse(error) && (self.peer().await.id() != lost.id() || self.shared.take_successor().await)
    }

    /// Whether a follower may simply ask again against what ended its feed. Returns after a pause then.
    pub async fn may_ask_again(&self, error: &CallError) -> bool {
        let may = self.follows() && trouble::is_unwell(error);
        if may {
            sleep(seek::pause(Duration::ZERO, retry::draw())).await;
        }
        may
    }

    /// Whether the link is cut, as far as it is known.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.shared.outage.is_on()
    }

    /// Gives a connection that stands, after `lost` was lost. Of several that ask, one dials: until it has one where something is
    /// followed, else for [`RETURN_DEADLINE`].
    ///
    /// # Errors
    /// One that no further dial can heal, or the last failure when the time is over.
    pub async fn reconnect(&self, lost: &Peer) -> Result<Peer, Failure> {
        lost.close(CloseCode::Superseded, "");
        let since = Instant::now();
        self.shared.successor(lost, || self.shared.outage.silent(since)).await
    }

    /// The next item of a feed on `peer`; `None` at the end of a whole feed.
    ///
    /// A feed that stays silent, idle marks included, may have lost its connection. Where something is followed, the coordinator is
    /// nudged, and another connection is sought after [`SILENCE`] while the feed is still listened to; what answers first wins.
    ///
    /// # Errors
    /// What ends the feed unfinished. [`Self::reconnect`] has the new connection at once when one was found.
    pub async fn next<I: DeserializeOwned>(&self, peer: &Peer, feed: &mut Feed<I>) -> Result<Option<I>, CallError> {
        if !self.follows() {
            return next_heard(feed).await;
        }
        let outage = &self.shared.outage;
        let (pulse, since) = (feed.pulse(), Instant::now());
        let (mut is_silent, mut glanced, mut woke) = (false, SystemTime::now(), None);
        let mut nudges = Nudges::default();
        loop {
            let seeks = is_silent;
            let mut is_over = false;
            let seeking = async {
                if seeks {
                    // It tells nothing: the silence is told below.
                    self.shared.successor(peer, || {}).await.map(drop)
                } else {
                    pending().await
                }
            };
            tokio::pin!(seeking);
            is_silent = loop {
                tokio::select! {
                    biased;
                    item = feed.next() => {
                        if item.is_ok() {
                            outage.heard();
                        }
                        return item;
                    }
                    found = &mut seeking, if !is_over => {
                        if found.is_ok() {
                            peer.close(CloseCode::Superseded, "");
                            return Err(CallError::Lost(CloseReason::Silence));
                        }
                        // There will be no other connection: why, is told once this one is lost for good.
                        is_over = true;
                    }
                    () = sleep(GLANCE) => {}
                }
                let heard = pulse.last_heard().max(since);
                let now = SystemTime::now();
                if now.duration_since(mem::replace(&mut glanced, now)).unwrap_or_default() > GLANCE + SLEPT {
                    woke = Some(Instant::now());
                    // Where the connection has outlived the sleep, it goes on from here. It is sought anew in any case.
                    drop(self.shared.holder().dialer.rebind());
                }
                woke = woke.max(*self.shared.moved.borrow());
                if nudges.are_due(heard, Instant::now()) {
                    peer.nudge();
                }
                // After a sleep or in another network nobody waits for the silence.
                let silent = heard.elapsed() >= SILENCE || woke.is_some_and(|woke| heard <= woke);
                if silent {
                    outage.silent(heard);
                } else if seeks {
                    outage.heard();
                }
                if silent != seeks {
                    break silent;
                }
            };
        }
    }

    /// Whether this session follows something, and is kept up therefore.
    fn follows(&self) -> bool {
        self.shared.kind != DialKind::Command
    }
}

impl Shared {
    /// A connection other than `lost`: one that somebody else has found meanwhile, or a new one. `glance` is called each second
    /// while it is sought.
    async fn successor(self: &Arc<Self>, lost: &Peer, glance: impl Fn()) -> Result<Peer, Failure> {
        let taking_turns = async {
            loop {
                tokio::select! {
                    biased;
                    turn = self.seeking.lock() => return turn,
                    () = sleep(GLANCE) => glance(),
                }
            }
        };
        let mut sought = taking_turns.await;
        let current = self.current().await;
        if current.id() != lost.id() && !current.is_closed() {
            return Ok(current);
        }
        let dial = || {
            let shared = Arc::clone(self);
            async move { shared.dial_afresh().await }
        };
        let cures = async |failure: Failure| {
            let is_cured = failure.exit == Exit::Certificate && self.take_successor().await;
            if is_cured { Ok(()) } else { Err(failure) }
        };
        // A connection that is lost as soon as it is found is not dialled again as soon as it is lost.
        let now = tokio::time::Instant::now();
        let begin = sought.found.map_or(now, |found| now.max(found + REDIAL_FAST));
        let give_up = (self.kind == DialKind::Command).then_some(RETURN_DEADLINE);
        let mut moved = self.moved.subscribe();
        let peer = seek(dial, cures, glance, begin, give_up, &mut moved).await?;
        sought.found = Some(tokio::time::Instant::now());
        *self.peer.lock().await = peer.clone();
        self.outage.heard();
        Ok(peer)
    }

    /// Dials from a socket of its own: whatever translates addresses on the way may hold on to a dead way for that of the lost
    /// connection.
    async fn dial_afresh(&self) -> Result<Peer, Tried> {
        let local = |error: LinkError| Tried {
            failure: Failure::new(Exit::Failed, "cannot make a connection").because(&error),
            passes: false,
        };
        let fresh = Holder::of(&self.credentials(), self.kind).map_err(local)?;
        let peer = self.greet(&fresh.dialer).await?;
        let mut holder = self.holder();
        // Credentials that were renewed meanwhile have a dialler already.
        if holder.credentials.certificate().serial == fresh.credentials.certificate().serial {
            *holder = fresh;
        }
        Ok(peer)
    }
}

/// The next item of a feed; a feed that stays silent, idle marks included, has lost its connection.
///
/// # Errors
/// What ends the feed unfinished.
pub async fn next_heard<I: DeserializeOwned>(feed: &mut Feed<I>) -> Result<Option<I>, CallError> {
    let (pulse, since) = (feed.pulse(), Instant::now());
    loop {
        tokio::select! {
            biased;
            item = feed.next() => return item,
            () = sleep(GLANCE) => {
                if pulse.last_heard().max(since).elapsed() > LOST_AFTER {
                    return Err(CallError::Lost(CloseReason::Silence));
                }
            }
        }
    }
}
