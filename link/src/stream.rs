//! Frames over the two halves of one QUIC stream.
//!
//! Reading is cancel safe and takes memory only as bytes arrive; a half that is dropped before it is whole is reset,
//! because quinn would finish it and make a torn message look complete.

use crate::close::STREAM_ABANDONED;
use bytes::Bytes;
use dora_remote_protocol::{
    frame::{self, FrameError, PREFIX_BYTES},
    request::Priority,
};
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, StoppedError, WriteError};
use serde::{Serialize, de::DeserializeOwned};
use std::future::Future;

/// The receiving half, read frame by frame.
pub(crate) struct FrameReader {
    stream: RecvStream,
    partial: Vec<u8>,
    body_bytes: Option<usize>,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            partial: Vec::new(),
            body_bytes: None,
        }
    }

    /// The next frame's value; `None` when the stream ended where a frame would begin. Cancel safe.
    pub(crate) async fn read<T: DeserializeOwned>(&mut self, max: usize) -> Result<Option<T>, StreamError> {
        match self.read_body(max).await? {
            Some(body) => Ok(Some(frame::decode(&body)?)),
            None => Ok(None),
        }
    }

    /// The next frame's bytes. Cancel safe: what has arrived is kept for the next call.
    pub(crate) async fn read_body(&mut self, max: usize) -> Result<Option<Vec<u8>>, StreamError> {
        let Some(length) = self.read_length(max).await? else {
            return Ok(None);
        };
        while self.partial.len() < length {
            match self.stream.read_chunk(length - self.partial.len(), true).await? {
                Some(chunk) => self.partial.extend_from_slice(&chunk.bytes),
                None => return Err(StreamError::Torn),
            }
        }
        self.body_bytes = None;
        Ok(Some(std::mem::take(&mut self.partial)))
    }

    /// How many bytes the next frame has; `None` when the stream ended where a frame would begin. Cancel safe, and asking
    /// twice gives the same.
    pub(crate) async fn read_length(&mut self, max: usize) -> Result<Option<usize>, StreamError> {
        if self.body_bytes.is_some() {
            return Ok(self.body_bytes);
        }
        while self.partial.len() < PREFIX_BYTES {
            match self.stream.read_chunk(PREFIX_BYTES - self.partial.len(), true).await? {
                Some(chunk) => self.partial.extend_from_slice(&chunk.bytes),
                None if self.partial.is_empty() => return Ok(None),
                None => return Err(StreamError::Torn),
            }
        }
        let mut prefix = [0; PREFIX_BYTES];
        prefix.copy_from_slice(&self.partial);
        self.partial.clear();
        self.body_bytes = Some(frame::body_length(prefix, max)?);
        Ok(self.body_bytes)
    }

    /// Waits for the end of the stream; anything else that comes is an error.
    pub(crate) async fn expect_end(&mut self) -> Result<(), StreamError> {
        match self.stream.read_chunk(1, true).await? {
            None => Ok(()),
            Some(_) => Err(StreamError::Surplus),
        }
    }

    /// The half itself, for what follows the frames.
    pub(crate) fn into_stream(self) -> RecvStream {
        self.stream
    }
}

/// The sending half.
pub(crate) struct Outgoing {
    stream: SendStream,
    finished: bool,
}

impl Outgoing {
    /// Takes the half and sets its priority, which counts only for what is written afterwards.
    pub(crate) fn new(stream: SendStream, priority: Priority) -> Self {
        let outgoing = Self { stream, finished: false };
        outgoing.set_priority(priority);
        outgoing
    }

    pub(crate) fn set_priority(&self, priority: Priority) {
        // An error says that the stream is closed already; the next write will tell.
        drop(self.stream.set_priority(priority as i32));
    }

    pub(crate) async fn write<T: Serialize>(&mut self, value: &T, max: usize) -> Result<(), StreamError> {
        let bytes = frame::encode(value, max)?;
        self.write_bytes(bytes.into()).await
    }

    pub(crate) async fn write_bytes(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        Ok(self.stream.write_chunk(bytes).await?)
    }

    /// Says that nothing follows. What was written is still delivered as long as the connection lives.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
        // An error says that the peer has stopped reading; there is nobody left to tell.
        drop(self.stream.finish());
    }

    /// Resolves when the peer stops reading, when it has acknowledged all of a finished half, or when the connection ends.
    pub(crate) fn stopped(&self) -> impl Future<Output = Result<Option<quinn::VarInt>, StoppedError>> + Send + 'static {
        self.stream.stopped()
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if !self.finished {
            drop(self.stream.reset(STREAM_ABANDONED));
        }
    }
}

/// What can happen to a stream. Who hears of it decides what it means.
#[derive(Debug)]
pub(crate) enum StreamError {
    /// The connection ended.
    Lost(ConnectionError),
    /// The peer gave the stream up.
    Abandoned,
    /// The stream ended within a frame.
    Torn,
    /// Something follows where the end belongs.
    Surplus,
    /// A frame breaks a rule.
    Frame(FrameError),
}

impl From<FrameError> for StreamError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl From<ReadError> for StreamError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => Self::Lost(error),
            ReadError::Reset(_) | ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
                Self::Abandoned
            }
        }
    }
}

impl From<WriteError> for StreamError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => Self::Lost(error),
            WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Abandoned,
        }
    }
}

impl std::fmt::Display for StreamError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost(error) => write!(f, "the connection was lost: {error}"),
            Self::Abandoned => f.write_str("the stream was given up"),
            Self::Torn => f.write_str("the stream ended within a frame"),
            Self::Surplus => f.write_str("something follows the last frame"),
            Self::Frame(error) => error.fmt(f),
        }
    }
}
