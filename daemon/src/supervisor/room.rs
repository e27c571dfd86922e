//! What the supervisor does when there is no room on the disk, and what it gives up to make some.

use super::{
    INBOX, Supervisor,
    effects::Job,
    input::{EndedRun, Input, Kept},
};
use crate::{
    records::{Changes, Forget, Run},
    store::StoreError,
    store_thread::RETRY,
    workdir::Left,
};
use dora_remote_protocol::{dataflow::Files, ids::DataflowId};
use std::sync::Arc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

impl Supervisor {
    /// Stores one step; false when the daemon is to end and it is not stored.
    ///
    /// While the disk is full it is tried again and again, without the messages about runs, which leave a hole in their numbers.
    /// What comes meanwhile waits: up to [`INBOX`] inputs here, then the engine keeps its events. A stop does not wait.
    pub(super) async fn commit(&mut self, changes: Changes, shutdown: &CancellationToken) -> Result<bool, StoreError> {
        let mut changes = Arc::new(changes);
        let mut is_told = false;
        loop {
            let attempt = Arc::clone(&changes);
            if self.store.unless_full(move |store| store.commit(&attempt)).await?.is_some() {
                if is_told {
                    info!("there is room on the disk again, and what waited is stored");
                }
                return Ok(true);
            }
            if !std::mem::replace(&mut is_told, true) {
                warn!("the disk is full: what happens waits until it can be stored, and nodes go on");
            }
            Arc::make_mut(&mut changes).messages.clear();
            let again = Instant::now() + RETRY;
            loop {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return Ok(false),
                    () = sleep_until(again) => break,
                    Some(input) = self.queue.recv(), if self.put_off.len() < INBOX => self.put_off(input),
                }
            }
        }
    }

    fn put_off(&mut self, input: Input) {
        match input {
            Input::Stop { request, reply } if self.book.get(request.dataflow).is_some_and(Run::is_alive) => {
                let reply = Some(reply);
                self.start(Job::Stop { request, reply });
            }
            other => self.put_off.push(other),
        }
    }

    /// What is kept on the disk.
    pub(super) fn kept(&self) -> Kept {
        let ended = |(id, run): (&DataflowId, &Run)| {
            Some(EndedRun {
                dataflow: *id,
                ended_unix_ms: run.state.ended_unix_ms?,
                is_shipped: run.state.logs_shipped,
                left: Left::of(&run.plan),
            })
        };
        let kept = self.book.runs().iter().filter(|(id, _)| !self.removing.contains(id));
        let live = self.book.runs().values().filter(|run| run.is_alive() && run.plan.owns_dir);
        Kept {
            ended: kept.filter_map(ended).collect(),
            bundle_bytes: live
                .map(|run| match run.plan.files {
                    Files::Bundle(bundle) => bundle.unpacked_bytes,
                    Files::OnMachine(_) => 0,
                })
                .sum(),
        }
    }

    /// Marks ended runs to be removed for want of room.
    pub(super) fn surplus(&mut self, runs: &[DataflowId], changes: &mut Changes) {
        for id in runs {
            let is_done = |run: &Run| !run.is_alive() && run.state.logs_shipped && run.state.forget == Forget::No;
            if self.book.get(*id).is_some_and(is_done) {
                info!(dataflow = %id, "what is left of an ended run is removed to make room");
                self.book.update(*id, changes, |state| state.forget = Forget::WhenShipped);
            }
        }
    }
}
