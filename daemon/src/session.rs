//! Stays joined to the coordinator for ever: joins, reports events, sends heartbeats, and finds the way back after every cut.
//!
//! Work belongs to the machine and not to the connection: nothing here ever stops a run but the coordinator's own word.

mod report;
mod seek;

use crate::{
    store::StoreError,
    store_thread::StoreHandle,
    supervisor::{Input, SupervisorHandle, View},
};
use dora_remote_link::{Address, CallError, CloseCode, Peer, Router, Speaker, Tasks};
use dora_remote_protocol::{
    daemon_to_coordinator::{Heartbeat, JoinMachine},
    dataflow::Labels,
    limits::{HEARTBEAT_ACTIVE, HEARTBEAT_IDLE, IDLE_TIMEOUT, ORDER_DEADLINE, SILENCE},
    machine::{EngineStatus, MachineFacts},
};
pub(crate) use seek::load_credentials;
use seek::{Found, Seeker};
use std::{path::PathBuf, time::Duration};
use thiserror::Error;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Time for handlers to end when the daemon ends.
const END_GRACE: Duration = Duration::from_secs(2);

/// What a session needs.
#[derive(Clone)]
pub(crate) struct SessionConfig {
    /// The coordinator.
    pub(crate) coordinator: Address,
    /// Where the credentials lie; read again when they are refused, as somebody may have put new ones there.
    pub(crate) credentials_dir: PathBuf,
    /// What the hello says.
    pub(crate) speaker: Speaker,
    /// Labels of this machine.
    pub(crate) labels: Labels,
    /// What the coordinator may order.
    pub(crate) orders: SupervisorHandle,
    /// Events wait here.
    pub(crate) store: StoreHandle,
    /// The engine.
    pub(crate) engine: watch::Receiver<EngineStatus>,
}

/// Stays joined.
pub(crate) struct Session {
    config: SessionConfig,
    seeker: Seeker,
    view: watch::Receiver<View>,
    joined: watch::Sender<Option<Peer>>,
    tasks: Tasks,
}

