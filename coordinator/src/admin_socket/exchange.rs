//! One connection at the admin socket: a header and a body come in, an answer or the frames of a feed go out.

use dora_remote_protocol::{
    frame::{self, FrameError, PREFIX_BYTES},
    limits::{MAX_FRAME_BYTES, MAX_HEADER_BYTES},
    refusal::Refusal,
    request::{Answer, FeedFrame, Header, Shape},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{io, time::Duration};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

/// A connection that is being used.
#[derive(Debug)]
pub(super) struct Exchange {
    incoming: OwnedReadHalf,
    outgoing: OwnedWriteHalf,
}

impl Exchange {
    pub(super) fn new(stream: UnixStream) -> Self {
        let (incoming, outgoing) = stream.into_split();
        Self { incoming, outgoing }
    }

    /// Reads the header.
    pub(super) async fn header(&mut self) -> Result<Header, ExchangeError> {
        let body = self.read(MAX_HEADER_BYTES).await?;
        Ok(frame::decode(&body)?)
    }

    /// Reads the request.
    pub(super) async fn body<R: DeserializeOwned>(&mut self) -> Result<R, ExchangeError> {
        let body = self.read(MAX_FRAME_BYTES).await?;
        Ok(frame::decode(&body)?)
    }

    /// Reads the request and forgets it: who still writes would not hear an answer.
    pub(super) async fn skip_body(&mut self) -> Result<(), ExchangeError> {
        self.read(MAX_FRAME_BYTES).await.map(drop)
    }

    /// Writes one frame.
    pub(super) async fn write<T: Serialize>(&mut self, value: &T) -> Result<(), ExchangeError> {
        let bytes = frame::encode(value, MAX_FRAME_BYTES)?;
        let writing = self.outgoing.write_all(&bytes);
        timeout(WRITE_DEADLINE, writing).await.map_err(|_| ExchangeError::TooSlow)??;
        Ok(())
    }

    /// Says no in the shape that the asker waits for.
    pub(super) async fn refuse(&mut self, shape: Option<Shape>, refusal: Refusal) {
        let said = match shape {
            Some(Shape::Feed) => self.write(&FeedFrame::<()>::Refusal(refusal)).await,
            Some(Shape::Call | Shape::Upload) | None => self.write(&Answer::<()>::Refusal(refusal)).await,
        };
        if let Err(error) = said {
            tracing::debug!(%error, "a user at the admin socket did not hear the refusal");
        }
    }

    /// Waits until the asker is gone. Cancel safe.
    pub(super) async fn gone(&mut self) {
        let mut surplus = [0; 64];
        // What comes after the request means nothing; it only must not be taken for the end.
        while matches!(self.incoming.read(&mut surplus).await, Ok(1..)) {}
    }

    async fn read(&mut self, max: usize) -> Result<Vec<u8>, ExchangeError> {
        let reading = async {
            let mut prefix = [0; PREFIX_BYTES];
            self.incoming.read_exact(&mut prefix).await?;
            let length = frame::body_length(prefix, max)?;
            // Takes memory only as bytes arrive.
            let mut body = Vec::new();
            (&mut self.incoming).take(length as u64).read_to_end(&mut body).await?;
            if body.len() < length {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            Ok(body)
        };
        timeout(READ_DEADLINE, reading).await.map_err(|_| ExchangeError::TooSlow)?
    }
}

/// Why a connection comes to nothing.
#[derive(Debug, Error)]
pub(super) enum ExchangeError {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("the request breaks the protocol: {0}")]
    Frame(#[from] FrameError),
    #[error("the other side is too slow")]
    TooSlow,
}

/// Time for the header to arrive, and again for the request.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// Time for a frame to be taken.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
