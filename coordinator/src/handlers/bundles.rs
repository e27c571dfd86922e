//! Archives in and out.

use super::{Desk, note, note_refusal};
use crate::{asker::Asker, event::Event};
use dora_remote_link::{Context, FeedSink, Router, UploadBody};
use dora_remote_protocol::{
    chunk::Chunk,
    cli_to_coordinator::{BundleStored, HasBundle, PutBundle},
    daemon_to_coordinator::FetchBundle,
    refusal::{Refusal, RefusalCode},
};
use std::future::ready;

/// Adds the handlers of this file.
pub(super) fn add(router: Router, desk: &Desk) -> Router {
    let (asks, puts, fetches) = (desk.clone(), desk.clone(), desk.clone());
    router
        .call(move |_, request: HasBundle| ready(Ok(asks.bundles.has(request.hash))))
        .upload(move |context, request: PutBundle, body| put(puts.clone(), context, request, body))
        .feed(move |context, request: FetchBundle, sink| fetch(fetches.clone(), context, request, sink))
}

async fn put(desk: Desk, context: Context, request: PutBundle, body: UploadBody) -> Result<BundleStored, Refusal> {
    let hash = request.bundle.hash;
    let asker = Asker::of(&context);
    let stored = match desk.audit.check() {
        Ok(()) => desk.bundles.put(request.bundle, body).await,
        Err(refusal) => Err(refusal),
    };
    note::<PutBundle, _>(&desk, &asker, &hash, &stored).await;
    stored.map(|()| BundleStored { hash })
}

async fn fetch(desk: Desk, context: Context, request: FetchBundle, sink: FeedSink<Chunk>) -> Result<(), Refusal> {
    let hash = request.hash;
    let machine = context.peer.identity().name.clone();
    let allowed = desk.brain.ask(|reply| Event::MayFetch { machine, hash, reply }).await;
    let chunks = allowed.and_then(|()| desk.bundles.fetch(hash));
    note_refusal::<FetchBundle, _>(&desk, &Asker::of(&context), &hash, &chunks).await;
    let mut chunks = chunks?;
    while let Some(chunk) = chunks.recv().await {
        let chunk = chunk.map_err(|error| {
            tracing::error!(%error, %hash, "cannot read a bundle");
            Refusal::new(RefusalCode::Internal, "the bundle cannot be read")
        })?;
        if sink.send(Chunk(chunk)).await.is_err() {
            break;
        }
    }
    Ok(())
}
