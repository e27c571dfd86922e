//! The coordinator that dora's daemon believes to talk to: one WebSocket on loopback, in the same process.
//!
//! It answers the daemon's registration, beats its heart, carries commands one after the other and always reads. It never waits
//! for anybody outside this process: whatever happens to the agent or the network, this socket stands. When it falls all the same,
//! the engine ends, as dora loses inputs from other machines in a reconnect.

use crate::wire::{self, Incoming, WireError};
use dora_message::{
    auth::constant_time_eq,
    coordinator_to_daemon::{DaemonCoordinatorEvent, RegisterResult},
    daemon_to_coordinator::{DaemonCoordinatorReply, DaemonEvent},
    uhlc::HLC,
};
use futures_util::{SinkExt as _, StreamExt as _};
use std::{
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        self, Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::StatusCode,
        protocol::WebSocketConfig,
    },
};
use uuid::Uuid;

/// Path under which a daemon looks for its coordinator.
const DAEMON_PATH: &str = "/api/daemon";
/// Interval of our heartbeats (the stock coordinator's value); the daemon gives up after 20 s without one.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// Time for the daemon to answer a command (the stock coordinator's value).
const REPLY_DEADLINE: Duration = Duration::from_secs(30);
/// Time for one connection to become a WebSocket and to register.
const REGISTER_DEADLINE: Duration = Duration::from_secs(10);
/// Time for the daemon to take a frame off our hands.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// Commands and frames that wait; more make the asker wait.
const QUEUE: usize = 64;

/// Gives commands to the daemon.
#[derive(Clone, Debug)]
pub(crate) struct Commands {
    jobs: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    event: DaemonCoordinatorEvent,
    /// Absent for commands that the daemon never answers.
    reply: Option<oneshot::Sender<Result<DaemonCoordinatorReply, CommandError>>>,
}

/// Why a command has no answer.
#[derive(Debug, Error)]
pub(crate) enum CommandError {
    /// None came in time.
    #[error("dora's daemon did not answer within {} s", REPLY_DEADLINE.as_secs())]
    TimedOut,
    /// The daemon is gone.
    #[error("dora's daemon is gone")]
    Gone,
    /// Dora could not make an answer, or this build cannot read it.
    #[error("dora's daemon answered: {0}")]
    Unreadable(String),
    /// The command cannot be written.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl Commands {
    /// Gives a command and waits for its answer.
    pub(crate) async fn ask(&self, event: DaemonCoordinatorEvent) -> Result<DaemonCoordinatorReply, CommandError> {
        let (reply, answer) = oneshot::channel();
        let reply = Some(reply);
        self.jobs.send(Job { event, reply }).await.map_err(|_| CommandError::Gone)?;
        answer.await.unwrap_or(Err(CommandError::Gone))
    }

    /// Gives a command that the daemon does not answer.
    pub(crate) async fn tell(&self, event: DaemonCoordinatorEvent) -> Result<(), CommandError> {
        self.jobs
            .send(Job { event, reply: None })
            .await
            .map_err(|_| CommandError::Gone)
    }
}

/// The shim before its daemon came.
#[derive(Debug)]
pub(crate) struct Shim {
    listener: TcpListener,
    token: String,
    machine: String,
    jobs: mpsc::Receiver<Job>,
}

/// Why the shim ended. It never ends well by itself.
#[derive(Debug, Error)]
pub(crate) enum ShimError {
    /// The listener broke.
    #[error("the loopback listener of the engine failed: {0}")]
    Accept(#[source] io::Error),
    /// The daemon closed the connection.
    #[error("dora's daemon closed its connection")]
    Closed,
    /// The connection broke.
    #[error("the connection of dora's daemon broke: {0}")]
    Broken(#[source] Box<tungstenite::Error>),
    /// The daemon reads no more.
    #[error("dora's daemon took no frame for {} s", WRITE_DEADLINE.as_secs())]
    Stuck,
    /// A frame cannot be written.
    #[error(transparent)]
    Wire(#[from] WireError),
}

type Socket = WebSocketStream<TcpStream>;

impl Shim {
    /// A shim on a listener on loopback, for a daemon that shows this token.
    pub(crate) fn new(listener: TcpListener, token: String, machine: String) -> (Self, Commands) {
        let (sender, jobs) = mpsc::channel(QUEUE);
        let shim = Self {
            listener,
            token,
            machine,
            jobs,
        };
        (shim, Commands { jobs: sender })
    }

    /// Waits for the daemon and serves it to its end; `hear` gets every event and must not block.
    pub(crate) async fn run(self, hear: impl Fn(DaemonEvent)) -> ShimError {
        let clock = HLC::default();
        let socket = match register(&self.listener, &self.token, &self.machine, &clock).await {
            Ok(socket) => socket,
            Err(error) => return error,
        };
        // One registration in the life of an engine: nobody else ever gets through this door.
        drop(self.listener);
        serve(socket, self.jobs, &clock, hear).await
    }
}

async fn register(listener: &TcpListener, token: &str, machine: &str, clock: &HLC) -> Result<Socket, ShimError> {
    loop {
        let (stream, peer) = listener.accept().await.map_err(ShimError::Accept)?;
        match timeout(REGISTER_DEADLINE, welcome(stream, token, machine, clock)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(why)) => tracing::warn!(%peer, why, "refused a connection to the loopback listener"),
            Err(_) => tracing::warn!(%peer, "a connection to the loopback listener did not register in time"),
        }
    }
}

async fn welcome(stream: TcpStream, token: &str, machine: &str, clock: &HLC) -> Result<Socket, String> {
    // Frames of the daemon have no bound that it could be told of: its answers and events are as long as they are.
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    #[expect(
        clippy::result_large_err,
        reason = "the error is an HTTP response, as the handshake wants it"
    )]
    let admit = |request: &Request, response: Response| match refusal(request, token) {
        None => Ok(response),
        Some(status) => {
            let mut refusal = ErrorResponse::new(None);
            *refusal.status_mut() = status;
            Err(refusal)
        }
    };
    let mut socket = accept_hdr_async_with_config(stream, admit, Some(config))
        .await
        .map_err(|error| error.to_string())?;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message.map_err(|error| error.to_string())? else {
            continue;
        };
        let Incoming::Register(request) = wire::parse(&text).map_err(|error| error.to_string())? else {
            return Err("it did not begin with a registration".to_owned());
        };
        let verdict = request.check_version();
        let result = match &verdict {
            Ok(()) => RegisterResult::ok(wire::daemon_id(machine), Vec::new()),
            Err(why) => RegisterResult::Err(why.clone()),
        };
        let reply = wire::register_reply(clock, result).map_err(|error| error.to_string())?;
        socket.send(Message::text(reply)).await.map_err(|error| error.to_string())?;
        return verdict.map(|()| socket);
    }
    Err("it closed before it registered".to_owned())
}

