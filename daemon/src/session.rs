//! Stays joined to the coordinator for ever: joins, reports events, sends heartbeats, renews its certificate, and finds the way
//! back after every cut.
//!
//! Work belongs to the machine and not to the connection: nothing here ever stops a run but the coordinator's own word, or the
//! machine's policy once the coordinator has shut it out. Whether silence ends a run is decided in `link_loss`.

mod greeting;
mod hold;
mod joining;
mod keys;
mod renew;
mod report;
mod schedule;
mod seek;
mod shut_out;
mod trouble;
mod way;

pub(crate) use keys::{Keys, load_credentials};

use crate::{
    disk::Disk, handlers::Orders, link_loss::Heard, on_revoked::OnRevoked, store::StoreError, store_thread::StoreHandle,
    supervisor::View,
};
use dora_remote_certs::{Clock, FloorClock};
use dora_remote_link::{Address, CallError, CloseCode, Dialer, NetworkChange, NetworkWatch, Peer, Tasks};
use dora_remote_protocol::{dataflow::Labels, machine::EngineStatus, refusal::RefusalCode};
use greeting::Greeter;
use hold::{Hold, interval};
use renew::{PeerTime, Renewer};
use seek::{Found, Seeker};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use way::Way;

/// Time for handlers to end when the daemon ends.
const END_GRACE: Duration = Duration::from_secs(2);

/// What a session needs.
#[derive(Clone)]
pub(crate) struct SessionConfig {
    /// The coordinator.
    pub(crate) coordinator: Address,
    /// The credentials in use.
    pub(crate) keys: Arc<Keys>,
    /// The clock of the machine, as it is.
    pub(crate) clock: Arc<dyn Clock>,
    /// The same with a floor under it.
    pub(crate) floor: Arc<FloorClock>,
    /// Labels of this machine.
    pub(crate) labels: Labels,
    /// What the coordinator may order.
    pub(crate) orders: Orders,
    /// Events wait here.
    pub(crate) store: StoreHandle,
    /// The engine.
    pub(crate) engine: watch::Receiver<EngineStatus>,
    /// What is told of the disk.
    pub(crate) disk: Arc<Disk>,
    /// What becomes of the runs when this machine is shut out.
    pub(crate) on_revoked: OnRevoked,
    /// Where answers of the coordinator are noted.
    pub(crate) heard: Heard,
}

/// Stays joined.
pub(crate) struct Session {
    config: SessionConfig,
    seeker: Seeker,
    greeter: Greeter,
    renewer: Renewer,
    view: watch::Receiver<View>,
    joined: watch::Sender<Option<Peer>>,
    network: NetworkWatch,
    /// Where the coordinator was last.
    remote: Option<SocketAddr>,
    tasks: Tasks,
    /// What has dialled the connection in use: no longer that of the keys once these were renewed.
    dialer: Arc<Dialer>,
}

/// A connection on which nothing was heard for a while, with the heartbeat that is still under way.
struct Silent {
    peer: Peer,
    time: PeerTime,
    beat: JoinHandle<Result<(), CallError>>,
}

/// A connection that is joined.
enum Joined {
    New(Peer, PeerTime),
    Back(Silent),
}

/// How a joined connection came to its end.
enum Cut {
    Shutdown,
    Closed(String),
    Silent(Silent),
}

