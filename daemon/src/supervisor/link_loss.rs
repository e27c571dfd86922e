//! What silence of the coordinator means for runs that must not go on alone.

use super::{
    Supervisor,
    effects::{Effect, Job},
};
use crate::{clock::now_unix_ms, records::Changes, tail::TailCommand};
use dora_remote_protocol::coordinator_to_daemon::StopRun;
use std::time::Duration;
use tracing::warn;

impl Supervisor {
    /// The coordinator was not heard for so long: stops, in order, each run that ends thereby. A run whose stop was begun before a
    /// restart is stopped on, heard or not.
    pub(super) fn silence(&mut self, silence: Duration, changes: &mut Changes, effects: &mut Vec<Effect>) {
        for dataflow in self.book.ended_by_silence(silence) {
            if !self.stopping_alone.insert(dataflow) {
                continue;
            }
            if self.book.lose_link(dataflow, now_unix_ms(), silence, changes) {
                warn!(%dataflow, ?silence, "the coordinator is not heard; the run is stopped, as its link-loss policy says");
                effects.push(Effect::Tail(TailCommand::Messages(dataflow)));
            }
            let request = StopRun {
                dataflow,
                grace_ms: None,
                force: false,
            };
            effects.push(Effect::Start(Job::Stop { request, reply: None }));
        }
    }
}
