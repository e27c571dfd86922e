//! One connection to the engine over its unix socket: hello, orders and their answers, events and their acknowledgement.
//!
//! What the events mean is the supervisor's business; when to connect again that of `engine_keeper`.

use dora_remote_protocol::{
    agent_to_engine::{AgentFrame, AgentHello, ENGINE_VERSIONS, EngineOrder},
    engine_to_agent::{EngineEvent, EngineFrame, EngineHello, EngineReply, EngineRun},
    frame::{self, FrameError, PREFIX_BYTES},
    ids::{DataflowId, EngineId},
    limits::MAX_FRAME_BYTES,
    refusal::{Changed, Refusal, RefusalCode},
    version::Version,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, io, path::Path, pin::pin, time::Duration};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};

/// Time for the engine to answer a hello, and to take one frame.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Silence after which the connection is given up; the engine says something every second.
const ENGINE_SILENCE: Duration = Duration::from_secs(15);
/// How long an order waits for an engine that is on its way up.
const UP_DEADLINE: Duration = Duration::from_secs(20);
/// Orders that wait to be sent; when it is full, askers wait.
const ORDER_QUEUE: usize = 64;
/// Frames read ahead; when it is full, the engine keeps the rest.
const FRAME_QUEUE: usize = 16;

/// One event of the engine.
#[derive(Debug)]
pub(crate) struct Event {
    /// Whose.
    pub(crate) engine: EngineId,
    /// See [`EngineFrame::Event`].
    pub(crate) seq: u64,
    /// See [`EngineFrame::Event`].
    pub(crate) at_unix_ms: u64,
    /// See [`EngineFrame::Event`].
    pub(crate) dataflow: Option<DataflowId>,
    /// See [`EngineFrame::Event`].
    pub(crate) what: EngineEvent,
}

/// What an engine said of itself.
#[derive(Debug)]
pub(crate) struct Welcome {
    /// Which life.
    pub(crate) engine: EngineId,
    /// Its process id.
    pub(crate) pid: u32,
    /// Version of dora inside.
    pub(crate) dora_version: String,
    /// What it has in hand.
    pub(crate) runs: Vec<EngineRun>,
    /// Number of its latest event.
    pub(crate) last_seq: u64,
}

/// A way to order something from whichever engine is up. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct EngineHandle {
    line: watch::Receiver<Option<mpsc::Sender<Order>>>,
}

/// The other end of all handles: where the line to the present engine is published.
#[derive(Debug)]
pub(crate) struct Switchboard {
    line: watch::Sender<Option<mpsc::Sender<Order>>>,
}

#[derive(Debug)]
struct Order {
    order: EngineOrder,
    reply: oneshot::Sender<Result<EngineReply, Refusal>>,
}

impl Switchboard {
    /// A switchboard without a line.
    pub(crate) fn new() -> Self {
        Self {
            line: watch::Sender::new(None),
        }
    }

    /// A handle for orders.
    pub(crate) fn handle(&self) -> EngineHandle {
        EngineHandle {
            line: self.line.subscribe(),
        }
    }
}