impl Session {
    /// A session that has not dialled yet. `joined` is where the connection in use is published.
    pub(crate) fn new(config: SessionConfig, joined: watch::Sender<Option<Peer>>, tasks: Tasks) -> Self {
        let (keys, orders) = (&config.keys, &config.orders);
        let seeker = Seeker::new(config.coordinator.clone(), Arc::clone(keys), orders.clone());
        let greeter = Greeter::new(Arc::clone(&config.clock), Arc::clone(&config.floor), config.store.clone());
        let renewer = Renewer::new(Arc::clone(keys), config.coordinator.clone(), orders.clone());
        Self {
            view: orders.supervisor.view(),
            dialer: keys.dialer(),
            config,
            seeker,
            greeter,
            renewer,
            joined,
            network: NetworkWatch::new(),
            remote: None,
            tasks,
        }
    }

    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// [`StoreError`] alone: trouble with the network never ends a session.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let supervisor = self.config.orders.supervisor.clone();
        let watching = shut_out::run(self.seeker.shut_out(), supervisor, self.config.on_revoked, shutdown.clone());
        self.tasks.spawn("shut-out", watching);
        let mut silent = None;
        loop {
            let found = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                found = self.find(&mut silent) => found?,
            };
            let (peer, time, beat) = match found {
                Joined::New(peer, time) => (peer, time, None),
                Joined::Back(Silent { peer, time, .. }) => (peer, time, Some(Instant::now() + interval(&self.view))),
            };
            self.config.heard.now();
            self.joined.send_replace(Some(peer.clone()));
            let hold = Hold {
                config: &self.config,
                view: &self.view,
                tasks: &self.tasks,
                peer: &peer,
                dialer: &self.dialer,
                time,
            };
            let cut = hold.run(beat, &mut self.renewer, &mut self.network, &shutdown).await?;
            self.remote = Some(peer.remote_address());
            self.joined.send_replace(None);
            silent = match cut {
                Cut::Shutdown => {
                    peer.close(CloseCode::ShuttingDown, "the daemon is ending");
                    break;
                }
                Cut::Closed(reason) => {
                    warn!(reason, "the connection to the coordinator is lost; work goes on");
                    // What was said when it was closed tells more than what broke thereby.
                    if let Some(close) = peer.close_reason() {
                        self.seeker.ended(&close);
                    }
                    None
                }
                Cut::Silent(silent) => {
                    warn!("nothing is heard from the coordinator; work goes on");
                    Some(silent)
                }
            };
        }
        self.seeker.shutdown().await;
        let present = self.config.keys.dialer();
        tokio::join!(self.dialer.shutdown(END_GRACE), present.shutdown(END_GRACE));
        Ok(())
    }

    /// Finds the way to the coordinator: a new connection that is joined, or the silent one when it answers again.
    async fn find(&mut self, silent: &mut Option<Silent>) -> Result<Joined, StoreError> {
        let since = Instant::now();
        loop {
            let found = tokio::select! {
                biased;
                found = self.seeker.seek(silent, since) => found,
                change = self.network.changed(self.remote) => {
                    if change == NetworkChange::Moved {
                        info!("this machine has come to another network");
                        // The silent connection may come along.
                        let _ = self.dialer.rebind();
                        self.seeker.hurry();
                    }
                    continue;
                }
            };
            let way = match found {
                Found::Back(silent) => {
                    info!(after = ?since.elapsed(), "the coordinator answers again");
                    return Ok(Joined::Back(silent));
                }
                Found::New(way) => way,
            };
            if let Some((way, time)) = self.enter(way, since).await? {
                if let Some(silent) = silent.take() {
                    silent.beat.abort();
                    silent.peer.close(CloseCode::Superseded, "another connection took over");
                }
                self.seeker.arrived();
                let peer = way.peer;
                info!(coordinator = %peer.identity(), remote = %peer.remote_address(), after = ?since.elapsed(), "joined");
                self.dialer = way.dialer;
                return Ok(Joined::New(peer, time));
            }
        }
    }

    /// Joins over a new connection; renews the certificate first where the coordinator lets this machine in for nothing else.
    /// None when the coordinator does not want it.
    async fn enter(&mut self, mut way: Way, since: Instant) -> Result<Option<(Way, PeerTime)>, StoreError> {
        let mut renewed = false;
        loop {
            let time = self.greeter.greeted(&way).await?;
            let error = match joining::join(&self.config, &way.peer, way.welcome.store_epoch).await? {
                Ok(()) => return Ok(Some((way, time))),
                Err(error) => error,
            };
            if has_lapsed(&error) && !renewed {
                renewed = true;
                match self.renewer.recover(&way.peer, time).await {
                    Ok(fresh) => {
                        way.peer.close(CloseCode::Done, "the certificate is renewed");
                        way = fresh;
                    }
                    Err(pause) => {
                        way.peer.close(CloseCode::Done, "the certificate was not renewed");
                        self.seeker.hold_off(pause);
                        return Ok(None);
                    }
                }
                continue;
            }
            way.peer.close(CloseCode::Done, "the join failed");
            self.seeker.failed(&error, since);
            return Ok(None);
        }
    }
}

/// Whether the coordinator has let this machine in for nothing but renewing its certificate.
fn has_lapsed(error: &CallError) -> bool {
    matches!(error, CallError::Refused(refusal) if refusal.code == RefusalCode::CertificateLapsed)
}
