//! Long streams of items, from both ends: [`Feed`] reads one, [`FeedSink`] fills one.
//!
//! A feed that has nothing to say says so every two seconds, so that its reader can tell quiet from cut off. A slow reader
//! makes the sink wait; who must not wait drops and counts before the sink.

use crate::{
    call::bounded,
    error::CallError,
    peer::Peer,
    stream::{FrameReader, Outgoing, StreamError},
};
use bytes::Bytes;
use dora_remote_protocol::{
    frame::{self, FrameError},
    limits::MAX_FRAME_BYTES,
    request::{Answer, FeedFrame, Request},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    marker::PhantomData,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};
use thiserror::Error;
use tokio::{sync::mpsc, time::timeout};

impl Peer {
    /// Asks for a feed. Without a deadline it lasts until either side ends it. Returns when the request is written.
    ///
    /// # Errors
    /// See [`CallError`]; a refusal comes with the first [`Feed::next`].
    pub async fn feed<R: Request>(&self, request: &R, deadline: Option<Duration>) -> Result<Feed<R::Reply>, CallError> {
        let deadline = deadline.map(bounded);
        let asking = self.ask(request, deadline);
        let (mut outgoing, incoming) = self.within(deadline.unwrap_or(ASK_DEADLINE), asking).await?;
        outgoing.finish();
        Ok(Feed {
            peer: self.clone(),
            incoming,
            ends: deadline.map(|after| (Instant::now() + after, after)),
            pulse: Pulse(Arc::new(Mutex::new(Instant::now()))),
            ended: false,
            items: PhantomData,
        })
    }
}

/// The reading end. Dropping it tells the peer to stop.
pub struct Feed<I> {
    peer: Peer,
    incoming: FrameReader,
    ends: Option<(Instant, Duration)>,
    pulse: Pulse,
    ended: bool,
    items: PhantomData<fn() -> I>,
}

