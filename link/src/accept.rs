//! The accepting side: handshakes through the gate, the hello, then one tracked task per peer until the end.
//!
//! Whatever is refused here leaves exactly one warning in the log; a peer that has proven nothing is told nothing.

use crate::{
    alert::TlsAlert,
    close::{CloseCode, CloseReason},
    endpoint::{self, plain},
    error::LinkError,
    facade::{CredentialsReplacer, Facade},
    gate::{Ended, LogBudget},
    hello::{self, HelloFault, Speaker},
    idle::OpenStreams,
    intake::{self, HeldPermit},
    overstay,
    patience::Patience,
    peer::{Peer, PeerParts, Rights},
    present::{Holder, Present},
    router::Router,
    secrets::EndpointSecrets,
    serve::{Gatekeeper, RefusedCommand, Service},
    shutdown::Tasks,
};
use dora_remote_certs::{Admission, Admit, CertificateFacts, Clock, Credentials, admit, fingerprint};
use dora_remote_protocol::{
    hello::{Hello, HelloAnswer, Welcome},
    version::VersionRange,
};
use quinn::{Connection, ConnectionError, Endpoint, Incoming};
use rustls::pki_types::CertificateDer;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What an acceptor needs.
#[derive(Debug)]
pub struct AcceptOptions {
    /// Where to listen. `[::]` takes IPv4 as well, and becomes `0.0.0.0` where IPv6 is off.
    pub address: SocketAddr,
    /// Who we are.
    pub credentials: Credentials,
    /// Whom we let in; asked in each handshake, after it, and on each stream.
    pub admission: Arc<dyn Admission>,
    /// The time by which certificates are judged.
    pub clock: Arc<dyn Clock>,
    /// What makes us recognisable after a crash.
    pub secrets: EndpointSecrets,
    /// What our welcome says of us.
    pub speaker: Speaker,
    /// Which life of the store speaks.
    pub store_epoch: u64,
    /// Handshakes in progress at once, at least 2; usually `limits::MAX_HANDSHAKES`.
    pub max_handshakes: usize,
}

/// Hears who comes and goes. Called from the tasks of the connections: must neither block nor wait.
pub trait PeerWatcher: Send + Sync + 'static {
    /// A peer's hello was accepted; its commands are looked at from now on.
    fn arrived(&self, peer: Peer);
    /// The connection of a peer that had arrived is over.
    fn left(&self, peer: &Peer, reason: &CloseReason);
    /// A command was refused before a handler saw it.
    fn refused(&self, _peer: &Peer, _command: &RefusedCommand) {}
}

/// A bound endpoint that waits for peers.
pub struct Acceptor {
    endpoint: Endpoint,
    address: SocketAddr,
    options: AcceptOptions,
    replacer: CredentialsReplacer,
    patience: Patience,
}

impl Acceptor {
    /// Binds the socket. Nobody is let in before [`Acceptor::run`]. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`LinkError`] when the socket or the credentials cannot be used.
    pub fn bind(options: AcceptOptions) -> Result<Self, LinkError> {
        let facade = Facade {
            admission: Arc::clone(&options.admission),
            clock: Arc::clone(&options.clock),
            secrets: options.secrets.clone(),
        };
        let config = facade.config(&options.credentials)?;
        let socket = endpoint::server_socket(options.address)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint =
            Endpoint::new(options.secrets.endpoint_config(), Some(config), socket, runtime).map_err(LinkError::Socket)?;
        let address = endpoint.local_addr().map_err(LinkError::Socket)?;
        let replacer = CredentialsReplacer::new(endpoint.clone(), facade);
        Ok(Self {
            endpoint,
            address,
            options,
            replacer,
            patience: Patience::default(),
        })
    }

    /// The same acceptor with other waits than the usual ones.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// A handle with which the credentials can be replaced while peers are served.
    #[must_use]
    pub fn replacer(&self) -> CredentialsReplacer {
        self.replacer.clone()
    }