/// Why a connection is turned away, if it is.
fn refusal(request: &Request, token: &str) -> Option<StatusCode> {
    let expected = format!("Bearer {token}");
    let shown = request
        .headers()
        .get("authorization")
        .map_or(&[][..], |value| value.as_bytes());
    if !constant_time_eq(shown, expected.as_bytes()) {
        return Some(StatusCode::UNAUTHORIZED);
    }
    (request.uri().path() != DAEMON_PATH).then_some(StatusCode::NOT_FOUND)
}

/// The one command that waits for its answer.
type Pending = Mutex<Option<(Uuid, oneshot::Sender<Result<DaemonCoordinatorReply, String>>)>>;

async fn serve(socket: Socket, jobs: mpsc::Receiver<Job>, clock: &HLC, hear: impl Fn(DaemonEvent)) -> ShimError {
    let (sink, stream) = socket.split();
    let (frames, outgoing) = mpsc::channel(QUEUE);
    let pending = Pending::default();
    // Three futures, so that reading never waits for writing: a daemon that writes to us while we write to it must not lock up.
    tokio::select! {
        error = read(stream, &pending, hear) => error,
        error = command(jobs, &pending, &frames, clock) => error,
        error = write(sink, outgoing, clock) => error,
    }
}

async fn read(
    mut stream: impl futures_util::Stream<Item = Result<Message, tungstenite::Error>> + Unpin,
    pending: &Pending,
    hear: impl Fn(DaemonEvent),
) -> ShimError {
    while let Some(message) = stream.next().await {
        let text = match message {
            Ok(Message::Text(text)) => text,
            Ok(Message::Close(_)) => return ShimError::Closed,
            Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
            Err(error) => return ShimError::Broken(Box::new(error)),
        };
        match wire::parse(&text) {
            Ok(Incoming::Event(event)) => hear(*event),
            Ok(Incoming::Reply { id, reply }) => {
                let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((_, asker)) = pending.take_if(|(expected, _)| *expected == id) {
                    // Nobody waits any more when the deadline is over.
                    let _ = asker.send(reply);
                }
            }
            Ok(Incoming::Register(_)) => tracing::warn!("dora's daemon registered twice on one connection"),
            Ok(Incoming::Unknown { what }) => tracing::debug!(what, "dora's daemon said something unknown"),
            Err(error) => tracing::warn!(%error, "an unreadable frame of dora's daemon"),
        }
    }
    ShimError::Closed
}

async fn command(mut jobs: mpsc::Receiver<Job>, pending: &Pending, frames: &mpsc::Sender<String>, clock: &HLC) -> ShimError {
    while let Some(job) = jobs.recv().await {
        let id = Uuid::new_v4();
        let text = match wire::command(clock, id, job.event) {
            Ok(text) => text,
            Err(error) => {
                if let Some(reply) = job.reply {
                    let _ = reply.send(Err(error.into()));
                }
                continue;
            }
        };
        let Some(reply) = job.reply else {
            if frames.send(text).await.is_err() {
                return ShimError::Closed;
            }
            continue;
        };
        let (sender, answer) = oneshot::channel();
        *pending.lock().unwrap_or_else(PoisonError::into_inner) = Some((id, sender));
        if frames.send(text).await.is_err() {
            return ShimError::Closed;
        }
        let answer = match timeout(REPLY_DEADLINE, answer).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(text))) => Err(CommandError::Unreadable(text)),
            Ok(Err(_)) => Err(CommandError::Gone),
            Err(_) => Err(CommandError::TimedOut),
        };
        let _ = reply.send(answer);
    }
    ShimError::Closed
}

async fn write(
    mut sink: impl futures_util::Sink<Message, Error = tungstenite::Error> + Unpin,
    mut outgoing: mpsc::Receiver<String>,
    clock: &HLC,
) -> ShimError {
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let text = tokio::select! {
            text = outgoing.recv() => match text {
                Some(text) => text,
                None => return ShimError::Closed,
            },
            _ = heartbeat.tick() => match wire::command(clock, Uuid::new_v4(), DaemonCoordinatorEvent::Heartbeat) {
                Ok(text) => text,
                Err(error) => return error.into(),
            },
        };
        match timeout(WRITE_DEADLINE, sink.send(Message::text(text))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return ShimError::Broken(Box::new(error)),
            Err(_) => return ShimError::Stuck,
        }
    }
}

#[cfg(test)]
#[path = "shim/tests.rs"]
mod tests;
