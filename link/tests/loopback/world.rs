//! What the tests stand on: an authority in a temporary directory, servers, diallers, requests, and one way to wait.

use dora_remote_certs::{Admission, AdmissionSnapshot, Authority, Credentials, SystemClock, default_life};
use dora_remote_link::{
    AcceptOptions, Acceptor, Address, CloseReason, CredentialsReplacer, DialKind, Dialer, EndpointSecrets, LinkError, Patience,
    Peer, PeerWatcher, RefusedCommand, Router, Speaker,
};
use dora_remote_protocol::{
    identity::{Identity, Role, RoleSet},
    ids::{BootId, InstanceId},
    limits::MAX_HANDSHAKES,
    request::{Priority, Request, Shape, Verb},
};
use serde::{Deserialize, Serialize};
use std::{
    future::Future,
    io::Write,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The one deadline of all waits. Generous, because the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// Waits for something that must come.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("what was waited for did not come")
}

/// One trust domain.
pub(crate) struct World {
    dir: TempDir,
    authority: Authority,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let domain = "test.example".parse().expect("good");
        let authority = Authority::init(&dir.path().join("authority"), &domain, SystemTime::now()).expect("made");
        Self { dir, authority }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn credentials(&self, role: Role, name: &str) -> Credentials {
        self.issue(role, name, default_life(role), SystemTime::now())
    }

    pub(crate) fn issue(&self, role: Role, name: &str, life: Duration, now: SystemTime) -> Credentials {
        let identity = Identity {
            trust_domain: self.authority.trust_domain().clone(),
            role,
            name: name.parse().expect("good"),
        };
        self.authority.issue(&identity, life, now).expect("issued")
    }

    /// What was valid for an hour, a while ago.
    pub(crate) fn expired(&self, role: Role, name: &str) -> Credentials {
        let credentials = self.issue(role, name, Duration::from_secs(1), SystemTime::now());
        let end = credentials.certificate().not_after;
        let wait = end.duration_since(SystemTime::now()).unwrap_or_default() + Duration::from_millis(1100);
        // A certificate cannot begin before its issuer, so that there is no way but to let its second pass.
        std::thread::park_timeout(wait);
        while SystemTime::now() < end + Duration::from_secs(1) {
            std::thread::yield_now();
        }
        credentials
    }

    pub(crate) fn dialer(&self, role: Role, name: &str) -> Dialer {
        Dialer::new(&self.credentials(role, name), speaker(), DialKind::Command).expect("a dialler")
    }

    pub(crate) fn options(&self) -> AcceptOptions {
        let credentials = self.credentials(Role::Coordinator, "main");
        options(credentials.clone(), Records::of(&credentials))
    }

    /// A server with the usual credentials and records.
    pub(crate) fn serve(&self, router: Router) -> Server {
        Server::start(self.options(), router)
    }
}

pub(crate) fn options(credentials: Credentials, admission: Arc<dyn Admission>) -> AcceptOptions {
    AcceptOptions {
        address: "[::]:0".parse().expect("good"),
        credentials,
        admission,
        clock: Arc::new(SystemClock),
        secrets: EndpointSecrets::generate().expect("random"),
        speaker: speaker(),
        store_epoch: 42,
        max_handshakes: MAX_HANDSHAKES,
    }
}

pub(crate) fn speaker() -> Speaker {
    Speaker {
        build: "0.0.0-test".to_owned(),
        features: vec!["testing".to_owned()],
        instance: InstanceId(Uuid::new_v4()),
        boot: BootId(Uuid::new_v4()),
    }
}

/// Records that a test can change while a server runs.
#[derive(Debug)]
pub(crate) struct Records(Mutex<Arc<AdmissionSnapshot>>);

impl Records {
    pub(crate) fn of(credentials: &Credentials) -> Arc<Self> {
        let snapshot = AdmissionSnapshot::of(credentials).expect("a snapshot");
        Arc::new(Self(Mutex::new(Arc::new(snapshot))))
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut AdmissionSnapshot)) {
        let mut records = self.0.lock().expect("not poisoned");
        change(Arc::make_mut(&mut records));
    }
}

impl Admission for Records {
    fn snapshot(&self) -> Arc<AdmissionSnapshot> {
        Arc::clone(&self.0.lock().expect("not poisoned"))
    }
}

/// What a server's watcher has seen.
#[derive(Debug)]
pub(crate) enum Seen {
    Arrived(Peer),
    Left(CloseReason),
    Refused(RefusedCommand),
}

struct Watcher(mpsc::UnboundedSender<Seen>);

impl PeerWatcher for Watcher {
    fn arrived(&self, peer: Peer) {
        let _ = self.0.send(Seen::Arrived(peer));
    }