    /// Where it listens, with the port that the system gave if port 0 was asked for.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Lets peers in and serves them until `shutdown` is cancelled, then ends in this order: accept nobody, tell handlers
    /// (their `Context::shutdown`), wait for them up to `grace`, close the connections, wait for the last packets.
    ///
    /// # Errors
    /// [`LinkError::Router`] for a bad router, [`LinkError::TaskPanicked`] when a task has panicked, which also ends all.
    pub async fn run(
        self,
        router: Router,
        watcher: impl PeerWatcher,
        shutdown: CancellationToken,
        grace: Duration,
    ) -> Result<(), LinkError> {
        let router = router.build()?;
        let watcher: Arc<dyn PeerWatcher> = Arc::new(watcher);
        let handlers = Tasks::new();
        let peers = Tasks::new();
        let refusals = Arc::clone(&watcher);
        let host = Arc::new(Host {
            service: Service {
                router: Arc::new(router),
                handlers: handlers.clone(),
                gatekeeper: Some(Gatekeeper {
                    admission: Arc::clone(&self.options.admission),
                    clock: Arc::clone(&self.options.clock),
                }),
                on_refusal: Arc::new(move |peer, command| refusals.refused(peer, command)),
                patience: self.patience,
            },
            watcher,
            options: self.options,
            budget: Mutex::new(LogBudget::new(Instant::now())),
            present: Present::default(),
        });
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = handlers.token().cancelled() => {}
            () = peers.token().cancelled() => {}
            () = intake::run(&self.endpoint, host.options.max_handshakes, |incoming, permit| {
                let host = Arc::clone(&host);
                peers.spawn("peer", async move { host.welcome(incoming, permit).await });
            }) => {}
        }
        self.replacer.end();
        let whole = handlers.end(grace).await;
        if !whole {
            tracing::warn!(?grace, "some commands were dropped because they did not end in time");
        }
        let code = CloseCode::ShuttingDown;
        self.endpoint.close(code.var(), code.as_str().as_bytes());
        peers.end(endpoint::LAST_PACKETS).await;
        // Peers that are gone would keep an endpoint waiting; nobody needs more than the last packets.
        drop(timeout(endpoint::LAST_PACKETS, self.endpoint.wait_idle()).await);
        handlers.check()?;
        peers.check()
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// What the tasks of all peers share.
struct Host {
    service: Service,
    watcher: Arc<dyn PeerWatcher>,
    options: AcceptOptions,
    budget: Mutex<LogBudget>,
    present: Present,
}

impl Host {
    /// The life of one connection.
    async fn welcome(self: Arc<Self>, incoming: Incoming, permit: HeldPermit) {
        let remote = plain(incoming.remote_address());
        let handshake = async { incoming.accept()?.await };
        let connection = match timeout(self.patience().handshake, handshake).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return self.refused_handshake(remote, &error),
            Err(_) => {
                permit.end(Ended::OutOfTime);
                return self.refused(remote, None, "the handshake did not end in time");
            }
        };
        permit.end(Ended::Finished);
        let Some((chain, certificate, rights)) = self.judge(remote, &connection) else {
            connection.close(CloseCode::Refused.var(), b"");
            return;
        };
        let holder = match rights {
            Rights::JoinOnly(key) => Holder::Invite(key),
            Rights::Full | Rights::RenewOnly => Holder::Identity(certificate.identity.clone()),
        };
        let Some(place) = self.present.take(holder) else {
            self.refused(remote, Some(&certificate), "this identity or invite has too many connections");
            connection.close(CloseCode::Refused.var(), b"too many connections");
            return;
        };
        let Some((hello, welcome)) = self.greet(remote, &connection, &certificate).await else {
            return;
        };
        let peer = Peer::new(PeerParts {
            connection: connection.clone(),
            certificate,
            chain,
            rights,
            hello: Some(hello),
            greeting: Some(Ok(welcome)),
        });
        let serial = &peer.certificate().serial;
        tracing::info!(peer = %peer.identity(), serial, ?rights, %remote, "a peer has arrived");
        self.watcher.arrived(peer.clone());
        let (weak, open) = (peer.downgrade(), OpenStreams::new());
        let overstaying = async {
            let (code, why) = overstay::overstayed(&peer, &*self.options.clock, self.patience(), &open).await;
            tracing::info!(peer = %peer.identity(), %remote, why, "closed a connection that stood for long enough");
            peer.close(code, why);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = self.service.run(&weak, &connection, &open, place.bodies()) => {}
            () = overstaying => {}
        }
        let reason = peer.closed().await;
        tracing::info!(peer = %peer.identity(), %remote, %reason, "a peer has left");
        self.watcher.left(&peer, &reason);
    }

