//! `down`: ends what `up` has started, and nothing else.

use super::{Context, confirm, dataflows, stop::stop_each, up};
use crate::{
    args::Down,
    client::Session,
    descriptor::listed,
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
        match stop_all(context, &record, &dir, down).await {
            Ok(()) => {}
            Err(Trouble::NotConfirmed(failure)) => return Err(failure),
            Err(Trouble::Stop(failure)) if down.force => context.printer.warn(&failure.message),
            Err(Trouble::Stop(failure)) => return Err(failure.hint("`dora-remote down --force` ends everything at once")),
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

/// Why the dataflows still run.
enum Trouble {
    /// The person did not want it; `--force` is no wish against that.
    NotConfirmed(Failure),
    /// They could not be stopped.
    Stop(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Stop(failure)
    }
}

async fn stop_all(context: &Context, record: &Record, dir: &Path, down: &Down) -> Result<(), Trouble> {
    let address = record.address.parse();
    let target = Target {
        address: address.map_err(|error| Failure::new(Exit::Failed, format!("the record of `up` is damaged: {error}")))?,
        identity: up_identity(dir),
        context: None,
        machine: None,
        on_link_loss: None,
        set_aside: None,
    };
    context.announce(&target);
    let session = Session::open(&target, DialKind::Follow, &context.printer).await?;
    let stopped = stop_live(context, &session, down).await;
    session.close().await;
    stopped
}

async fn stop_live(context: &Context, session: &Session, down: &Down) -> Result<(), Trouble> {
    let mut live = dataflows(session).await?;
    live.retain(|dataflow| !dataflow.state.has_ended());
    if !live.is_empty() {
        let names = listed(live.iter().map(|dataflow| dataflow.name.to_string()));
        let what = format!("this stops what runs on this machine: {names}");
        let confirmed = confirm::stop_of(context, &what, live.len(), down.yes).await;
        confirmed.map_err(Trouble::NotConfirmed)?;
    }
    for dataflow in &live {
        context.printer.note(&format!("stopping `{}`", dataflow.name));
    }
    let all = live.iter().map(|dataflow| DataflowRef::Id(dataflow.id)).collect();
    let (_, failures) = stop_each(session, all, None, down.force).await;
    failures
        .into_iter()
        .next()
        .map_or(Ok(()), |failure| Err(Trouble::Stop(failure)))
}
