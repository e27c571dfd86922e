//! A coordinator that writes down what a machine tells it, and lets a test order what it likes.

use crate::trust::Trust;
use dora_remote_certs::SystemClock;
use dora_remote_link::{
    AcceptOptions, Acceptor, CloseReason, Context, EndpointSecrets, FeedSink, Peer, PeerWatcher, Router, Speaker,
};
use dora_remote_protocol::{
    access::Renew,
    chunk::Chunk,
    daemon_to_coordinator::{EventsAcked, FetchBundle, Heartbeat, JoinMachine, Joined, LogsAcked, ReportEvents, ShipLogs},
    ids::{BootId, DataflowId, InstanceId},
    limits::{BUNDLE_CHUNK_BYTES, MAX_HANDSHAKES},
    log_line::{LogRecord, LogSource},
    machine::{EngineStatus, Lifecycle, LifecycleEvent},
    refusal::{Refusal, RefusalCode},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What a machine has told, over all connections.
#[derive(Default)]
pub(crate) struct Seen {
    /// The connection that joined last.
    pub(crate) peer: Option<Peer>,
    /// What it said then.
    pub(crate) join: Option<JoinMachine>,
    /// How often it joined.
    pub(crate) joins: u32,
    /// Its engine, as last heard.
    pub(crate) engine: Option<EngineStatus>,
    /// Its events.
    pub(crate) events: Vec<LifecycleEvent>,
    /// Its log lines, without doubles.
    pub(crate) lines: BTreeMap<(DataflowId, LogSource), Vec<LogRecord>>,
    /// Lines that came a second time.
    pub(crate) doubles: usize,
    /// Archives that it may fetch.
    pub(crate) bundles: BTreeMap<[u8; 32], Vec<u8>>,
    /// What the next join is told not to have.
    pub(crate) unwanted: Vec<DataflowId>,
    /// Instance and serial of each join.
    pub(crate) joined_as: Vec<(InstanceId, String)>,
    /// What joins are refused with.
    pub(crate) refuse_joins: Option<Refusal>,
    /// What renewals are refused with.
    pub(crate) refuse_renewals: Option<Refusal>,
    /// Renewals that were asked for; the serials of those that were granted.
    pub(crate) renewals: Vec<Option<String>>,
}

impl Seen {
    /// Events of one run.
    pub(crate) fn of(&self, dataflow: DataflowId) -> Vec<Lifecycle> {
        let events = self.events.iter().filter(|event| event.dataflow == dataflow);
        events.map(|event| event.what.clone()).collect()
    }

    /// Texts of one node's lines.
    pub(crate) fn texts(&self, dataflow: DataflowId, node: &str) -> Vec<String> {
        let key = (dataflow, LogSource::Node(node.parse().expect("an id")));
        let records = self.lines.get(&key).map(Vec::as_slice).unwrap_or_default();
        records.iter().map(|record| record.text.clone()).collect()
    }

    /// Id and process of the engine, once it is up.
    pub(crate) fn engine_up(&self) -> Option<(Uuid, u32)> {
        match &self.engine {
            Some(EngineStatus::Up { engine, pid, .. }) => Some((engine.0, *pid)),
            _ => None,
        }
    }
}

/// What was seen, and a bell that rings when it changes.
#[derive(Clone)]
pub(crate) struct Book {
    seen: Arc<Mutex<Seen>>,
    bell: watch::Sender<u64>,
}

impl Book {
    pub(crate) fn new() -> Self {
        Self {
            seen: Arc::default(),
            bell: watch::Sender::new(0),
        }
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        let value = change(&mut self.seen.lock().expect("good"));
        self.bell.send_modify(|rings| *rings += 1);
        value
    }

    /// Waits until `wanted` finds what it looks for.
    pub(crate) async fn until<T>(&self, what: &str, mut wanted: impl FnMut(&Seen) -> Option<T>) -> T {
        let mut bell = self.bell.subscribe();
        let waiting = async {
            loop {
                bell.mark_unchanged();
                if let Some(found) = wanted(&self.seen.lock().expect("good")) {
                    return found;
                }
                bell.changed().await.expect("the bell stays");
            }
        };
        match tokio::time::timeout(Duration::from_secs(60), waiting).await {
            Ok(found) => found,
            Err(_) => panic!("{what} did not come; events: {:?}", self.seen.lock().expect("good").events),
        }
    }
}

/// A running coordinator.
pub(crate) struct Coordinator {
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl Coordinator {
    pub(crate) fn start(address: SocketAddr, trust: &Arc<Trust>, secrets: &EndpointSecrets, book: &Book) -> Self {
        let acceptor = Acceptor::bind(AcceptOptions {
            address,
            credentials: trust.coordinator.clone(),
            admission: trust.gate.clone(),
            clock: Arc::new(SystemClock),
            secrets: secrets.clone(),
            speaker: Speaker {
                build: "0.0.0-fake".to_owned(),
                features: Vec::new(),
                instance: InstanceId(Uuid::new_v4()),
                boot: BootId(Uuid::new_v4()),
            },
            store_epoch: trust.store_epoch(),
            max_handshakes: MAX_HANDSHAKES,
        });
        let acceptor = acceptor.expect("bound");
        let end = CancellationToken::new();
        let (router, token) = (router(book, trust), end.clone());
        let task = tokio::spawn(async move {
            acceptor
                .run(router, Nobody, token, Duration::from_secs(5))
                .await
                .expect("a good end");
        });
        Self { end, task }
    }

    pub(crate) async fn stop(self) {
        self.end.cancel();
        self.task.await.expect("ended");
    }
}

fn router(book: &Book, trust: &Arc<Trust>) -> Router {
    let [join, beat, report, ship, fetch, renew] = std::array::from_fn(|_| book.clone());
    let trust = Arc::clone(trust);
    Router::new()
        .call(move |context: Context, request: JoinMachine| {
            let joined = join.change(|seen| {
                if let Some(refusal) = &seen.refuse_joins {
                    return Err(refusal.clone());
                }
                let instance = context.peer.hello().expect("said").instance;
                seen.joined_as.push((instance, context.peer.certificate().serial.clone()));
                seen.peer = Some(context.peer);
                seen.engine = Some(request.facts.engine.clone());
                seen.join = Some(request);
                seen.joins += 1;
                Ok(Joined {
                    acked_seq: seen.events.len() as u64,
                    unwanted: std::mem::take(&mut seen.unwanted),
                })
            });
            async move { joined }
        })
        .call(move |context: Context, Renew { request }| {
            let issued = renew.change(|seen| {
                let issued = match &seen.refuse_renewals {
                    Some(refusal) => Err(refusal.clone()),
                    None => Ok(trust.renew(&context.peer, &request)),
                };
                seen.renewals.push(issued.as_ref().ok().map(|(_, serial)| serial.clone()));
                issued.map(|(issued, _)| issued)
            });
            async move { issued }
        })
        .also_for_lapsed::<Renew>()
        .call(move |_, Heartbeat { engine, .. }| {
            beat.change(|seen| seen.engine = Some(engine));
            async { Ok(()) }
        })
        .call(move |_, ReportEvents { events }| {
            let seq = report.change(|seen| {
                for event in events {
                    assert!(event.seq <= seen.events.len() as u64 + 1, "a hole before {event:?}");
                    if event.seq == seen.events.len() as u64 + 1 {
                        seen.events.push(event);
                    }
                }
                seen.events.len() as u64
            });
            async move { Ok(EventsAcked { seq }) }
        })
        .call(move |_, shipped: ShipLogs| {
            let offset = shipped.records.last;
            let batch = shipped.unpack().expect("packed lines");
            ship.change(|seen| {
                let lines = seen.lines.entry((batch.dataflow, batch.source)).or_default();
                for record in batch.records {
                    if lines.last().is_none_or(|last| last.offset < record.offset) {
                        lines.push(record);
                    } else {
                        seen.doubles += 1;
                    }
                }
            });
            async move { Ok(LogsAcked { offset }) }
        })
        .feed(move |_, FetchBundle { hash }, sink: FeedSink<Chunk>| {
            let bundle = fetch.change(|seen| seen.bundles.get(&hash.0).cloned());
            async move {
                let bundle = bundle.ok_or_else(|| Refusal::new(RefusalCode::BadBundle, "no such bundle"))?;
                for chunk in bundle.chunks(BUNDLE_CHUNK_BYTES) {
                    let Ok(()) = sink.send(Chunk(chunk.to_vec())).await else {
                        break;
                    };
                }
                Ok(())
            }
        })
}

struct Nobody;

impl PeerWatcher for Nobody {
    fn arrived(&self, _: Peer) {}

    fn left(&self, _: &Peer, _: &CloseReason) {}
}
