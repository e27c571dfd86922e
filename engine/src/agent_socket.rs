//! The unix socket on which the agent of the machine talks to its engine.
//!
//! The agent may go and come back, or be replaced by a newer build: work goes on, events wait, and the newest agent is the one that
//! counts. Only processes of the same user get an answer.

use crate::{engine::Engine, orders};
use dora_remote_protocol::{
    agent_to_engine::{AgentFrame, AgentHello, ENGINE_VERSIONS, EngineOrder},
    engine_to_agent::{EngineFrame, EngineHello, EngineReply},
    frame::{self, FrameError, PREFIX_BYTES},
    limits::MAX_FRAME_BYTES,
    refusal::{Refusal, RefusalCode},
    version::Version,
};
use nix::unistd::Uid;
use serde::{Serialize, de::DeserializeOwned};
use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufWriter},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::task::TaskTracker;

/// Time for the first frame of an agent.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// Time for an agent to take a frame off our hands; one that does not is dropped and may come again.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Interval of [`EngineFrame::Alive`].
const ALIVE: Duration = Duration::from_secs(1);
/// Orders of one agent in progress; one more is refused as [`RefusalCode::Busy`].
const MAX_ORDERS: usize = 256;
/// Events taken out of the store at a time.
const BATCH: usize = 256;
/// Pause after a failed accept (out of file descriptors, say), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The socket and those who came through it.
#[derive(Debug)]
pub(crate) struct AgentSocket {
    listener: UnixListener,
    engine: Arc<Engine>,
    /// Counts agents whose hello was accepted; the latest one counts.
    newest: watch::Sender<u64>,
}

/// Why the talk with one agent ended.
#[derive(Debug, Error)]
enum TalkError {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("it took no frame for {} s", WRITE_DEADLINE.as_secs())]
    Stuck,
    #[error("it said nothing for {} s", HELLO_DEADLINE.as_secs())]
    NoHello,
    #[error("user {found} is not user {expected}")]
    OtherUser { found: u32, expected: u32 },
    #[error("{0}")]
    Refused(Refusal),
}

