//! A coordinator that does what a test scripted: real QUIC and real certificates, no dataflows.

use dora_remote_certs::{Admission, AdmissionSnapshot, Authority, Credentials, SystemClock};
use dora_remote_link::{
    AcceptOptions, Acceptor, CloseCode, CloseReason, Context, EndpointSecrets, FeedSink, Peer, PeerWatcher, Router, Speaker,
};
use dora_remote_protocol::{
    cli_to_coordinator::{
        BundleStored, CoordinatorStatus, DataflowStopped, GetStatus, HasBundle, ListDataflows, ListMachines, PutBundle, ReadLogs,
        StartDataflow, StopDataflow, WatchDataflow,
    },
    dataflow::{DataflowEvent, DataflowResult, DataflowSummary},
    identity::{Identity, Role},
    ids::{BootId, InstanceId},
    log_line::LogItem,
    machine::MachineSummary,
    refusal::{Refusal, RefusalCode},
};
use std::{
    collections::VecDeque,
    future::Future,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};
use tokio::{io::AsyncReadExt, sync::watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What one feed of log lines does.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// What it sends.
    pub(crate) items: Vec<LogItem>,
    /// How it goes on.
    pub(crate) then: Then,
}

/// How a feed of log lines goes on after its items.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    /// It is whole.
    End,
    /// The connection is cut once the test says so.
    Cut,
    /// It waits until the dataflow has ended.
    UntilEnded,
    /// It ends unfinished.
    Refuse(RefusalCode),
}

/// What the coordinator does, and what it was asked.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) dataflows: Vec<DataflowSummary>,
    pub(crate) machines: Vec<MachineSummary>,
    pub(crate) on_start: Vec<DataflowEvent>,
    pub(crate) refuse_start: Option<Refusal>,
    pub(crate) readings: VecDeque<Reading>,
    pub(crate) on_stop: Option<Result<DataflowStopped, Refusal>>,
    pub(crate) asked_start: Vec<StartDataflow>,
    pub(crate) asked_logs: Vec<ReadLogs>,
    pub(crate) asked_stop: Vec<StopDataflow>,
    pub(crate) bundles: Vec<Vec<u8>>,
}

/// A running coordinator. Ends with the test.
pub(crate) struct Coordinator {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
    ended: watch::Sender<Option<DataflowResult>>,
    cut: watch::Sender<bool>,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Coordinator {
    /// Starts one on a free port, vouched for by the authority in `authority`.
    pub(crate) fn start(authority: &Path, script: Script) -> Self {
        let authority = Authority::load(authority).expect("an authority");
        let identity = Identity {
            trust_domain: authority.trust_domain().clone(),
            role: Role::Coordinator,
            name: "main".parse().expect("a name"),
        };
        let life = Duration::from_secs(3600);
        let credentials = authority.issue(&identity, life, SystemTime::now()).expect("issued");
        let script = Arc::new(Mutex::new(script));
        let (ended, cut) = (watch::Sender::new(None), watch::Sender::new(false));
        let shutdown = CancellationToken::new();
        let (address_out, address_in) = std::sync::mpsc::channel();
        let world = World {
            script: Arc::clone(&script),
            ended: ended.clone(),
            cut: cut.clone(),
        };
        let stop = shutdown.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let acceptor = Acceptor::bind(options(credentials)).expect("bound");
                address_out.send(acceptor.local_address()).expect("the test waits");
                let served = acceptor.run(world.router(), Nobody, stop, Duration::from_secs(1)).await;
                served.expect("served to the end");
            });
        });
        Self {
            address: address_in.recv().expect("it is bound"),
            script,
            ended,
            cut,
            shutdown,
            thread: Some(thread),
        }
    }

    /// What was scripted and asked.
    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no handler panicked")
    }

    /// Lets the dataflow end.
    pub(crate) fn end(&self, result: DataflowResult) {
        self.ended.send_replace(Some(result));
    }

    /// Cuts the connections that wait for it.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(true);
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic in it has already failed the test by what it did not answer.
            drop(thread.join());
        }
    }
}

#[derive(Clone)]
struct World {
    script: Arc<Mutex<Script>>,
    cut: watch::Sender<bool>,
    ended: watch::Sender<Option<DataflowResult>>,
}

impl World {
    fn with<T>(&self, act: impl FnOnce(&mut Script) -> T) -> T {
        act(&mut self.script.lock().expect("no handler panicked"))
    }

