//! What ends a follower whose limit no longer holds what it follows. What it may see is judged once at the begin, and again whenever
//! the records change.

use super::Desk;
use crate::{asker::Asker, event::Event};
use dora_remote_protocol::{
    dataflow::DataflowRef,
    ids::DataflowId,
    refusal::{Refusal, RefusalCode},
};
use std::future::pending;

/// Waits until the asker may no longer follow a dataflow, and says why. Never ends otherwise. Cancel safe.
pub(super) async fn cut(desk: &Desk, asker: &Asker, id: DataflowId) -> Refusal {
    let mut views = desk.view.subscribe();
    // What changed between the judgement at the begin and the line above.
    views.mark_changed();
    while views.changed().await.is_ok() {
        views.borrow_and_update();
        let (asker, dataflow) = (asker.clone(), DataflowRef::Id(id));
        match desk.brain.ask(|reply| Event::Find { asker, dataflow, reply }).await {
            Err(refusal) if refusal.code == RefusalCode::Denied => return refusal,
            // One that is forgotten meanwhile, or a brain that ends, is the follower's own matter.
            Ok(_) | Err(_) => {}
        }
    }
    pending().await
}