impl AgentSocket {
    /// Binds the socket at `path`, in place of what an earlier engine left there.
    pub(crate) fn bind(path: &Path, engine: Arc<Engine>) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            listener,
            engine,
            newest: watch::Sender::new(0),
        })
    }

    /// Serves agents until the engine ends; then the last words are brought to them, for at most `grace`.
    pub(crate) async fn run(self, grace: Duration) {
        let talks = TaskTracker::new();
        loop {
            let stream = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = self.engine.end.cancelled() => break,
            };
            match stream {
                Ok((stream, _)) => {
                    let engine = Arc::clone(&self.engine);
                    let newest = self.newest.clone();
                    talks.spawn(async move {
                        match talk(stream, &engine, &newest).await {
                            Ok(()) => tracing::info!("the agent left"),
                            Err(error) => tracing::warn!(%error, "the talk with an agent ended"),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "an agent could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        talks.close();
        let _ = timeout(grace, talks.wait()).await;
    }
}

async fn talk(mut stream: UnixStream, engine: &Arc<Engine>, newest: &watch::Sender<u64>) -> Result<(), TalkError> {
    let (found, expected) = (stream.peer_cred()?.uid(), Uid::effective().as_raw());
    if found != expected {
        return Err(TalkError::OtherUser { found, expected });
    }
    let hello: AgentHello = timeout(HELLO_DEADLINE, read(&mut stream))
        .await
        .map_err(|_| TalkError::NoHello)??
        .ok_or(TalkError::NoHello)?;
    let version = match ENGINE_VERSIONS.agree(hello.versions) {
        Ok(version) => version,
        Err(error) => {
            let refusal = Refusal::new(RefusalCode::VersionMismatch, error.to_string());
            send(&mut stream, &EngineHello::Refusal(refusal.clone())).await?;
            return Err(TalkError::Refused(refusal));
        }
    };
    let mut mine = 0;
    newest.send_modify(|newest| {
        *newest += 1;
        mine = *newest;
    });
    let known = hello.resume.filter(|(id, _)| *id == engine.id).map_or(0, |(_, seq)| seq);
    engine.acked(known);
    // News are subscribed to before the report, so that nothing falls between the two.
    let news = engine.news();
    let (mut runs, last_seq) = engine.report();
    let welcome = |runs| EngineHello::Welcome {
        version,
        engine: engine.id,
        pid: std::process::id(),
        dora_version: crate::DORA_VERSION.to_owned(),
        runs,
        last_seq,
    };
    let bytes = match frame::encode(&welcome(runs.clone()), MAX_FRAME_BYTES) {
        // Many large descriptors do not fit into one frame; the agent wrote these orders and has them.
        Err(FrameError::TooLong { .. }) => {
            for run in &mut runs {
                run.order.descriptor = String::new();
            }
            frame::encode(&welcome(runs), MAX_FRAME_BYTES)?
        }
        other => other?,
    };
    write(&mut stream, &bytes).await?;
    stream.flush().await?;
    tracing::info!(%version, resumes_at = known, "an agent has come");

    let (reader, writer) = stream.into_split();
    let (replies, outgoing) = mpsc::channel(MAX_ORDERS);
    let mut newest = newest.subscribe();
    let speaker = Speaker {
        engine,
        version,
        writer: BufWriter::new(writer),
        cursor: known.min(last_seq),
    };
    tokio::select! {
        result = listen(reader, engine, replies) => result,
        result = speaker.run(outgoing, news) => result,
        _ = newest.wait_for(|newest| *newest != mine) => {
            tracing::info!("a newer agent took over");
            Ok(())
        }
    }
}

/// Reads orders and acknowledgements. Orders go on when their agent is gone.
async fn listen(
    mut reader: impl AsyncRead + Unpin,
    engine: &Arc<Engine>,
    replies: mpsc::Sender<EngineFrame>,
) -> Result<(), TalkError> {
    let permits = Arc::new(Semaphore::new(MAX_ORDERS));
    while let Some(frame) = read(&mut reader).await? {
        let (id, order) = match frame {
            AgentFrame::Acked { seq } => {
                engine.acked(seq);
                continue;
            }
            AgentFrame::Order { id, order } => (id, order),
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            let refusal = Refusal::new(RefusalCode::Busy, format!("{MAX_ORDERS} orders are in progress"));
            let _ = replies
                .send(EngineFrame::Reply {
                    id,
                    result: Err(refusal),
                })
                .await;
            continue;
        };
        let engine = Arc::clone(engine);
        let replies = replies.clone();
        tokio::spawn(async move {
            let ends = matches!(order, EngineOrder::Shutdown { .. });
            let result = orders::carry_out(&engine, order).await;
            let ends = ends && result == Ok(EngineReply::Done);
            // An agent that is gone will ask again.
            let _ = replies.send(EngineFrame::Reply { id, result }).await;
            drop(permit);
            if ends {
                engine.end.cancel();
            }
        });
    }
    Ok(())
}

struct Speaker<'a, W> {
    engine: &'a Engine,
    /// What was agreed with the agent.
    version: Version,
    writer: BufWriter<W>,
    cursor: u64,
}

impl<W: AsyncWrite + Unpin> Speaker<'_, W> {
    async fn run(mut self, mut replies: mpsc::Receiver<EngineFrame>, mut news: watch::Receiver<u64>) -> Result<(), TalkError> {
        let mut alive = interval(ALIVE);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // What happened before an answer is told before it.
            let latest = *news.borrow_and_update();
            self.events_to(latest).await?;
            tokio::select! {
                Some(reply) = replies.recv() => {
                    let latest = *news.borrow_and_update();
                    self.events_to(latest).await?;
                    self.say(&reply).await?;
                }
                _ = news.changed() => continue,
                _ = alive.tick() => self.say(&EngineFrame::Alive).await?,
                () = self.engine.end.cancelled() => {
                    while let Ok(reply) = replies.try_recv() {
                        self.say(&reply).await?;
                    }
                    return self.flush().await;
                }
            }
            self.flush().await?;
        }
    }

    async fn events_to(&mut self, latest: u64) -> Result<(), TalkError> {
        while self.cursor < latest {
            let events = self.engine.events_above(self.cursor, BATCH);
            if events.is_empty() {
                self.cursor = latest;
            }
            for mut event in events {
                if let EngineFrame::Event { seq, what, .. } = &mut event {
                    self.cursor = *seq;
                    *what = what.clone().told_in(self.version);
                }
                self.say(&event).await?;
            }
        }
        self.flush().await
    }

    async fn say(&mut self, what: &EngineFrame) -> Result<(), TalkError> {
        match frame::encode(what, MAX_FRAME_BYTES) {
            Ok(bytes) => write(&mut self.writer, &bytes).await,
            Err(error) => {
                // Texts and lists are bounded where they are made; a frame that is too long all the same must not end the talk for ever.
                tracing::error!(%error, "a frame for the agent was left out");
                Ok(())
            }
        }
    }

    async fn flush(&mut self) -> Result<(), TalkError> {
        timeout(WRITE_DEADLINE, self.writer.flush())
            .await
            .map_err(|_| TalkError::Stuck)??;
        Ok(())
    }
}

async fn send(writer: &mut (impl AsyncWrite + Unpin), what: &impl Serialize) -> Result<(), TalkError> {
    let bytes = frame::encode(what, MAX_FRAME_BYTES)?;
    write(writer, &bytes).await?;
    timeout(WRITE_DEADLINE, writer.flush())
        .await
        .map_err(|_| TalkError::Stuck)??;
    Ok(())
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), TalkError> {
    timeout(WRITE_DEADLINE, writer.write_all(bytes))
        .await
        .map_err(|_| TalkError::Stuck)??;
    Ok(())
}

/// The next frame, or nothing when the other side is done.
async fn read<T: DeserializeOwned>(reader: &mut (impl AsyncRead + Unpin)) -> Result<Option<T>, TalkError> {
    let mut prefix = [0; PREFIX_BYTES];
    match reader.read_exact(&mut prefix).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let mut body = vec![0; frame::body_length(prefix, MAX_FRAME_BYTES)?];
    reader.read_exact(&mut body).await?;
    Ok(Some(frame::decode(&body)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EngineConfig, events::EventStore, shim::Shim};
    use dora_remote_protocol::{
        dataflow::Labels,
        engine_to_agent::EngineEvent,
        ids::{DataflowId, EngineId},
        version::VersionRange,
    };
    use tokio::net::TcpListener;
    use uuid::Uuid;

    /// The first `count` events that an agent is told which speaks up to this version.
    async fn told(socket: &Path, newest: Version, count: usize) -> Vec<(u64, EngineEvent)> {
        let mut stream = UnixStream::connect(socket).await.expect("it listens");
        let versions = VersionRange {
            oldest: ENGINE_VERSIONS.oldest,
            newest,
        };
        let hello = AgentHello { versions, resume: None };
        send(&mut stream, &hello).await.expect("sent");
        let welcome: Option<EngineHello> = read(&mut stream).await.expect("answered");
        assert!(matches!(welcome, Some(EngineHello::Welcome { version, .. }) if version == newest));
        let mut told = Vec::new();
        while told.len() < count {
            let frame = read(&mut stream).await.expect("a frame").expect("it talks on");
            if let EngineFrame::Event { seq, what, .. } = frame {
                told.push((seq, what));
            }
        }
        told
    }

    #[tokio::test]
    async fn an_older_agent_is_told_nothing_that_it_cannot_read_and_misses_no_number() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = EngineConfig {
            state_dir: dir.path().to_owned(),
            machine: "here".parse().expect("a name"),
            labels: Labels::new(),
            engine: EngineId(Uuid::from_u128(1)),
            node_log_bytes: 0,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let (_shim, commands) = Shim::new(listener, String::new(), "here".to_owned());
        let store = EventStore::open(&dir.path().join("events.log")).expect("opens");
        let engine = Arc::new(Engine::new(&config, commands, store));
        let node = || "camera".parse().expect("an id");
        let events = vec![
            EngineEvent::NodeStarted { node: node(), pid: 7 },
            EngineEvent::LinesLost { node: node(), lines: 12 },
            EngineEvent::Finished { failures: vec![] },
        ];
        engine.tell(&mut engine.state(), Some(DataflowId(Uuid::from_u128(2))), events.clone());
        let path = dir.path().join("engine.sock");
        let socket = AgentSocket::bind(&path, Arc::clone(&engine)).expect("bound");
        let serving = tokio::spawn(socket.run(Duration::ZERO));
        let all: Vec<_> = (1..).zip(events).collect();
        assert_eq!(told(&path, ENGINE_VERSIONS.newest, 3).await, all);
        for older in [Version(1), Version(2)] {
            let told = told(&path, older, 3).await;
            assert_eq!((&told[0], &told[2]), (&all[0], &all[2]));
            let (2, EngineEvent::Message { text, .. }) = &told[1] else {
                panic!("{told:?}")
            };
            assert!(text.contains("camera") && text.contains("12 lines"), "{text}");
        }
        engine.end.cancel();
        serving.await.expect("it ended");
    }
}
