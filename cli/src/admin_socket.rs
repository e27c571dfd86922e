//! Asks the coordinator of this host through its admin socket: a unix socket that only its user and root may use.
//!
//! The same frames as on a stream of a connection, one request for each connection. Certificates play no part: whoever may
//! open the socket is an admin. Which verbs go this way is decided in [`crate::asking`].

use crate::{exit::Exit, failure::Failure};
use dora_remote_protocol::{
    frame::{self, FrameError, PREFIX_BYTES},
    ids::RequestId,
    limits::{MAX_FRAME_BYTES, MAX_HEADER_BYTES},
    refusal::Changed,
    request::{Answer, FeedFrame, Header, Request},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::{self, ErrorKind},
    marker::PhantomData,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};
use uuid::Uuid;

/// Time for the coordinator to take a connection and a request; it is on the same host.
const TAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Silence after which a feed counts as broken off. The coordinator says every two seconds that it is alive.
const SILENCE: Duration = Duration::from_secs(20);

/// The admin socket of a coordinator.
#[derive(Clone, Debug)]
pub struct AdminSocket {
    path: PathBuf,
}

/// The reading end of a feed. Dropping it ends the feed.
#[derive(Debug)]
pub struct LocalFeed<I> {
    what: String,
    path: PathBuf,
    stream: UnixStream,
    /// What has arrived of the next frame; kept here, so that reading may be given up and taken up again.
    partial: Vec<u8>,
    ended: bool,
    items: PhantomData<fn() -> I>,
}

impl AdminSocket {
    /// The socket at `path`. Nothing is opened yet.
    #[must_use]
    pub const fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a coordinator takes connections there from this user.
    pub async fn may_be_used(&self) -> bool {
        matches!(timeout(TAKE_DEADLINE, UnixStream::connect(&self.path)).await, Ok(Ok(_)))
    }

    /// Asks and waits for the reply, at most for `deadline`; `what` is what is wanted, such as ``revoke `ann` ``.
    ///
    /// # Errors
    /// What the coordinator refuses; exit code 5 when none listens there, 4 when this user may not use the socket, 7 when the
    /// time is over.
    pub async fn call<R: Request>(&self, what: &str, request: &R, deadline: Duration) -> Result<R::Reply, Failure> {
        let mut stream = self.ask(what, request, Some(deadline)).await?;
        let mut partial = Vec::new();
        let answer = match timeout(deadline, next_frame(&mut stream, &mut partial)).await {
            Ok(read) => read.map_err(|error| self.lost(what, &error))?,
            Err(_) => {
                let late = format!("no answer within {:.1} s", deadline.as_secs_f64());
                return Err(cannot(Exit::Timeout, what).cause(late).changed(Changed::Unknown));
            }
        };
        match frame::decode(&answer).map_err(|error| broken(what, &error))? {
            Answer::Reply(reply) => Ok(reply),
            Answer::Refusal(refusal) => Err(Failure::of_refusal(&refusal)),
        }
    }

    /// Asks for a feed. A refusal comes with the first [`LocalFeed::next`].
    ///
    /// # Errors
    /// As [`AdminSocket::call`], but for what the coordinator refuses.
    pub async fn feed<R: Request>(&self, what: &str, request: &R) -> Result<LocalFeed<R::Reply>, Failure> {
        Ok(LocalFeed {
            what: what.to_owned(),
            path: self.path.clone(),
            stream: self.ask(what, request, None).await?,
            partial: Vec::new(),
            ended: false,
            items: PhantomData,
        })
    }

    async fn ask<R: Request>(&self, what: &str, request: &R, deadline: Option<Duration>) -> Result<UnixStream, Failure> {
        let header = Header {
            verb: R::VERB,
            deadline_ms: deadline.map_or(0, |deadline| u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX)),
            request_id: RequestId(Uuid::new_v4()),
        };
        let mut bytes = encode(what, &header, MAX_HEADER_BYTES)?;
        bytes.extend(encode(what, request, MAX_FRAME_BYTES)?);
        let asking = async {
            let mut stream = UnixStream::connect(&self.path).await?;
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            Ok(stream)
        };
        match timeout(TAKE_DEADLINE, asking).await {
            Ok(asked) => asked.map_err(|error| self.unusable(what, &error)),
            Err(_) => Err(self.unusable(what, &ErrorKind::TimedOut.into())),
        }
    }

    /// The failure of a socket that takes no request.
    fn unusable(&self, what: &str, error: &io::Error) -> Failure {
        let path = self.path.display();
        let (exit, cause, hint) = match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => (
                Exit::Unreachable,
                format!("no coordinator listens at {path}"),
                "is the coordinator of this host running? name its socket with `--admin-socket PATH`: it is `admin.sock` in its \
                 state directory",
            ),
            ErrorKind::PermissionDenied => (
                Exit::Denied,
                format!("this user may not use {path}"),
                "ask as the user that the coordinator runs as, or as root; or ask over the network with an admin's certificate",
            ),
            _ => (Exit::Failed, format!("cannot use {path}: {error}"), ""),
        };
        cannot(exit, what).cause(cause).hint(hint).changed(Changed::Nothing)
    }

    fn lost(&self, what: &str, error: &io::Error) -> Failure {
        lost(what, &self.path, error).changed(Changed::Unknown)
    }
}

