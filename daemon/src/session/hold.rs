//! Keeps one joined connection alive: heartbeats, reports, renewals, until it is cut.

use super::{Cut, SessionConfig, Silent, renew::PeerTime, renew::Renewer, report};
use crate::{store::StoreError, supervisor::View};
use dora_remote_link::{CallError, CloseCode, Dialer, NetworkChange, NetworkWatch, Peer, Tasks};
use dora_remote_protocol::{
    daemon_to_coordinator::Heartbeat,
    limits::{HEARTBEAT_ACTIVE, HEARTBEAT_IDLE, IDLE_TIMEOUT, NUDGE, SILENCE},
};
use std::{convert::Infallible, time::Duration};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How long a heartbeat waits for its answer: when a busy machine was last heard one interval before, that makes [`SILENCE`].
const ANSWER: Duration = SILENCE.saturating_sub(HEARTBEAT_ACTIVE);

/// The same in a network that is new: the connection may not have come along.
const NEW_NETWORK: Duration = Duration::from_secs(1);

/// A joined connection in use.
pub(super) struct Hold<'a> {
    pub(super) config: &'a SessionConfig,
    pub(super) view: &'a watch::Receiver<View>,
    pub(super) tasks: &'a Tasks,
    pub(super) peer: &'a Peer,
    /// What has dialled it.
    pub(super) dialer: &'a Dialer,
    /// The time there.
    pub(super) time: PeerTime,
}

impl Hold<'_> {
    /// Keeps the connection alive and reports on it until it is cut. `beat`: when the next heartbeat is due, if not at once.
    pub(super) async fn run(
        &self,
        beat: Option<Instant>,
        renewer: &mut Renewer,
        network: &mut NetworkWatch,
        shutdown: &CancellationToken,
    ) -> Result<Cut, StoreError> {
        let peer = self.peer;
        let moved = Notify::new();
        // What goes on beside the heartbeats, whether or not one is under way.
        let mut aside = std::pin::pin!(async {
            tokio::select! {
                ended = report::run(peer.clone(), self.config.store.clone(), self.view.clone()) => ended,
                never = renewer.keep(peer, self.time) => match never {},
                never = self.follow_network(network, &moved) => match never {},
            }
        });
        let mut engine = self.config.engine.clone();
        let mut view = self.view.clone();
        let mut due = beat.unwrap_or_else(Instant::now);
        let mut active = view.borrow_and_update().active;
        loop {
            let mut patience = ANSWER;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(Cut::Shutdown),
                reason = peer.closed() => return Ok(Cut::Closed(reason.to_string())),
                ended = &mut aside => return self.not_reported(ended),
                Ok(()) = engine.changed() => {}
                Ok(()) = view.changed() => {
                    // A machine that becomes busy is not silent for as long as an idle one may be.
                    if std::mem::replace(&mut active, view.borrow_and_update().active) != active {
                        due = due.min(Instant::now() + interval(self.view));
                    }
                    continue;
                }
                () = moved.notified() => patience = NEW_NETWORK,
                () = sleep_until(due) => {}
            }
            let mut beating = self.beat();
            let answered = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(Cut::Shutdown),
                answered = timeout(patience, self.nudging(&mut beating)) => answered,
                ended = &mut aside => {
                    beating.abort();
                    return self.not_reported(ended);
                }
            };
            match answered {
                Ok(Ok(Ok(()))) => {
                    self.config.heard.now();
                    due = Instant::now() + interval(self.view);
                }
                Ok(Ok(Err(error))) => {
                    debug!(%error, "a heartbeat was refused");
                    peer.close(CloseCode::Done, "a heartbeat was refused");
                    return Ok(Cut::Closed(error.to_string()));
                }
                Ok(Err(error)) => return Ok(Cut::Closed(format!("a heartbeat broke off: {error}"))),
                Err(_) => {
                    return Ok(Cut::Silent(Silent {
                        peer: peer.clone(),
                        time: self.time,
                        beat: beating,
                    }));
                }
            }
        }
    }

    /// Moves the connection along when the machine comes to another network, and tells `moved`.
    async fn follow_network(&self, network: &mut NetworkWatch, moved: &Notify) -> Infallible {
        loop {
            match network.changed(Some(self.peer.remote_address())).await {
                NetworkChange::Moved => {
                    info!("this machine has come to another network");
                    if let Err(error) = self.dialer.rebind() {
                        warn!(%error, "the connection cannot be moved to a fresh socket");
                    }
                    moved.notify_one();
                }
                NetworkChange::Other => self.peer.nudge(),
            }
        }
    }

    /// Waits for the answer to a heartbeat, and makes packets leave meanwhile: QUIC doubles the pause between its own probes, and a
    /// coordinator that has come back tells by its answer to any packet that it has forgotten the connection.
    async fn nudging<T>(&self, mut beating: impl Future<Output = T> + Unpin) -> T {
        loop {
            match timeout(NUDGE, &mut beating).await {
                Ok(answer) => return answer,
                Err(_) => self.peer.nudge(),
            }
        }
    }

    fn not_reported(&self, ended: report::Ended) -> Result<Cut, StoreError> {
        match ended {
            report::Ended::Store(error) => Err(error),
            report::Ended::Peer(error) => {
                self.peer.close(CloseCode::Done, "events could not be reported");
                Ok(Cut::Closed(error.to_string()))
            }
        }
    }

    /// Sends a heartbeat that waits for its answer as long as the connection may live.
    fn beat(&self) -> JoinHandle<Result<(), CallError>> {
        let heartbeat = Heartbeat {
            engine: self.config.engine.borrow().clone(),
            disk: self.config.disk.usage(),
        };
        let (peer, token) = (self.peer.clone(), self.tasks.token().clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = token.cancelled() => Err(CallError::TimedOut { after: Duration::ZERO }),
                answer = peer.call(&heartbeat, IDLE_TIMEOUT) => answer,
            }
        })
    }
}

/// The pause between heartbeats.
pub(super) fn interval(view: &watch::Receiver<View>) -> Duration {
    if view.borrow().active {
        HEARTBEAT_ACTIVE
    } else {
        HEARTBEAT_IDLE
    }
}