    /// Judges again what the verifier let through: what it says now becomes the rights of the peer.
    fn judge(
        &self,
        remote: SocketAddr,
        connection: &Connection,
    ) -> Option<(Vec<CertificateDer<'static>>, CertificateFacts, Rights)> {
        let chain = connection
            .peer_identity()
            .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
            .map(|chain| *chain)
            .unwrap_or_default();
        match admit(&chain, self.options.clock.now(), &self.options.admission.snapshot()) {
            Admit::Full(facts) => Some((chain, facts, Rights::Full)),
            Admit::RenewOnly(facts) => Some((chain, facts, Rights::RenewOnly)),
            Admit::JoinOnly(key, identity) => {
                // Nothing that the holder of an invite says of itself counts: its certificate is self-made.
                let now = self.options.clock.now();
                let facts = CertificateFacts {
                    identity,
                    serial: String::new(),
                    not_before: now,
                    not_after: now + self.patience().one_purpose,
                    fingerprint: chain.first().map(|der| fingerprint(der)).unwrap_or_default(),
                };
                Some((chain, facts, Rights::JoinOnly(key)))
            }
            Admit::No(rejection) => {
                self.refused(remote, None, &rejection.to_string());
                None
            }
        }
    }

    /// Reads the hello and answers it.
    async fn greet(
        &self,
        remote: SocketAddr,
        connection: &Connection,
        certificate: &CertificateFacts,
    ) -> Option<(Hello, Welcome)> {
        let (hello, mut outgoing) = match hello::receive(connection, self.patience().handshake).await {
            Ok(received) => received,
            Err(HelloFault::Late) => {
                self.refused(remote, Some(certificate), "no hello came in time");
                connection.close(CloseCode::Unanswered.var(), b"no hello came in time");
                return None;
            }
            Err(HelloFault::Broken(error)) => {
                self.refused(remote, Some(certificate), &format!("the hello is broken: {error}"));
                connection.close(CloseCode::ProtocolError.var(), b"the hello is broken");
                return None;
            }
        };
        let version = match hello::agree(hello.versions) {
            Ok(version) => version,
            Err(refusal) => {
                let reason = format!("{refusal} (we speak {}, it speaks {})", VersionRange::OURS, hello.versions);
                self.refused(remote, Some(certificate), &reason);
                let patience = self.patience().handshake;
                if hello::answer(&mut outgoing, &HelloAnswer::Refusal(refusal), patience)
                    .await
                    .is_ok()
                {
                    // The asker closes once it has read why.
                    drop(timeout(patience, connection.closed()).await);
                }
                connection.close(CloseCode::Refused.var(), b"the hello was refused");
                return None;
            }
        };
        let welcome = Welcome {
            version,
            build: self.options.speaker.build.clone(),
            features: self.options.speaker.features.clone(),
            role: certificate.identity.role,
            time_unix_ms: unix_milliseconds(self.options.clock.now()),
            store_epoch: self.options.store_epoch,
        };
        let answer = HelloAnswer::Welcome(welcome.clone());
        match hello::answer(&mut outgoing, &answer, self.patience().handshake).await {
            Ok(()) => Some((hello, welcome)),
            Err(error) => {
                tracing::debug!(%remote, %error, "a peer went away during its hello, or did not read the answer");
                connection.close(CloseCode::Unanswered.var(), b"the answer to the hello was not taken");
                None
            }
        }
    }

    fn patience(&self) -> &Patience {
        &self.service.patience
    }

    fn refused_handshake(&self, remote: SocketAddr, error: &ConnectionError) {
        let reason = match error {
            ConnectionError::TransportError(fault) => match TlsAlert::of_quic(fault.code) {
                Some(alert) => format!("{alert} ({})", fault.reason),
                None => error.to_string(),
            },
            ConnectionError::ConnectionClosed(close) => match TlsAlert::of_quic(close.error_code) {
                Some(alert) => format!("the peer does not trust us: {alert}"),
                None => error.to_string(),
            },
            other => other.to_string(),
        };
        self.refused(remote, None, &reason);
    }

    /// The one line about a refused connection.
    fn refused(&self, remote: SocketAddr, certificate: Option<&CertificateFacts>, reason: &str) {
        let peer = certificate.map(|certificate| certificate.identity.to_string());
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(suppressed) = budget.spend(Instant::now()) {
            tracing::warn!(%remote, peer, reason, suppressed, "refused a connection");
        }
    }
}

fn unix_milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
