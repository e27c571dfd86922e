//! Start, stop, list and watch.

use super::{Desk, leash, note, note_refusal, to_the_end};
use crate::{
    asker::Asker,
    event::{Event, News, Subscription},
};
use dora_remote_link::{Context, FeedSink, Router};
use dora_remote_protocol::{
    cli_to_coordinator::{DataflowStopped, ListDataflows, StartDataflow, StopDataflow, WatchDataflow},
    dataflow::{DataflowEvent, DataflowRef, DataflowSummary},
    limits::MAX_FRAME_BYTES,
    refusal::{Changed, Refusal, RefusalCode},
};
use tokio::sync::broadcast::error::RecvError;

/// Adds the handlers of this file.
pub(super) fn add(router: Router, desk: &Desk) -> Router {
    let (starts, stops, lists, watches) = (desk.clone(), desk.clone(), desk.clone(), desk.clone());
    router
        .feed(move |context, request: StartDataflow, sink| start(starts.clone(), context, request, sink))
        .call(move |context, request: StopDataflow| to_the_end(stop(stops.clone(), Asker::of(&context), request)))
        .call(move |context, _: ListDataflows| list(lists.clone(), Asker::of(&context)))
        .feed(move |context, request: WatchDataflow, sink| watch(watches.clone(), context, request, sink))
}

async fn start(desk: Desk, context: Context, request: StartDataflow, sink: FeedSink<DataflowEvent>) -> Result<(), Refusal> {
    let asker = Asker::of(&context);
    // What was accepted goes on without its asker, so it is on record before the first news of it are sent.
    let subscription = to_the_end(accept(desk.clone(), asker.clone(), request)).await?;
    let id = subscription.id;
    let started = send_news(&desk, &context, &asker, subscription, &sink, Until::Started).await;
    note_refusal::<StartDataflow, _>(&desk, &asker, &id, &started).await;
    started
}

async fn accept(desk: Desk, asker: Asker, request: StartDataflow) -> Result<Subscription, Refusal> {
    let starter = asker.clone();
    let request = Box::new(request);
    let start = |reply| Event::Start {
        asker: starter,
        request,
        reply,
    };
    let accepted = match desk.audit.check() {
        Ok(()) => desk.brain.ask(start).await,
        Err(refusal) => Err(refusal),
    };
    let target = accepted
        .as_ref()
        .map_or_else(|_| "a new dataflow".to_owned(), |subscription| subscription.id.to_string());
    note::<StartDataflow, _>(&desk, &asker, &target, &accepted).await;
    accepted
}

/// The one command that is not refused while the audit cannot be written: what moves must be stoppable.
async fn stop(desk: Desk, asker: Asker, request: StopDataflow) -> Result<DataflowStopped, Refusal> {
    let target = request.dataflow.clone();
    let stop = |reply| Event::Stop {
        asker: asker.clone(),
        dataflow: request.dataflow,
        grace_ms: request.grace_ms,
        force: request.force,
        reply,
    };
    let stopped = desk.brain.ask(stop).await;
    note::<StopDataflow, _>(&desk, &asker, &target, &stopped).await;
    stopped
}

async fn list(desk: Desk, asker: Asker) -> Result<Vec<DataflowSummary>, Refusal> {
    let mut list = desk.brain.ask(|reply| Event::List { asker, reply }).await?;
    fit_into_frame(&mut list);
    Ok(list)
}

async fn watch(desk: Desk, context: Context, request: WatchDataflow, sink: FeedSink<DataflowEvent>) -> Result<(), Refusal> {
    let asker = Asker::of(&context);
    let target = request.dataflow.clone();
    let watch = |reply| Event::Watch {
        asker: asker.clone(),
        dataflow: request.dataflow,
        reply,
    };
    let watched = match desk.brain.ask(watch).await {
        Ok(subscription) => send_news(&desk, &context, &asker, subscription, &sink, Until::Ended).await,
        Err(refusal) => Err(refusal),
    };
    note_refusal::<WatchDataflow, _>(&desk, &asker, &target, &watched).await;
    watched
}

/// How long news are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Started,
    Ended,
}

/// Sends the present state and what follows, as long as the asker may see it. A listener that is too slow for the news hears the present state again.
async fn send_news(
    desk: &Desk,
    context: &Context,
    asker: &Asker,
    mut subscription: Subscription,
    sink: &FeedSink<DataflowEvent>,
    until: Until,
) -> Result<(), Refusal> {
    let mut cut = std::pin::pin!(leash::cut(desk, asker, subscription.id));
    let mut is_first = true;
    loop {
        for event in std::mem::take(&mut subscription.first) {
            let is_wanted = match event {
                DataflowEvent::Placed { .. } => is_first,
                // Whether it was started is what the starter wants to know; the end it hears as a refusal.
                DataflowEvent::Ended(_) => until == Until::Ended,
                _ => true,
            };
            if is_wanted && sink.send(event).await.is_err() {
                return Ok(());
            }
        }
        is_first = false;
        if until == Until::Started
            && let Some(start) = subscription.start.take()
        {
            return start;
        }
        let Some(mut news) = subscription.news.take() else {
            return Ok(());
        };
        loop {
            let news = tokio::select! {
                biased;
                () = context.shutdown.cancelled() => return Err(ending(until)),
                () = sink.gone() => return Ok(()),
                refusal = &mut cut => return Err(refusal),
                news = news.recv() => news,
            };
            match news.as_deref() {
                Ok(News::Event(DataflowEvent::Ended(_))) if until == Until::Started => {}
                Ok(News::Event(event)) => {
                    let is_end = matches!(event, DataflowEvent::Ended(_));
                    if sink.send(event.clone()).await.is_err() || is_end {
                        return Ok(());
                    }
                }
                Ok(News::Started) if until == Until::Started => return Ok(()),
                Ok(News::StartRefused(refusal)) if until == Until::Started => return Err(refusal.clone()),
                Ok(News::Started | News::StartRefused(_)) => {}
                Err(RecvError::Lagged(_) | RecvError::Closed) => break,
            }
        }
        let (asker, dataflow) = (asker.clone(), DataflowRef::Id(subscription.id));
        subscription = desk.brain.ask(|reply| Event::Watch { asker, dataflow, reply }).await?;
    }
}

fn ending(until: Until) -> Refusal {
    let refusal = Refusal::new(RefusalCode::ShuttingDown, "the coordinator is ending");
    match until {
        Until::Started => refusal
            .hint("ask `dora-remote list` what came of it once the coordinator is back")
            .changed(Changed::Unknown),
        Until::Ended => refusal,
    }
}

/// Leaves out the oldest that have ended, then the nodes of the largest, until the list fits into a frame.
fn fit_into_frame(list: &mut Vec<DataflowSummary>) {
    const MOST: usize = MAX_FRAME_BYTES - (64 << 10);
    let weigh = |summary: &DataflowSummary| postcard::to_stdvec(summary).map_or(0, |bytes| bytes.len());
    let mut weights: Vec<_> = list.iter().map(weigh).collect();
    let mut total: usize = weights.iter().sum();
    while total > MOST
        && let Some(oldest) = list.iter().position(|summary| summary.state.has_ended())
    {
        total -= weights.remove(oldest);
        list.remove(oldest);
    }
    while total > MOST
        && let Some((largest, _)) = weights.iter().enumerate().max_by_key(|(_, weight)| **weight)
    {
        list[largest].nodes.clear();
        let weight = weigh(&list[largest]);
        if weight >= weights[largest] {
            return;
        }
        total = total - weights[largest] + weight;
        weights[largest] = weight;
    }
}