impl EngineHandle {
    /// Orders something. Waits for an engine that is on its way up. Cancel safe; an order that was sent is carried out.
    ///
    /// # Errors
    /// The engine's refusal; `EngineDown` when there is none, or when it went away: then nobody can tell what was changed.
    pub(crate) async fn order(&self, order: EngineOrder, deadline: Duration) -> Result<EngineReply, Refusal> {
        let down = |text: &str| Refusal::new(RefusalCode::EngineDown, text);
        let late = || down("the engine of the machine does not answer").changed(Changed::Unknown);
        let mut line = self.line.clone();
        let line = match timeout(UP_DEADLINE.min(deadline), line.wait_for(Option::is_some)).await {
            Ok(Ok(line)) => line.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        let Some(line) = line else {
            return Err(down("the engine of the machine is not running"));
        };
        let (reply, answer) = oneshot::channel();
        let asking = async {
            if line.send(Order { order, reply }).await.is_err() {
                return Err(down("the engine of the machine went away"));
            }
            match answer.await {
                Ok(result) => result,
                Err(_) => Err(down("the engine of the machine went away before it answered").changed(Changed::Unknown)),
            }
        };
        timeout(deadline, asking).await.unwrap_or_else(|_| Err(late()))
    }
}

/// Why there is no connection, or none any more.
#[derive(Debug, Error)]
pub(crate) enum EngineError {
    /// The socket fails, or the engine has closed it.
    #[error("the connection to the engine broke: {0}")]
    Io(#[from] io::Error),
    /// A frame is none.
    #[error("the engine sent {0}")]
    Frame(#[from] FrameError),
    /// The engine does not take us.
    #[error("the engine refused this daemon: {0}")]
    Refused(Refusal),
    /// Nothing was heard for too long.
    #[error("the engine is silent")]
    Silent,
}

/// A connection whose hello was answered.
#[derive(Debug)]
pub(crate) struct Connection {
    version: Version,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
}

impl Connection {
    /// Connects and says hello. `resume`: the engine that is known and the last event of it that is stored.
    pub(crate) async fn open(socket: &Path, resume: Option<(EngineId, u64)>) -> Result<(Self, Welcome), EngineError> {
        let opening = async {
            let (mut reader, mut writer) = UnixStream::connect(socket).await?.into_split();
            let hello = AgentHello {
                versions: ENGINE_VERSIONS,
                resume,
            };
            send(&mut writer, &hello).await?;
            match receive(&mut reader).await? {
                EngineHello::Welcome {
                    version,
                    engine,
                    pid,
                    dora_version,
                    runs,
                    last_seq,
                } => {
                    let welcome = Welcome {
                        engine,
                        pid,
                        dora_version,
                        runs,
                        last_seq,
                    };
                    let connection = Self { version, reader, writer };
                    Ok((connection, welcome))
                }
                EngineHello::Refusal(refusal) => Err(EngineError::Refused(refusal)),
            }
        };
        timeout(ANSWER_DEADLINE, opening).await.unwrap_or(Err(EngineError::Silent))
    }

    /// Carries orders and events until the connection ends; what had arrived by then is handed over first. `acked` holds the
    /// number of the last event that is stored.
    pub(crate) async fn run<T: From<Event>>(
        self,
        engine: EngineId,
        switchboard: &Switchboard,
        events: &mpsc::Sender<T>,
        acked: watch::Receiver<u64>,
    ) -> EngineError {
        let (line, orders) = mpsc::channel(ORDER_QUEUE);
        switchboard.line.send_replace(Some(line));
        let error = self.carry(engine, orders, events, acked).await;
        switchboard.line.send_replace(None);
        error
    }

    async fn carry<T: From<Event>>(
        self,
        engine: EngineId,
        mut orders: mpsc::Receiver<Order>,
        events: &mpsc::Sender<T>,
        mut acked: watch::Receiver<u64>,
    ) -> EngineError {
        let (mut reader, mut writer) = (self.reader, self.writer);
        let (heard, mut frames) = mpsc::channel(FRAME_QUEUE);
        // Reading a frame must not be broken off halfway, so that it is a future of its own.
        let mut reading = pin!(async move {
            loop {
                match receive(&mut reader).await {
                    Ok(frame) => {
                        if heard.send(frame).await.is_err() {
                            return EngineError::Silent;
                        }
                    }
                    Err(error) => return error,
                }
            }
        });
        let mut waiting = BTreeMap::<u64, oneshot::Sender<Result<EngineReply, Refusal>>>::new();
        let mut last_id = 0;
        let mut over = None;
        let mut silence = Instant::now() + ENGINE_SILENCE;
        loop {
            tokio::select! {
                biased;
                frame = frames.recv() => {
                    silence = Instant::now() + ENGINE_SILENCE;
                    match frame {
                        Some(EngineFrame::Event { seq, at_unix_ms, dataflow, what }) => {
                            let event = Event { engine, seq, at_unix_ms, dataflow, what };
                            if events.send(event.into()).await.is_err() {
                                return EngineError::Io(io::ErrorKind::BrokenPipe.into());
                            }
                        }
                        Some(EngineFrame::Reply { id, result }) => {
                            if let Some(reply) = waiting.remove(&id) {
                                // The asker may have gone.
                                let _ = reply.send(result);
                            }
                        }
                        Some(EngineFrame::Alive) => {}
                        None => return over.unwrap_or(EngineError::Silent),
                    }
                }
                error = &mut reading, if over.is_none() => over = Some(error),
                Some(Order { order, reply }) = orders.recv() => {
                    if order.since() > self.version {
                        // The asker may have gone.
                        let _ = reply.send(Err(too_old()));
                        continue;
                    }
                    last_id += 1;
                    waiting.insert(last_id, reply);
                    if let Err(error) = send(&mut writer, &AgentFrame::Order { id: last_id, order }).await {
                        return error;
                    }
                }
                Ok(()) = acked.changed() => {
                    let seq = *acked.borrow_and_update();
                    if let Err(error) = send(&mut writer, &AgentFrame::Acked { seq }).await {
                        return error;
                    }
                }
                () = sleep_until(silence) => return EngineError::Silent,
            }
        }
    }
}

fn too_old() -> Refusal {
    let text = "the engine of the machine is of an older build, which cannot do that";
    Refusal::new(RefusalCode::VersionMismatch, text)
        .hint("an engine of the present build takes over when no dataflow runs on the machine and its daemon is restarted")
}

async fn send(writer: &mut OwnedWriteHalf, what: &impl Serialize) -> Result<(), EngineError> {
    let bytes = frame::encode(what, MAX_FRAME_BYTES)?;
    match timeout(ANSWER_DEADLINE, writer.write_all(&bytes)).await {
        Ok(written) => Ok(written?),
        Err(_) => Err(EngineError::Silent),
    }
}

async fn receive<T: DeserializeOwned>(reader: &mut OwnedReadHalf) -> Result<T, EngineError> {
    let mut prefix = [0; PREFIX_BYTES];
    reader.read_exact(&mut prefix).await?;
    let mut body = vec![0; frame::body_length(prefix, MAX_FRAME_BYTES)?];
    reader.read_exact(&mut body).await?;
    Ok(frame::decode(&body)?)
}