impl<I: DeserializeOwned> LocalFeed<I> {
    /// The next item; `None` at the end of a whole feed and ever after. Cancel safe.
    ///
    /// # Errors
    /// What the coordinator refuses, and exit code 5 when the feed breaks off.
    pub async fn next(&mut self) -> Result<Option<I>, Failure> {
        while !self.ended {
            let reading = next_frame(&mut self.stream, &mut self.partial);
            let read = timeout(SILENCE, reading)
                .await
                .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
            let frame = read.map_err(|error| lost(&self.what, &self.path, &error));
            let decoded = frame.and_then(|frame| decode(&frame).map_err(|error| broken(&self.what, &error)));
            match decoded {
                Ok(FeedFrame::Item(item)) => return Ok(Some(item)),
                Ok(FeedFrame::Idle) => {}
                Ok(FeedFrame::End) => self.ended = true,
                Ok(FeedFrame::Refusal(refusal)) => {
                    self.ended = true;
                    return Err(Failure::of_refusal(&refusal));
                }
                Err(failure) => {
                    self.ended = true;
                    return Err(failure);
                }
            }
        }
        Ok(None)
    }
}

/// Reads one frame of a feed. Who is turned away before it was known what he asks for gets a refusal in the shape of a call's.
fn decode<I: DeserializeOwned>(body: &[u8]) -> Result<FeedFrame<I>, FrameError> {
    frame::decode(body).or_else(|error| match frame::decode::<Answer<()>>(body) {
        Ok(Answer::Refusal(refusal)) => Ok(FeedFrame::Refusal(refusal)),
        Ok(Answer::Reply(())) | Err(_) => Err(error),
    })
}

/// Reads one frame's body. Cancel safe: what has arrived stays in `partial`.
async fn next_frame(stream: &mut UnixStream, partial: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    fill(stream, partial, PREFIX_BYTES).await?;
    let mut prefix = [0; PREFIX_BYTES];
    prefix.copy_from_slice(&partial[..PREFIX_BYTES]);
    let length = frame::body_length(prefix, MAX_FRAME_BYTES).map_err(io::Error::other)?;
    fill(stream, partial, PREFIX_BYTES + length).await?;
    let body = partial.split_off(PREFIX_BYTES);
    partial.clear();
    Ok(body)
}

/// Reads until `partial` has `wanted` bytes, and no more of the stream than that.
async fn fill(stream: &mut UnixStream, partial: &mut Vec<u8>, wanted: usize) -> io::Result<()> {
    while partial.len() < wanted {
        let missing = (wanted - partial.len()) as u64;
        if (&mut *stream).take(missing).read_buf(partial).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn encode<T: Serialize>(what: &str, value: &T, max: usize) -> Result<Vec<u8>, Failure> {
    frame::encode(value, max).map_err(|error| cannot(Exit::Failed, what).because(&error).changed(Changed::Nothing))
}

fn cannot(exit: Exit, what: &str) -> Failure {
    Failure::new(exit, format!("cannot {what}"))
}

fn lost(what: &str, path: &Path, error: &io::Error) -> Failure {
    let why = match error.kind() {
        ErrorKind::UnexpectedEof => "it ended before its answer was whole".to_owned(),
        ErrorKind::TimedOut => "nothing was heard for too long".to_owned(),
        _ => error.to_string(),
    };
    cannot(Exit::Unreachable, what)
        .cause(format!("the connection to {} was lost: {why}", path.display()))
        .hint("is the coordinator still running? try again")
}

fn broken(what: &str, error: &FrameError) -> Failure {
    cannot(Exit::Failed, what)
        .because(error)
        .hint("this program and the coordinator may be of different builds")
}

#[cfg(test)]
mod tests;
