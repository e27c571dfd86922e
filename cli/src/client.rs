//! One session with a coordinator: dial, ask, and dial again when the connection is lost while something is followed.
//!
//! Which requests are made, and what is shown of their answers, is decided by the commands. The certificate is kept alive by
//! a task of its own, see `keeper.rs`. A session that follows something never gives up by itself; see `seek.rs`.

mod keeper;
mod outage;
mod seek;
mod trouble;

use crate::{
    exit::Exit,
    failure::Failure,
    output::{Printer, progress, time::span},
    renewal,
    target::Target,
};
use dora_remote_certs::{Credentials, LifeLeft, lives_left};
use dora_remote_link::{Address, CallError, CloseCode, CloseReason, DialKind, Dialer, Feed, LinkError, Peer, Speaker, retry};
use dora_remote_protocol::{
    ids::{BootId, InstanceId},
    limits::{REDIAL_FAST, SILENCE},
    request::Request,
};
use keeper::Keeper;
use outage::Outage;
use seek::{Tried, seek};
use serde::de::DeserializeOwned;
use std::{
    fs,
    future::pending,
    path::{Path, PathBuf},
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use tokio::{sync::Mutex, time::sleep};
use uuid::Uuid;

/// How long a lost connection is dialled again before a command gives up that follows nothing.
pub const RETURN_DEADLINE: Duration = Duration::from_secs(60);
/// Silence on a feed after which such a command takes its connection for lost. Feeds say every two seconds that they are alive.
const LOST_AFTER: Duration = SILENCE.saturating_mul(2);
/// How often silence is looked at.
const GLANCE: Duration = Duration::from_secs(1);
/// By how much a glance must be late to be taken for a sleep of the whole machine.
const SLEPT: Duration = Duration::from_secs(4);

/// A session with one coordinator.
pub struct Session {
    shared: Arc<Shared>,
    keeper: Keeper,
}

/// What the commands and the keeper of the certificate have in common.
struct Shared {
    address: Address,
    /// Directory of the identity.
    identity: PathBuf,
    kind: DialKind,
    printer: Printer,
    holder: StdMutex<Holder>,
    peer: Mutex<Peer>,
    /// Held by the one that looks for a new connection.
    seeking: Mutex<Sought>,
    outage: Outage,
}

/// What the last search for a connection left behind.
#[derive(Default)]
struct Sought {
    /// When it found one.
    found: Option<tokio::time::Instant>,
}

/// With what is dialled: replaced as one when the certificate is renewed.
struct Holder {
    credentials: Credentials,
    dialer: Arc<Dialer>,
}

impl Session {
    /// Loads the identity and dials.
    ///
    /// # Errors
    /// A failure with exit code 6 for an identity that cannot be used, 5 for a coordinator that does not answer, and others.
    pub async fn open(target: &Target, kind: DialKind, printer: &Printer) -> Result<Self, Failure> {
        let credentials = load_identity(target)?;
        warn_of_clock(&credentials, printer);
        let holder = Holder::of(&credentials, kind)
            .map_err(|error| Failure::new(Exit::Failed, "cannot make a connection").because(&error))?;
        let address = target.address.clone();
        let connecting = || format!("connecting to {address}");
        let peer = progress::showing(printer, connecting, holder.dialer.dial(&address))
            .await
            .map_err(|error| Failure::of_dial(&address, &error))?;
        let shared = Arc::new(Shared {
            address,
            identity: target.identity.clone(),
            kind,
            printer: printer.clone(),
            holder: StdMutex::new(holder),
            peer: Mutex::new(peer),
            seeking: Mutex::default(),
            outage: Outage::new(printer),
        });
        Ok(Self {
            keeper: Keeper::start(Arc::clone(&shared)),
            shared,
        })
    }

    /// Where the coordinator is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.shared.address
    }

    /// The identity as it is now; a renewal replaces it.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.shared.credentials()
    }

    /// The connection as it is now.
    pub async fn peer(&self) -> Peer {
        self.shared.current().await
    }

    /// Asks and waits for the reply; `what` is what is wanted, such as ``stop `camera` ``.
    ///
    /// # Errors
    /// What the coordinator refuses, and all that can go wrong on the way.
    pub async fn call<R: Request>(&self, what: &str, request: &R, deadline: Duration) -> Result<R::Reply, Failure> {
        let peer = self.peer().await;
        let asking = peer.call(request, deadline);
        let waiting = || format!("waiting for {}", self.shared.address);
        progress::showing(&self.shared.printer, waiting, asking)
            .await
            .map_err(|error| Failure::of_call(what, &error))
    }

    /// The coordinator's clock in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// What can go wrong on the way.
    pub async fn now_unix_ms(&self) -> Result<u64, Failure> {
        let welcome = self.peer().await.welcome().await;
        Ok(welcome.map_err(|error| Failure::of_call("connect", &error))?.time_unix_ms)
    }

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
    /// A feed that stays silent, idle marks included, may have lost its connection. Where something is followed, another one is
    /// sought after [`SILENCE`] while the feed is still listened to, and what answers first wins.
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
        loop {
            let seeks = is_silent;
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
                    // Why a search has failed for good is found out again by whoever needs a connection next.
                    _ = &mut seeking => {
                        peer.close(CloseCode::Superseded, "");
                        return Err(CallError::Lost(CloseReason::Silence));
                    }
                    () = sleep(GLANCE) => {}
                }
                let heard = pulse.last_heard().max(since);
                let now = SystemTime::now();
                if now.duration_since(std::mem::replace(&mut glanced, now)).unwrap_or_default() > GLANCE + SLEPT {
                    woke = Some(Instant::now());
                    // Where the connection has outlived the sleep, it goes on from here. It is sought anew in any case.
                    drop(self.shared.holder().dialer.rebind());
                }
                // After a sleep nobody waits for the silence: the network is likely another one.
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

    /// Ends the session in an orderly way, after a renewal that is under way.
    pub async fn close(self) {
        self.keeper.finish().await;
        self.shared.current().await.close_and_flush(CloseCode::Done, "").await;
    }
}