impl<I: DeserializeOwned> Feed<I> {
    /// The next item; `None` at the end of a whole feed and ever after. Cancel safe.
    ///
    /// # Errors
    /// [`CallError::Refused`] when the peer ends the feed unfinished, and the others of [`CallError`].
    pub async fn next(&mut self) -> Result<Option<I>, CallError> {
        while !self.ended {
            let body = self.next_body().await;
            // The frame is taken out before its meaning is looked at, so that nothing is lost when this future is dropped.
            match body.and_then(|body| decode(&body).map_err(|error| self.peer.call_error(error))) {
                Ok(FeedFrame::Item(item)) => return Ok(Some(item)),
                Ok(FeedFrame::Idle) => {}
                Ok(FeedFrame::End) => self.ended = true,
                Ok(FeedFrame::Refusal(refusal)) => {
                    self.ended = true;
                    return Err(CallError::Refused(refusal));
                }
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// When anything was last heard on this feed, an idle mark included.
    #[must_use]
    pub fn last_heard(&self) -> Instant {
        self.pulse.last_heard()
    }

    /// A handle that tells the same while [`Feed::next`] is waiting. It advances only while somebody waits there.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    async fn next_body(&mut self) -> Result<Vec<u8>, CallError> {
        let reading = self.incoming.read_body(MAX_FRAME_BYTES);
        let guarded = async {
            tokio::select! {
                biased;
                read = reading => match read {
                    Ok(Some(body)) => Ok(body),
                    Ok(None) => Err(CallError::Protocol(StreamError::Torn.to_string())),
                    Err(error) => Err(self.peer.call_error(error)),
                },
                refused = self.peer.refused() => Err(refused),
            }
        };
        let body = match self.ends {
            None => guarded.await?,
            Some((at, after)) => timeout(at.saturating_duration_since(Instant::now()), guarded)
                .await
                .map_err(|_| CallError::TimedOut { after })??,
        };
        self.pulse.beat();
        Ok(body)
    }
}

/// When a feed was last heard.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Mutex<Instant>>);

impl Pulse {
    /// When anything last came, an idle mark included.
    #[must_use]
    pub fn last_heard(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// The filling end, handed to the handler of a feed. Dropping it, or returning from the handler, ends the feed.
#[derive(Debug)]
pub struct FeedSink<I> {
    frames: mpsc::Sender<Bytes>,
    fault: Arc<OnceLock<FrameError>>,
    items: PhantomData<fn(I)>,
}

impl<I: Serialize> FeedSink<I> {
    /// Queues one item; waits while [`FEED_QUEUE`] items are queued, which is when the reader or the network is slow. Cancel
    /// safe: the item is queued or it is not.
    ///
    /// # Errors
    /// [`Gone`] when nobody reads any more, or when the item does not fit into a frame, which also ends the feed.
    pub async fn send(&self, item: I) -> Result<(), Gone> {
        let bytes = match frame::encode(&FeedFrame::Item(item), MAX_FRAME_BYTES) {
            Ok(bytes) => bytes,
            Err(error) => {
                drop(self.fault.set(error));
                return Err(Gone);
            }
        };
        self.frames.send(bytes.into()).await.map_err(|_| Gone)
    }

    /// Waits until nobody reads any more. Cancel safe.
    pub async fn gone(&self) {
        self.frames.closed().await;
    }
}

/// The reader of a feed is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the reader of the feed is gone")]
pub struct Gone;

/// The end of the queue from which items are written to the stream.
pub(crate) struct Pump {
    frames: mpsc::Receiver<Bytes>,
    fault: Arc<OnceLock<FrameError>>,
}

impl Pump {
    pub(crate) fn new<I>() -> (FeedSink<I>, Self) {
        let (sender, frames) = mpsc::channel(FEED_QUEUE);
        let fault = Arc::new(OnceLock::new());
        let sink = FeedSink {
            frames: sender,
            fault: Arc::clone(&fault),
            items: PhantomData,
        };
        (sink, Self { frames, fault })
    }

    /// Writes what comes until the sink is dropped; writes an idle mark when nothing comes. Gives up when one frame cannot be
    /// written for as long as `stall`, because the reader takes nothing.
    pub(crate) async fn run(&mut self, outgoing: &mut Outgoing, stall: Duration) -> Result<(), PumpError> {
        loop {
            let writing = async {
                match timeout(FEED_IDLE, self.frames.recv()).await {
                    Ok(Some(frame)) => Ok(Some(frame)),
                    Ok(None) => Ok(None),
                    Err(_) => frame::encode(&FeedFrame::<()>::Idle, MAX_FRAME_BYTES).map(|bytes| Some(bytes.into())),
                }
            };
            let Some(frame) = writing.await.map_err(StreamError::Frame)? else {
                return Ok(());
            };
            match timeout(stall, outgoing.write_bytes(frame)).await {
                Ok(written) => written?,
                Err(_) => return Err(PumpError::Stalled),
            }
        }
    }

    /// The item that did not fit, if there was one.
    pub(crate) fn fault(&self) -> Option<&FrameError> {
        self.fault.get()
    }
}

/// Why a feed is not written any further.
#[derive(Debug)]
pub(crate) enum PumpError {
    /// The stream cannot be written.
    Stream(StreamError),
    /// The reader takes nothing.
    Stalled,
}

impl From<StreamError> for PumpError {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

/// Reads one frame of a feed. A side that does not know the verb cannot know that a feed was asked for: its refusal comes in
/// the shape of a call's, which is no valid frame of a feed.
fn decode<I: DeserializeOwned>(body: &[u8]) -> Result<FeedFrame<I>, StreamError> {
    frame::decode(body).or_else(|error| match frame::decode::<Answer<Nothing>>(body) {
        Ok(Answer::Refusal(refusal)) => Ok(FeedFrame::Refusal(refusal)),
        Ok(Answer::Reply(_)) | Err(_) => Err(error.into()),
    })
}

/// Stands for a reply that can never come.
#[derive(serde::Deserialize)]
enum Nothing {}

/// Items that wait in a sink for the network; more make [`FeedSink::send`] wait.
pub const FEED_QUEUE: usize = 8;
/// Quiet time after which a feed says that it is alive.
pub const FEED_IDLE: Duration = Duration::from_secs(2);
/// Time to get the request for an endless feed written.
const ASK_DEADLINE: Duration = dora_remote_protocol::limits::QUERY_DEADLINE;

#[cfg(test)]
mod tests {
    use super::*;
    use dora_remote_protocol::refusal::{Refusal, RefusalCode};

    fn body<T: Serialize>(value: &T) -> Vec<u8> {
        frame::encode(value, MAX_FRAME_BYTES).expect("fits")[frame::PREFIX_BYTES..].to_vec()
    }

    #[test]
    fn a_refusal_in_the_shape_of_a_call_is_understood() {
        let refusal = Refusal::new(RefusalCode::UnknownVerb, "no such verb");
        let early = body(&Answer::<()>::Refusal(refusal.clone()));
        assert!(matches!(decode::<u32>(&early), Ok(FeedFrame::Refusal(read)) if read == refusal));
        let late = body(&FeedFrame::<u32>::Refusal(refusal.clone()));
        assert!(matches!(decode::<u32>(&late), Ok(FeedFrame::Refusal(read)) if read == refusal));
        assert!(matches!(decode::<u32>(&body(&FeedFrame::<u32>::Idle)), Ok(FeedFrame::Idle)));
        assert!(matches!(
            decode::<u32>(&body(&FeedFrame::Item(7_u32))),
            Ok(FeedFrame::Item(7))
        ));
        assert!(decode::<u32>(&[9]).is_err());
    }
}