/// Why a session ended for good.
#[derive(Debug, Error)]
pub(crate) enum SessionError {
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The credentials cannot be used, at the start of the daemon.
    #[error(transparent)]
    Credentials(#[from] seek::CredentialsError),
}

/// A connection on which nothing was heard for a while, with the heartbeat that is still under way.
pub(super) struct Silent {
    peer: Peer,
    beat: JoinHandle<Result<(), CallError>>,
}

/// How a joined connection came to its end.
enum Cut {
    Shutdown,
    Closed(String),
    Silent(Silent),
}

impl Session {
    /// A session that has not dialled yet. `joined` is where the connection in use is published.
    ///
    /// # Errors
    /// [`SessionError::Credentials`] when there are none, or none of a daemon.
    pub(crate) fn new(
        config: SessionConfig,
        router: fn(&SupervisorHandle) -> Router,
        joined: watch::Sender<Option<Peer>>,
        counter: u64,
        tasks: Tasks,
    ) -> Result<Self, SessionError> {
        let seeker = Seeker::new(&config, router, counter)?;
        let view = config.orders.view();
        Ok(Self {
            config,
            seeker,
            view,
            joined,
            tasks,
        })
    }

    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// [`StoreError`] alone: trouble with the network never ends a session.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let mut silent = None;
        loop {
            let found = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                found = self.find(&mut silent) => found?,
            };
            let (peer, beat) = match found {
                Joined::New(peer) => (peer, None),
                Joined::Back(Silent { peer, .. }) => (peer, Some(Instant::now() + self.interval())),
            };
            self.joined.send_replace(Some(peer.clone()));
            let cut = self.hold(&peer, beat, &shutdown).await?;
            self.joined.send_replace(None);
            silent = match cut {
                Cut::Shutdown => {
                    peer.close(CloseCode::ShuttingDown, "the daemon is ending");
                    break;
                }
                Cut::Closed(reason) => {
                    warn!(reason, "the connection to the coordinator is lost; work goes on");
                    None
                }
                Cut::Silent(silent) => {
                    warn!("nothing is heard from the coordinator; work goes on");
                    Some(silent)
                }
            };
        }
        self.seeker.shutdown(END_GRACE).await;
        Ok(())
    }

    /// Finds the way to the coordinator: a new connection that is joined, or the silent one when it answers again.
    async fn find(&mut self, silent: &mut Option<Silent>) -> Result<Joined, StoreError> {
        let since = Instant::now();
        let mut known = String::new();
        loop {
            match self.seeker.seek(silent, since).await {
                Found::Back(silent) => {
                    info!(after = ?since.elapsed(), "the coordinator answers again");
                    return Ok(Joined::Back(silent));
                }
                Found::New(peer) => match self.join(&peer).await? {
                    Ok(()) => {
                        if let Some(silent) = silent.take() {
                            silent.beat.abort();
                            silent.peer.close(CloseCode::Superseded, "another connection took over");
                        }
                        self.seeker.arrived();
                        info!(coordinator = %peer.identity(), remote = %peer.remote_address(), after = ?since.elapsed(), "joined");
                        return Ok(Joined::New(peer));
                    }
                    Err(error) => {
                        peer.close(CloseCode::Done, "the join failed");
                        let text = error.to_string();
                        if text != known {
                            warn!(
                                error = text,
                                "the coordinator does not let this machine join; it is tried again"
                            );
                            known = text;
                        }
                        self.seeker.failed(&error);
                    }
                },
            }
        }
    }

    /// Says what this machine is and has in hand.
    async fn join(&self, peer: &Peer) -> Result<Result<(), CallError>, StoreError> {
        let Some(report) = self.config.orders.ask(Input::Join).await else {
            return Err(StoreError::Closed);
        };
        let request = JoinMachine {
            facts: MachineFacts {
                labels: self.config.labels.clone(),
                build: self.config.speaker.build.clone(),
                platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
                engine: self.config.engine.borrow().clone(),
            },
            runs: report.runs,
            last_seq: report.last_seq,
            witnessed: None,
            revocations: None,
        };
        let joined = match peer.call(&request, ORDER_DEADLINE.min(SILENCE)).await {
            Ok(joined) => joined,
            Err(error) => return Ok(Err(error)),
        };
        if joined.acked_seq > report.last_seq {
            warn!(
                known = joined.acked_seq,
                ours = report.last_seq,
                "the coordinator knows more events of this machine than the machine itself: was its state directory restored?"
            );
        }
        let acked = joined.acked_seq.min(report.last_seq);
        self.config.store.run(move |store| store.ack_events(acked)).await?;
        if !joined.unwanted.is_empty() {
            self.config.orders.tell(Input::Unwanted(joined.unwanted)).await;
        }
        Ok(Ok(()))
    }

    /// Keeps a joined connection alive and reports on it until it is cut. `beat`: when the next heartbeat is due, if not at once.
    async fn hold(&mut self, peer: &Peer, beat: Option<Instant>, shutdown: &CancellationToken) -> Result<Cut, StoreError> {
        let mut reporting = std::pin::pin!(report::run(peer.clone(), self.config.store.clone(), self.view.clone()));
        let mut engine = self.config.engine.clone();
        let mut view = self.view.clone();
        let mut due = beat.unwrap_or_else(Instant::now);
        let mut active = view.borrow_and_update().active;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(Cut::Shutdown),
                reason = peer.closed() => return Ok(Cut::Closed(reason.to_string())),
                error = &mut reporting => return match error {
                    report::Ended::Store(error) => Err(error),
                    report::Ended::Peer(error) => {
                        peer.close(CloseCode::Done, "events could not be reported");
                        Ok(Cut::Closed(error.to_string()))
                    }
                },
                Ok(()) = engine.changed() => {}
                Ok(()) = view.changed() => {
                    // A machine that becomes busy is not silent for as long as an idle one may be.
                    if std::mem::replace(&mut active, view.borrow_and_update().active) != active {
                        due = due.min(Instant::now() + self.interval());
                    }
                    continue;
                }
                () = sleep_until(due) => {}
            }
            let mut beating = self.beat(peer);
            // The reports share the connection, and must go on while a heartbeat is under way.
            let answered = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(Cut::Shutdown),
                answered = timeout(SILENCE, &mut beating) => answered,
                error = &mut reporting => {
                    beating.abort();
                    return match error {
                        report::Ended::Store(error) => Err(error),
                        report::Ended::Peer(error) => {
                            peer.close(CloseCode::Done, "events could not be reported");
                            Ok(Cut::Closed(error.to_string()))
                        }
                    };
                }
            };
            match answered {
                Ok(Ok(Ok(()))) => due = Instant::now() + self.interval(),
                Ok(Ok(Err(error))) => {
                    debug!(%error, "a heartbeat was refused");
                    peer.close(CloseCode::Done, "a heartbeat was refused");
                    return Ok(Cut::Closed(error.to_string()));
                }
                Ok(Err(error)) => return Ok(Cut::Closed(format!("a heartbeat broke off: {error}"))),
                Err(_) => {
                    return Ok(Cut::Silent(Silent {
                        peer: peer.clone(),
                        beat: beating,
                    }));
                }
            }
        }
    }

    /// Sends a heartbeat that waits for its answer as long as the connection may live.
    fn beat(&self, peer: &Peer) -> JoinHandle<Result<(), CallError>> {
        let heartbeat = Heartbeat {
            engine: self.config.engine.borrow().clone(),
        };
        let (peer, token) = (peer.clone(), self.tasks.token().clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = token.cancelled() => Err(CallError::TimedOut { after: Duration::ZERO }),
                answer = peer.call(&heartbeat, IDLE_TIMEOUT) => answer,
            }
        })
    }

    fn interval(&self) -> Duration {
        if self.view.borrow().active {
            HEARTBEAT_ACTIVE
        } else {
            HEARTBEAT_IDLE
        }
    }
}

/// A connection that is joined.
enum Joined {
    New(Peer),
    Back(Silent),
}
