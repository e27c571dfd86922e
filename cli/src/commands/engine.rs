//! `engine`: the child process of a daemon in which nodes run. Hidden; the daemon starts it.

use crate::{args::Engine, exit::Exit, failure::Failure};
use dora_remote_engine::{EngineConfig, engine_id};

/// Runs an engine until it is ordered to end.
///
/// # Errors
/// Why it ended otherwise.
pub fn run(engine: Engine) -> Result<Exit, Failure> {
    let failed = |error| Failure::new(Exit::Failed, "the engine ended").because(&error);
    let config = EngineConfig {
        state_dir: engine.state,
        machine: engine.machine,
        labels: engine.labels.into_iter().collect(),
        engine: engine_id().map_err(failed)?,
        node_log_bytes: engine.node_log_bytes,
    };
    dora_remote_engine::run(config).map_err(failed)?;
    Ok(Exit::Ok)
}