    fn router(self) -> Router {
        Router::new()
            .call::<ListDataflows, _, _>(
                self.handler(|world, _: ListDataflows| async move { Ok(world.with(|script| script.dataflows.clone())) }),
            )
            .call::<ListMachines, _, _>(
                self.handler(|world, _: ListMachines| async move { Ok(world.with(|script| script.machines.clone())) }),
            )
            .call::<GetStatus, _, _>(self.handler(|_, _: GetStatus| async move { Ok(status()) }))
            .call::<HasBundle, _, _>(self.handler(|world, asked: HasBundle| async move {
                let known = |bytes: &Vec<u8>| blake3::hash(bytes).as_bytes() == &asked.hash.0;
                Ok(world.with(|script| script.bundles.iter().any(known)))
            }))
            .call::<StopDataflow, _, _>(self.handler(|world, asked: StopDataflow| async move { world.stop(asked) }))
            .upload::<PutBundle, _, _>({
                let world = self.clone();
                move |_, asked: PutBundle, mut body| {
                    let world = world.clone();
                    async move {
                        let mut bytes = Vec::new();
                        body.read_to_end(&mut bytes).await.expect("a whole upload");
                        world.with(|script| script.bundles.push(bytes));
                        Ok(BundleStored { hash: asked.bundle.hash })
                    }
                }
            })
            .feed::<StartDataflow, _, _>({
                let world = self.clone();
                move |_, asked, sink| world.clone().launch(asked, sink)
            })
            .feed::<WatchDataflow, _, _>({
                let world = self.clone();
                move |_, _, sink: FeedSink<DataflowEvent>| {
                    let mut ended = world.ended.subscribe();
                    async move {
                        let result = ended.wait_for(Option::is_some).await.expect("the test goes on").clone();
                        let _ = sink.send(DataflowEvent::Ended(result.expect("just checked"))).await;
                        Ok(())
                    }
                }
            })
            .feed::<ReadLogs, _, _>({
                let world = self;
                move |context, asked, sink| world.clone().read(context, asked, sink)
            })
    }

    /// A handler that needs the world and the request alone.
    fn handler<R, T, F, Fut>(&self, act: F) -> impl Fn(Context, R) -> Fut + Send + Sync + 'static + use<R, T, F, Fut>
    where
        F: Fn(Self, R) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let world = self.clone();
        move |_, request| act(world.clone(), request)
    }

    async fn launch(self, asked: StartDataflow, sink: FeedSink<DataflowEvent>) -> Result<(), Refusal> {
        let (events, refusal) = self.with(|script| {
            script.asked_start.push(asked);
            (script.on_start.clone(), script.refuse_start.clone())
        });
        for event in events {
            let _ = sink.send(event).await;
        }
        refusal.map_or(Ok(()), Err)
    }

    fn stop(self, asked: StopDataflow) -> Result<DataflowStopped, Refusal> {
        let answer = self.with(|script| {
            script.asked_stop.push(asked);
            script.on_stop.clone()
        });
        let answer = answer.unwrap_or_else(|| Err(Refusal::new(RefusalCode::NotFound, "no such dataflow")));
        if let Ok(stopped) = &answer {
            self.ended.send_replace(Some(stopped.result.clone()));
        }
        answer
    }

    async fn read(self, context: Context, asked: ReadLogs, sink: FeedSink<LogItem>) -> Result<(), Refusal> {
        let reading = self.with(|script| {
            script.asked_logs.push(asked);
            script.readings.pop_front()
        });
        let Some(reading) = reading else { return Ok(()) };
        for item in reading.items {
            let _ = sink.send(item).await;
        }
        match reading.then {
            Then::End => {}
            Then::Cut => {
                drop(self.cut.subscribe().wait_for(|cut| *cut).await);
                context.peer.close(CloseCode::ShuttingDown, "");
            }
            Then::UntilEnded => {
                drop(self.ended.subscribe().wait_for(Option::is_some).await);
            }
            Then::Refuse(code) => return Err(Refusal::new(code, "not now")),
        }
        Ok(())
    }
}

fn status() -> CoordinatorStatus {
    CoordinatorStatus {
        identity: "spiffe://lab/coordinator/main".to_owned(),
        build: "0.0.0".to_owned(),
        started_unix_ms: 1_000,
        now_unix_ms: 61_000,
        certificate_ends_unix_ms: 3_661_000,
        machines_connected: 2,
        machines_unreachable: 1,
        dataflows_live: 3,
        dataflows_ended: 4,
        log_bytes: 1024,
        log_bytes_max: 4096,
        free_bytes: 1 << 20,
        free_bytes_min: 1 << 10,
        asker: "spiffe://lab/admin/ann".to_owned(),
    }
}

fn options(credentials: Credentials) -> AcceptOptions {
    let snapshot = AdmissionSnapshot::of(&credentials).expect("a root");
    AcceptOptions {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        credentials,
        admission: Arc::new(Fixed(Arc::new(snapshot))),
        clock: Arc::new(SystemClock),
        secrets: EndpointSecrets::generate().expect("random numbers"),
        speaker: Speaker {
            build: "test".to_owned(),
            features: Vec::new(),
            instance: InstanceId(Uuid::new_v4()),
            boot: BootId(Uuid::nil()),
        },
        store_epoch: 1,
        max_handshakes: 8,
    }
}

#[derive(Debug)]
struct Fixed(Arc<AdmissionSnapshot>);

impl Admission for Fixed {
    fn snapshot(&self) -> Arc<AdmissionSnapshot> {
        Arc::clone(&self.0)
    }
}

struct Nobody;

impl PeerWatcher for Nobody {
    fn arrived(&self, _: Peer) {}
    fn left(&self, _: &Peer, _: &CloseReason) {}
}