    fn left(&self, _peer: &Peer, reason: &CloseReason) {
        let _ = self.0.send(Seen::Left(reason.clone()));
    }

    fn refused(&self, _peer: &Peer, command: &RefusedCommand) {
        let _ = self.0.send(Seen::Refused(command.clone()));
    }
}

/// A running acceptor.
pub(crate) struct Server {
    pub(crate) address: Address,
    pub(crate) shutdown: CancellationToken,
    pub(crate) replacer: CredentialsReplacer,
    seen: mpsc::UnboundedReceiver<Seen>,
    running: JoinHandle<Result<(), LinkError>>,
}

impl Server {
    pub(crate) fn start(options: AcceptOptions, router: Router) -> Self {
        Self::with_patience(options, router, Patience::default())
    }

    pub(crate) fn with_patience(options: AcceptOptions, router: Router, patience: Patience) -> Self {
        let acceptor = Acceptor::bind(options).expect("bound").with_patience(patience);
        let address = at_port(acceptor.local_address().port());
        let replacer = acceptor.replacer();
        let shutdown = CancellationToken::new();
        let (sender, seen) = mpsc::unbounded_channel();
        let running = tokio::spawn(acceptor.run(router, Watcher(sender), shutdown.clone(), GRACE));
        Self {
            address,
            shutdown,
            replacer,
            seen,
            running,
        }
    }

    pub(crate) fn socket_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.address.port))
    }

    pub(crate) async fn next(&mut self) -> Seen {
        soon(self.seen.recv()).await.expect("the server is running")
    }

    pub(crate) async fn arrived(&mut self) -> Peer {
        loop {
            if let Seen::Arrived(peer) = self.next().await {
                return peer;
            }
        }
    }

    pub(crate) async fn left(&mut self) -> CloseReason {
        loop {
            if let Seen::Left(reason) = self.next().await {
                return reason;
            }
        }
    }

    pub(crate) async fn refused(&mut self) -> RefusedCommand {
        loop {
            if let Seen::Refused(command) = self.next().await {
                return command;
            }
        }
    }

    pub(crate) async fn end(self) {
        self.shutdown.cancel();
        soon(self.running).await.expect("no panic").expect("a clean end");
    }
}

/// A port of this machine.
pub(crate) fn at_port(port: u16) -> Address {
    Address {
        host: "127.0.0.1".to_owned(),
        port,
    }
}

/// The log lines of this thread, on which the whole test runs.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub(crate) fn capture() -> (Self, tracing::subscriber::DefaultGuard) {
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::WARN)
            .with_writer(move || writer.clone())
            .finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn about_refusals(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("text");
        text.lines()
            .filter(|line| line.contains("refused a"))
            .map(ToOwned::to_owned)
            .collect()
    }

    /// Waits for the first line about a refusal, and makes sure that it stays the only one.
    pub(crate) async fn only_refusal(&self) -> String {
        soon(async {
            while self.about_refusals().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let lines = self.about_refusals();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        lines[0].clone()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

macro_rules! requests {
    ($($name:ident($body:ty) = $verb:literal, $roles:ident, $shape:ident => $reply:ty;)*) => {$(
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub(crate) struct $name(pub(crate) $body);

        impl Request for $name {
            type Reply = $reply;
            const VERB: Verb = Verb($verb);
            const NAME: &'static str = stringify!($name);
            const MAY_ASK: RoleSet = RoleSet::$roles;
            const SHAPE: Shape = Shape::$shape;
            const PRIORITY: Priority = Priority::Command;
        }
    )*};
}

requests! {
    Echo(String) = 60_001, LOOK, Call => String;
    Change(u32) = 60_002, ACT, Call => u32;
    Hang(()) = 60_003, LOOK, Call => ();
    Blob(Vec<u8>) = 60_004, LOOK, Call => usize;
    Count(u32) = 60_005, LOOK, Feed => u32;
    Flood(u32) = 60_006, LOOK, Feed => Vec<u8>;
    Put(String) = 60_007, ACT, Upload => u64;
    Order(u32) = 60_008, COORDINATOR, Call => u32;
    Report(u32) = 60_009, DAEMON, Call => u32;
    Quiet(()) = 60_010, LOOK, Feed => u32;
    Enter(u32) = 60_011, NOBODY, Call => u32;
    Again(u32) = 60_012, HOLDERS, Call => u32;
    Big(usize) = 60_013, LOOK, Call => Vec<u8>;
    Fetch(u32) = 60_014, DAEMON, Feed => Vec<u8>;
}

pub(crate) fn echo() -> Router {
    Router::new().call(|_, Echo(text)| async move { Ok(text) })
}
