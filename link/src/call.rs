//! One typed request and its reply on one stream, with a deadline: the asking side of calls and uploads.
//!
//! What answers lies in `serve.rs` and `answer.rs`; feeds lie in `feed.rs`.

use crate::{
    error::CallError,
    peer::Peer,
    stream::{FrameReader, Outgoing, StreamError},
};
use bytes::Bytes;
use dora_remote_protocol::{
    frame::{self, FrameError},
    ids::RequestId,
    limits::{BUNDLE_CHUNK_BYTES, MAX_DEADLINE, MAX_FRAME_BYTES, MAX_HEADER_BYTES},
    request::{Answer, Header, Request},
};
use std::{future::Future, pin::pin, sync::Arc, time::Duration};
use tokio::io::{AsyncRead, AsyncReadExt};
use uuid::Uuid;

impl Peer {
    /// Asks and waits for the one reply, at most for `deadline` (1 ms to [`MAX_DEADLINE`]), which the peer is told.
    ///
    /// Dropping the future tells the peer to drop the work. Works before [`Peer::welcome`]: the request travels along.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<R: Request>(&self, request: &R, deadline: Duration) -> Result<R::Reply, CallError> {
        let deadline = bounded(deadline);
        self.within(deadline, async {
            let (mut outgoing, incoming) = self.ask(request, Some(deadline)).await?;
            outgoing.finish();
            self.read_reply::<R>(incoming).await
        })
        .await
    }

    /// Asks, sends everything that `source` gives, and waits for the one reply. As [`Peer::call`] otherwise.
    ///
    /// A reply that comes before all was sent ends the upload.
    ///
    /// # Errors
    /// See [`CallError`]; [`CallError::Source`] when `source` fails, in which case the peer never sees a whole upload.
    pub async fn upload<R: Request>(
        &self,
        request: &R,
        mut source: impl AsyncRead + Unpin,
        deadline: Duration,
    ) -> Result<R::Reply, CallError> {
        let deadline = bounded(deadline);
        self.within(deadline, async {
            let (mut outgoing, incoming) = self.ask(request, Some(deadline)).await?;
            let mut reply = pin!(self.read_reply::<R>(incoming));
            let sending = pin!(self.send_all(&mut outgoing, &mut source));
            tokio::select! {
                biased;
                reply = &mut reply => return reply,
                sent = sending => sent?,
            }
            reply.await
        })
        .await
    }

    /// Opens a stream and writes header and body; the caller finishes it.
    pub(crate) async fn ask<R: Request>(
        &self,
        request: &R,
        deadline: Option<Duration>,
    ) -> Result<(Outgoing, FrameReader), CallError> {
        let header = Header {
            verb: R::VERB,
            deadline_ms: deadline.map_or(0, milliseconds),
            request_id: RequestId(Uuid::new_v4()),
        };
        // Both frames go out in one write, so that they share a packet.
        let mut bytes = frame::encode(&header, MAX_HEADER_BYTES).map_err(not_sent)?;
        bytes.extend(frame::encode(request, MAX_FRAME_BYTES).map_err(not_sent)?);
        let (send, recv) = self.connection().open_bi().await.map_err(|error| self.lost(&error))?;
        let mut outgoing = Outgoing::new(send, R::PRIORITY);
        self.write(&mut outgoing, bytes.into()).await?;
        tracing::trace!(peer = self.id(), verb = R::NAME, request_id = %header.request_id, "asked");
        Ok((outgoing, FrameReader::new(recv)))
    }

    /// Does `work` unless the time is over or the hello is refused first.
    pub(crate) async fn within<T>(
        &self,
        deadline: Duration,
        work: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        tokio::select! {
            biased;
            result = work => result,
            refused = self.refused() => Err(refused),
            () = tokio::time::sleep(deadline) => Err(CallError::TimedOut { after: deadline }),
        }
    }

    /// What happened to a stream, as a caller sees it.
    pub(crate) fn call_error(&self, error: StreamError) -> CallError {
        match error {
            StreamError::Lost(error) => self.lost(&error),
            broken @ (StreamError::Abandoned | StreamError::Torn | StreamError::Surplus | StreamError::Frame(_)) => {
                CallError::Protocol(broken.to_string())
            }
        }
    }

    async fn read_reply<R: Request>(&self, mut incoming: FrameReader) -> Result<R::Reply, CallError> {
        let reading = async {
            let answer = incoming.read(MAX_FRAME_BYTES).await?.ok_or(StreamError::Torn)?;
            incoming.expect_end().await?;
            Ok(answer)
        };
        match reading.await.map_err(|error| self.call_error(error))? {
            Answer::Reply(reply) => Ok(reply),
            Answer::Refusal(refusal) => Err(CallError::Refused(refusal)),
        }
    }

    async fn send_all(&self, outgoing: &mut Outgoing, source: &mut (impl AsyncRead + Unpin)) -> Result<(), CallError> {
        let mut chunk = vec![0; BUNDLE_CHUNK_BYTES];
        loop {
            let read = source
                .read(&mut chunk)
                .await
                .map_err(|error| CallError::Source(Arc::new(error)))?;
            if read == 0 {
                outgoing.finish();
                return Ok(());
            }
            self.write(outgoing, Bytes::copy_from_slice(&chunk[..read])).await?;
        }
    }

    async fn write(&self, outgoing: &mut Outgoing, bytes: Bytes) -> Result<(), CallError> {
        match outgoing.write_bytes(bytes).await {
            // A peer that stops reading has answered; the answer says why.
            Ok(()) | Err(StreamError::Abandoned) => Ok(()),
            Err(error) => Err(self.call_error(error)),
        }
    }
}

/// The deadline as the wire can carry it.
pub(crate) fn bounded(deadline: Duration) -> Duration {
    deadline.clamp(Duration::from_millis(1), MAX_DEADLINE)
}

fn milliseconds(deadline: Duration) -> u32 {
    u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX).max(1)
}

fn not_sent(error: FrameError) -> CallError {
    CallError::NotSent(error.to_string())
}
