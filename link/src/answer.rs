//! Runs one typed handler on one stream: body in, work under a deadline, answer out, and the wait until it has arrived.
//!
//! Whether the asker may ask at all was settled before, in `serve.rs`.

use crate::{
    context::Context,
    feed::{FeedSink, Pump, PumpError},
    patience::Patience,
    present::BodyBudget,
    stream::{FrameReader, Outgoing, StreamError},
    upload::UploadBody,
};
use dora_remote_protocol::{
    limits::MAX_FRAME_BYTES,
    refusal::{Changed, Refusal, RefusalCode},
    request::{Answer, FeedFrame, Request},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{future::Future, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until, timeout};

/// One asking: its stream, and what was in its header.
pub(crate) struct Asked {
    pub(crate) context: Context,
    pub(crate) incoming: FrameReader,
    pub(crate) outgoing: Outgoing,
    pub(crate) patience: Patience,
    pub(crate) bodies: BodyBudget,
}

/// How an asking ended, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Replied,
    Refused(RefusalCode),
    /// The asker went away, or its connection did.
    Abandoned,
    /// The asker is there and has stopped reading.
    Stalled,
}

/// Answers a call.
pub(crate) async fn call<R, F, Fut>(mut asked: Asked, handler: Arc<F>) -> Outcome
where
    R: Request,
    F: Fn(Context, R) -> Fut,
    Fut: Future<Output = Result<R::Reply, Refusal>>,
{
    let gone = asked.outgoing.stopped();
    let (context, patience) = (asked.context.clone(), asked.patience);
    let work = async {
        let request = read_body::<R>(&mut asked.incoming, &patience, &asked.bodies).await?;
        read_end(&mut asked.incoming, &patience).await?;
        handler(context, request).await.map_err(Stop::Refused)
    };
    let result = tokio::select! {
        biased;
        _ = gone => Err(Stop::Abandoned),
        result = work => result,
        () = over(asked.context.deadline) => Err(Stop::Refused(too_late())),
    };
    give(&mut asked.outgoing, result, &patience).await
}

/// Answers an upload.
pub(crate) async fn upload<R, F, Fut>(asked: Asked, handler: Arc<F>) -> Outcome
where
    R: Request,
    F: Fn(Context, R, UploadBody) -> Fut,
    Fut: Future<Output = Result<R::Reply, Refusal>>,
{
    let Asked {
        context,
        mut incoming,
        mut outgoing,
        patience,
        bodies,
    } = asked;
    let gone = outgoing.stopped();
    let deadline = context.deadline;
    let work = async {
        let request = read_body::<R>(&mut incoming, &patience, &bodies).await?;
        handler(context, request, UploadBody::new(incoming.into_stream(), &patience))
            .await
            .map_err(Stop::Refused)
    };
    let result = tokio::select! {
        biased;
        _ = gone => Err(Stop::Abandoned),
        result = work => result,
        () = over(deadline) => Err(Stop::Refused(too_late())),
    };
    give(&mut outgoing, result, &patience).await
}

/// Answers a feed.
pub(crate) async fn feed<R, F, Fut>(mut asked: Asked, handler: Arc<F>) -> Outcome
where
    R: Request,
    F: Fn(Context, R, FeedSink<R::Reply>) -> Fut,
    Fut: Future<Output = Result<(), Refusal>>,
{
    let gone = asked.outgoing.stopped();
    let deadline = asked.context.deadline;
    let (context, patience) = (asked.context.clone(), asked.patience);
    let (incoming, outgoing, bodies) = (&mut asked.incoming, &mut asked.outgoing, &asked.bodies);
    let work = async {
        let request = async {
            let request = read_body::<R>(incoming, &patience, bodies).await?;
            read_end(incoming, &patience).await?;
            Ok(request)
        };
        let ended = match request.await {
            Ok(request) => pump(outgoing, deadline, patience.feed, |sink| handler(context, request, sink)).await?,
            Err(Stop::Refused(refusal)) => Err(refusal),
            Err(stop) => return Err(stop),
        };
        // The last frame is written here, where no frame before it can have been torn by a deadline.
        let (last, outcome) = match ended {
            Ok(()) => (FeedFrame::<()>::End, Outcome::Replied),
            Err(refusal) => {
                let code = refusal.code;
                (FeedFrame::Refusal(refusal), Outcome::Refused(code))
            }
        };
        match timeout(patience.feed, outgoing.write(&last, MAX_FRAME_BYTES)).await {
            Ok(written) => written?,
            Err(_) => return Err(Stop::Stalled),
        }
        Ok(outcome)
    };
    let result = tokio::select! {
        biased;
        _ = gone => Err(Stop::Abandoned),
        result = work => result,
        () = over(deadline.map(|deadline| deadline + patience.answer)) => Err(Stop::Abandoned),
    };
    match result {
        Ok(outcome) => {
            deliver(&mut asked.outgoing, &patience).await;
            outcome
        }
        Err(Stop::Refused(refusal)) => Outcome::Refused(refusal.code),
        Err(Stop::Abandoned) => Outcome::Abandoned,
        Err(Stop::Stalled) => Outcome::Stalled,
    }
}