impl Session {
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
        let peer = seek(dial, cures, glance, begin, give_up).await?;
        sought.found = Some(tokio::time::Instant::now());
        *self.peer.lock().await = peer.clone();
        self.outage.heard();
        Ok(peer)
    }

    fn credentials(&self) -> Credentials {
        self.holder().credentials.clone()
    }

    async fn current(&self) -> Peer {
        self.peer.lock().await.clone()
    }

    /// Dials with these credentials from now on.
    fn replace(&self, fresh: &Credentials) -> Result<(), LinkError> {
        let fresh = Holder::of(fresh, self.kind)?;
        *self.holder() = fresh;
        Ok(())
    }

    /// Dials with these credentials from now on, and moves what follows over before the old certificate ends: nobody has told
    /// the coordinator on the present connection that there is a new one.
    async fn adopt(&self, fresh: &Credentials) -> Result<(), Failure> {
        self.replace(fresh).map_err(renewal::RenewalError::from)?;
        if self.kind != DialKind::Command {
            let peer = self.dial_and_greet().await?;
            *self.peer.lock().await = peer;
        }
        Ok(())
    }

    /// Takes over credentials that another process has saved meanwhile; false when there are none.
    async fn take_successor(&self) -> bool {
        let (dir, held) = (self.identity.clone(), self.credentials());
        let found = tokio::task::spawn_blocking(move || renewal::successor(&dir, &held)).await;
        matches!(found, Ok(Some(fresh)) if self.replace(&fresh).is_ok())
    }

    async fn dial_and_greet(&self) -> Result<Peer, Failure> {
        let dialer = Arc::clone(&self.holder().dialer);
        self.greet(&dialer).await.map_err(|tried| tried.failure)
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

    async fn greet(&self, dialer: &Dialer) -> Result<Peer, Tried> {
        let dialled = dialer.dial(&self.address).await;
        let peer = dialled.map_err(|error| Tried {
            failure: Failure::of_dial(&self.address, &error),
            passes: trouble::passes(&error),
        })?;
        peer.welcome().await.map_err(|error| Tried {
            failure: Failure::of_call("connect", &error),
            passes: trouble::is_lost(&error),
        })?;
        Ok(peer)
    }

    fn holder(&self) -> std::sync::MutexGuard<'_, Holder> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder {
    fn of(credentials: &Credentials, kind: DialKind) -> Result<Self, LinkError> {
        Ok(Self {
            dialer: Arc::new(Dialer::new(credentials, speaker(), kind)?),
            credentials: credentials.clone(),
        })
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

/// Loads the identity of the target.
///
/// # Errors
/// A failure with exit code 6.
pub fn load_identity(target: &Target) -> Result<Credentials, Failure> {
    load_identity_in(&target.identity)
}

/// Loads the identity in a directory.
///
/// # Errors
/// A failure with exit code 6.
pub fn load_identity_in(dir: &Path) -> Result<Credentials, Failure> {
    Credentials::load(dir).map_err(|error| {
        Failure::of_certificates(&format!("use the identity in {}", dir.display()), &error)
            .hint("name another directory with `--identity DIR` or DORA_REMOTE_IDENTITY")
    })
}

/// Warns of a certificate that begins only later; one that ends soon is renewed.
fn warn_of_clock(credentials: &Credentials, printer: &Printer) {
    if let LifeLeft::NotBegun(_) = lives_left(credentials.certificate(), SystemTime::now()) {
        warn_of_end(credentials, printer);
    }
}

/// Warns of a certificate that ends soon; one that has ended is a failure of the dial.
pub(crate) fn warn_of_end(credentials: &Credentials, printer: &Printer) {
    match lives_left(credentials.certificate(), SystemTime::now()) {
        LifeLeft::LastThird(left) => printer.warn(&format!("your certificate ends in {}", span(left))),
        LifeLeft::NotBegun(until) => {
            printer.warn(&format!("your certificate begins in {}; is the clock right?", span(until)));
        }
        LifeLeft::Ample(_) | LifeLeft::Ended(_) => {}
    }
}

/// What this process says of itself.
#[must_use]
pub fn speaker() -> Speaker {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    Speaker {
        build: crate::BUILD.to_owned(),
        features: Vec::new(),
        instance: InstanceId(Uuid::new_v4()),
        boot: BootId(boot.and_then(|text| text.trim().parse().ok()).unwrap_or_default()),
    }
}
