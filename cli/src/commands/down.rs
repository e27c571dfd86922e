//! `down`: ends what `up` has started, and nothing else.

use super::{Context, dataflows, stop::stop_each, up};
use crate::{
    args::Down,
    client::Session,
    exit::Exit,
    failure::Failure,
    local::{Record, up_dir, up_identity},
    places, processes,
    target::Target,
};
use dora_remote_link::DialKind;
use dora_remote_protocol::dataflow::DataflowRef;
use std::{path::Path, time::Duration};

/// Time for a process to end after it was asked to; the engine ends its nodes meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);

/// Stops all dataflows, then ends daemon, engine and coordinator.
///
/// # Errors
/// What could not be stopped or ended; without `--force`, nothing is ended while a dataflow cannot be stopped.
pub async fn run(context: &Context, down: &Down) -> Result<Exit, Failure> {
    let dir = up_dir(&places::state_dir(&places::process_env)?);
    let Some(record) = Record::read(&dir) else {
        context
            .printer
            .note("nothing to end: `dora-remote up` has started nothing here");
        return Ok(Exit::Ok);
    };
    let _lock = up::lock(&dir)?;
    if record.coordinator.is_alive() {
        let stopped = stop_all(context, &record, &dir, down.force).await;
        match stopped {
            Err(failure) if !down.force => return Err(failure.hint("`dora-remote down --force` ends everything at once")),
            Err(failure) => context.printer.warn(&failure.message),
            Ok(()) => {}
        }
    }
    // A daemon without runs takes its engine along; with runs it leaves it to its successor, which will not come.
    processes::end("daemon", record.daemon, PATIENCE).await?;
    if let Some(engine) = processes::engine_of(&up::daemon_state(&dir)) {
        processes::end("engine", engine, PATIENCE).await?;
    }
    processes::end("coordinator", record.coordinator, PATIENCE).await?;
    Record::remove(&dir).map_err(|error| Failure::new(Exit::Failed, "cannot remove the record of `up`").because(&error))?;
    context.printer.note("ended daemon, engine and coordinator");
    Ok(Exit::Ok)
}

async fn stop_all(context: &Context, record: &Record, dir: &Path, force: bool) -> Result<(), Failure> {
    let address = record.address.parse();
    let target = Target {
        address: address.map_err(|error| Failure::new(Exit::Failed, format!("the record of `up` is damaged: {error}")))?,
        identity: up_identity(dir),
    };
    let session = Session::open(&target, DialKind::Follow, &context.printer).await?;
    let stopped = stop_live(context, &session, force).await;
    session.close().await;
    stopped
}

async fn stop_live(context: &Context, session: &Session, force: bool) -> Result<(), Failure> {
    let mut live = dataflows(session).await?;
    live.retain(|dataflow| !dataflow.state.has_ended());
    for dataflow in &live {
        context.printer.note(&format!("stopping `{}`", dataflow.name));
    }
    let all = live.iter().map(|dataflow| DataflowRef::Id(dataflow.id)).collect();
    let (_, failures) = stop_each(session, all, None, force).await;
    failures.into_iter().next().map_or(Ok(()), Err)
}