/// Says no to an asking whose verb is unknown or not allowed, in the one shape that every asker understands.
pub(crate) async fn refuse(outgoing: &mut Outgoing, refusal: Refusal, patience: &Patience) -> Outcome {
    give::<()>(outgoing, Err(Stop::Refused(refusal)), patience).await
}

/// Lets the handler fill the sink while the queue is written out.
async fn pump<I, Fut>(
    outgoing: &mut Outgoing,
    deadline: Option<std::time::Instant>,
    stall: Duration,
    handle: impl FnOnce(FeedSink<I>) -> Fut,
) -> Result<Result<(), Refusal>, Stop>
where
    Fut: Future<Output = Result<(), Refusal>>,
{
    let (sink, mut pump) = Pump::new::<I>();
    let handling = async {
        Ok(tokio::select! {
            biased;
            result = handle(sink) => result,
            () = over(deadline) => Err(too_late()),
        })
    };
    let (ended, ()) = tokio::try_join!(handling, async { pump.run(outgoing, stall).await.map_err(Stop::from) })?;
    match pump.fault() {
        Some(error) => {
            tracing::error!(%error, "an item of a feed does not fit into a frame");
            Ok(Err(Refusal::new(RefusalCode::Internal, "an item of the feed is too large")))
        }
        None => Ok(ended),
    }
}

async fn read_body<R: DeserializeOwned>(incoming: &mut FrameReader, patience: &Patience, bodies: &BodyBudget) -> Result<R, Stop> {
    let reading = async {
        let length = incoming.read_length(MAX_FRAME_BYTES).await?;
        let _place = bodies.take(length.unwrap_or_default()).await;
        incoming.read(MAX_FRAME_BYTES).await
    };
    match timeout(patience.body, reading).await {
        Ok(Ok(Some(request))) => Ok(request),
        Ok(Ok(None)) => Err(bad_request("the request has no body")),
        Ok(Err(error)) => Err(Stop::from(error)),
        Err(_) => Err(bad_request("the body of the request did not arrive in time")),
    }
}

async fn read_end(incoming: &mut FrameReader, patience: &Patience) -> Result<(), Stop> {
    match timeout(patience.body, incoming.expect_end()).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(bad_request("the end of the request did not arrive in time")),
    }
}

async fn give<T: Serialize>(outgoing: &mut Outgoing, result: Result<T, Stop>, patience: &Patience) -> Outcome {
    let (answer, mut outcome) = match result {
        Ok(reply) => (Answer::Reply(reply), Outcome::Replied),
        Err(Stop::Refused(refusal)) => {
            let code = refusal.code;
            (Answer::Refusal(refusal), Outcome::Refused(code))
        }
        Err(Stop::Abandoned) => return Outcome::Abandoned,
        Err(Stop::Stalled) => return Outcome::Stalled,
    };
    let writing = async {
        match outgoing.write(&answer, MAX_FRAME_BYTES).await {
            Err(StreamError::Frame(error)) => {
                tracing::error!(%error, "a reply does not fit into a frame");
                outcome = Outcome::Refused(RefusalCode::Internal);
                let refusal = Refusal::new(RefusalCode::Internal, "the reply is too large").changed(Changed::Unknown);
                outgoing.write(&Answer::<()>::Refusal(refusal), MAX_FRAME_BYTES).await
            }
            written => written,
        }
    };
    match timeout(patience.answer, writing).await {
        Ok(Ok(())) => {
            deliver(outgoing, patience).await;
            outcome
        }
        Ok(Err(_)) => Outcome::Abandoned,
        Err(_) => Outcome::Stalled,
    }
}

/// Finishes and waits until the asker's side has all of it: a connection that closes earlier would lose the answer.
async fn deliver(outgoing: &mut Outgoing, patience: &Patience) {
    outgoing.finish();
    drop(timeout(patience.answer, outgoing.stopped()).await);
}

async fn over(deadline: Option<std::time::Instant>) {
    match deadline {
        Some(deadline) => sleep_until(Instant::from_std(deadline)).await,
        None => std::future::pending().await,
    }
}

fn too_late() -> Refusal {
    Refusal::new(
        RefusalCode::DeadlineExceeded,
        "the command was not done in the time that was given",
    )
    .hint("ask for the state before asking again")
    .changed(Changed::Unknown)
}

fn bad_request(message: impl Into<String>) -> Stop {
    Stop::Refused(Refusal::new(RefusalCode::BadRequest, message))
}

/// Why a handler's work ended without a reply.
enum Stop {
    Refused(Refusal),
    Abandoned,
    Stalled,
}

impl From<PumpError> for Stop {
    fn from(error: PumpError) -> Self {
        match error {
            PumpError::Stream(error) => error.into(),
            PumpError::Stalled => Self::Stalled,
        }
    }
}

impl From<StreamError> for Stop {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Lost(_) | StreamError::Abandoned => Self::Abandoned,
            broken @ (StreamError::Torn | StreamError::Surplus | StreamError::Frame(_)) => {
                bad_request(format!("the request breaks the protocol: {broken}"))
            }
        }
    }
}
