//! `logs`: what the nodes of a dataflow wrote.

use super::{
    Context, dataflows,
    follow::{self, Done},
    meant,
};
use crate::{
    args::{Levels, Logs},
    client::Session,
    exit::Exit,
    failure::Failure,
    output::lines::Lines,
};
use dora_remote_link::DialKind;
use dora_remote_protocol::{
    cli_to_coordinator::ReadLogs,
    dataflow::{DataflowRef, DataflowSummary},
};

/// Shows log lines; ends with [`Exit::Gap`] when lines are missing. A follower was told where, and ends so only when it is strict.
/// With [`Exit::Partly`] when a machine has newer ones that it could not be asked for.
///
/// # Errors
/// See [`crate::client::Session`].
pub async fn run(context: &Context, logs: &Logs) -> Result<Exit, Failure> {
    let kind = if logs.follow { DialKind::Follow } else { DialKind::Command };
    let done = context
        .in_session(kind, async |session| read(context, session, logs).await)
        .await?;
    let counts = !logs.follow || logs.strict;
    Ok(match done {
        Done { had_gap: true, .. } if counts => Exit::Gap,
        Done { is_old: true, .. } => Exit::Partly,
        Done { .. } => Exit::Ok,
    })
}

async fn read(context: &Context, session: &Session, logs: &Logs) -> Result<Done, Failure> {
    let dataflow = match (logs.dataflow.as_deref(), logs.follow) {
        // A follower must find the same dataflow again after a cut, whatever is called so by then.
        (Some(name), true) => by_id(session, name).await?,
        (named, _) => meant(session, named).await?,
    };
    // Spans count from the coordinator's time; what is spent on asking for it is saved where nobody needs it.
    let now_unix_ms = match (logs.since, logs.until) {
        (None, None) => 0,
        _ => session.now_unix_ms().await?,
    };
    let levels = Levels::of(logs.level);
    let request = ReadLogs {
        nodes: logs.nodes.clone(),
        tail: logs.tail,
        follow: logs.follow,
        since_unix_ms: logs.since.map(|since| since.unix_ms(now_unix_ms)),
        until_unix_ms: logs.until.map(|until| until.unix_ms(now_unix_ms)),
        level: levels.lines,
        machine_level: levels.machines,
        grep: logs.grep.clone(),
        ..ReadLogs::of(dataflow)
    };
    let mut lines = Lines::new(&context.printer, logs.nodes.iter().map(|node| node.as_str()));
    follow::run(session, request, &context.printer, &mut lines).await
}

/// The id of the dataflow that is called so: of the one that has not ended, else of the latest that has.
async fn by_id(session: &Session, name: &str) -> Result<DataflowRef, Failure> {
    let Ok(dataflow) = name.parse::<DataflowRef>();
    if matches!(dataflow, DataflowRef::Id(_)) {
        return Ok(dataflow);
    }
    let listed = dataflows(session).await?;
    // Oldest first; what is unknown here is left to the coordinator to refuse.
    let called_so = |dataflow: &&DataflowSummary| dataflow.name.as_str().eq_ignore_ascii_case(name);
    let live = listed
        .iter()
        .rev()
        .filter(called_so)
        .find(|dataflow| !dataflow.state.has_ended());
    let found = live.or_else(|| listed.iter().rev().find(called_so));
    Ok(found.map_or(dataflow, |found| DataflowRef::Id(found.id)))
}
