//! Start, stop, list and watch.

use super::{Desk, note, note_refusal};
use crate::event::{Event, News, Subscription};
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
        .call(move |context, request: StopDataflow| stop(stops.clone(), context, request))
        .call(move |_, _: ListDataflows| list(lists.clone()))
        .feed(move |context, request: WatchDataflow, sink| watch(watches.clone(), context, request, sink))
}

async fn start(desk: Desk, context: Context, request: StartDataflow, sink: FeedSink<DataflowEvent>) -> Result<(), Refusal> {
    let by = context.peer.identity().to_string();
    let request = Box::new(request);
    let subscription = desk.brain.ask(|reply| Event::Start { by, request, reply }).await;
    let subscription = match subscription {
        Ok(subscription) => subscription,
        Err(refusal) => {
            let refused: Result<(), _> = Err(refusal);
            note::<StartDataflow, _>(&context, &"a new dataflow", &refused);
            return refused;
        }
    };
    let id = subscription.id;
    let started = send_news(&desk, &context, subscription, &sink, Until::Started).await;
    note::<StartDataflow, _>(&context, &id, &started);
    started
}

async fn stop(desk: Desk, context: Context, request: StopDataflow) -> Result<DataflowStopped, Refusal> {
    let by = context.peer.identity().to_string();
    let target = request.dataflow.clone();
    let stop = |reply| Event::Stop {
        by,
        dataflow: request.dataflow,
        grace_ms: request.grace_ms,
        force: request.force,
        reply,
    };
    let stopped = desk.brain.ask(stop).await;
    note::<StopDataflow, _>(&context, &target, &stopped);
    stopped
}

async fn list(desk: Desk) -> Result<Vec<DataflowSummary>, Refusal> {
    let mut list = desk.brain.ask(|reply| Event::List { reply }).await?;
    fit_into_frame(&mut list);
    Ok(list)
}

async fn watch(desk: Desk, context: Context, request: WatchDataflow, sink: FeedSink<DataflowEvent>) -> Result<(), Refusal> {
    let target = request.dataflow.clone();
    let watch = |reply| Event::Watch {
        dataflow: request.dataflow,
        reply,
    };
    let watched = match desk.brain.ask(watch).await {
        Ok(subscription) => send_news(&desk, &context, subscription, &sink, Until::Ended).await,
        Err(refusal) => Err(refusal),
    };
    note_refusal::<WatchDataflow, _>(&context, &target, &watched);
    watched
}

/// How long news are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Started,
    Ended,
}

/// Sends the present state and what follows. A listener that is too slow for the news hears the present state again.
async fn send_news(
    desk: &Desk,
    context: &Context,
    mut subscription: Subscription,
    sink: &FeedSink<DataflowEvent>,
    until: Until,
) -> Result<(), Refusal> {
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
        let dataflow = DataflowRef::Id(subscription.id);
        subscription = desk.brain.ask(|reply| Event::Watch { dataflow, reply }).await?;
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
