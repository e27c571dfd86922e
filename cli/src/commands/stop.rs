//! `stop`: one dataflow or all of them.

use super::{Context, confirm, dataflows, meant, outcome};
use crate::{
    args::Stop,
    client::Session,
    descriptor::listed,
    exit::Exit,
    failure::Failure,
    output::json::{Outcome, SCHEMA},
};
use dora_remote_link::DialKind;
use dora_remote_protocol::{
    cli_to_coordinator::{DataflowStopped, StopDataflow},
    dataflow::DataflowRef,
    ids::DataflowId,
    limits::{DEFAULT_GRACE, STOP_MARGIN},
    name::DataflowName,
};
use serde::Serialize;
use std::time::Duration;
use tokio::task::JoinSet;

/// What may pass on the network beyond the time that the coordinator takes.
const NETWORK_MARGIN: Duration = Duration::from_secs(5);

/// Stops one dataflow or all.
///
/// # Errors
/// See [`Session`]; of several failures the first.
pub async fn run(context: &Context, stop: &Stop) -> Result<Exit, Failure> {
    let stopping = async |session: &Session| {
        let dataflows = wanted(context, session, stop).await?;
        if dataflows.is_empty() {
            context.printer.note("no dataflow is running");
        }
        Ok(stop_each(session, dataflows, stop.grace_duration, stop.force).await)
    };
    let (stopped, failures) = context.in_session(DialKind::Follow, stopping).await?;
    show(context, &stopped)?;
    let partly = !stopped.is_empty() && !failures.is_empty();
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else {
        return Ok(Exit::Ok);
    };
    for other in failures {
        context.printer.failure(&other);
    }
    Err(if partly {
        Failure {
            exit: Exit::Partly,
            ..first
        }
    } else {
        first
    })
}

/// Asks for the end of one dataflow and waits for it.
///
/// # Errors
/// What the coordinator refuses, and all that can go wrong on the way.
pub async fn stop_one(
    session: &Session,
    dataflow: DataflowRef,
    grace: Option<Duration>,
    force: bool,
) -> Result<DataflowStopped, Failure> {
    let what = format!("stop `{dataflow}`");
    let (request, deadline) = request(dataflow, grace, force);
    session.call(&what, &request, deadline).await
}

/// Stops several dataflows at once.
pub(super) async fn stop_each(
    session: &Session,
    dataflows: Vec<DataflowRef>,
    grace: Option<Duration>,
    force: bool,
) -> (Vec<DataflowStopped>, Vec<Failure>) {
    if let [_] = dataflows.as_slice() {
        let (mut stopped, mut failures) = (Vec::new(), Vec::new());
        for dataflow in dataflows {
            match stop_one(session, dataflow, grace, force).await {
                Ok(done) => stopped.push(done),
                Err(failure) => failures.push(failure),
            }
        }
        return (stopped, failures);
    }
    let mut asked = JoinSet::new();
    for dataflow in dataflows {
        let peer = session.peer().await;
        asked.spawn(async move {
            let what = format!("stop `{dataflow}`");
            let (request, deadline) = request(dataflow, grace, force);
            peer.call(&request, deadline)
                .await
                .map_err(|error| Failure::of_call(&what, &error))
        });
    }
    let (mut stopped, mut failures) = (Vec::new(), Vec::new());
    while let Some(done) = asked.join_next().await {
        match done {
            Ok(Ok(done)) => stopped.push(done),
            Ok(Err(failure)) => failures.push(failure),
            Err(error) => failures.push(Failure::new(Exit::Failed, "a stop was lost").cause(error.to_string())),
        }
    }
    stopped.sort_by_key(|done| done.id);
    (stopped, failures)
}

async fn wanted(context: &Context, session: &Session, stop: &Stop) -> Result<Vec<DataflowRef>, Failure> {
    if !stop.all {
        let named = stop.dataflow.as_deref().or(stop.name.as_deref());
        return Ok(vec![meant(session, named).await?]);
    }
    let mut live = dataflows(session).await?;
    live.retain(|dataflow| !dataflow.state.has_ended());
    if live.len() > 1 {
        let names = listed(live.iter().map(|dataflow| dataflow.name.to_string()));
        let what = format!(
            "this stops {} dataflows of the coordinator {}: {names}",
            live.len(),
            session.address()
        );
        confirm::stop_of(context, &what, live.len(), stop.yes).await?;
    }
    Ok(live.into_iter().map(|dataflow| DataflowRef::Id(dataflow.id)).collect())
}

fn request(dataflow: DataflowRef, grace: Option<Duration>, force: bool) -> (StopDataflow, Duration) {
    let patience = if force {
        Duration::ZERO
    } else {
        grace.unwrap_or(DEFAULT_GRACE)
    };
    let request = StopDataflow {
        dataflow,
        grace_ms: grace.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)),
        force,
    };
    (request, patience.saturating_mul(2) + STOP_MARGIN + NETWORK_MARGIN)
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    stopped: Vec<Stopped<'a>>,
}

#[derive(Serialize)]
struct Stopped<'a> {
    id: DataflowId,
    name: &'a DataflowName,
    result: Outcome<'a>,
}

fn show(context: &Context, stopped: &[DataflowStopped]) -> Result<(), Failure> {
    if context.printer.is_json() {
        let stopped = stopped.iter().map(|done| Stopped {
            id: done.id,
            name: &done.name,
            result: Outcome::from(&done.result),
        });
        context.printer.document(&Document {
            schema: SCHEMA,
            stopped: stopped.collect(),
        })?;
        return Ok(());
    }
    for done in stopped {
        outcome::tell(&context.printer, &done.name, &done.result);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_of_a_stop_leaves_room_for_its_escalation() {
        let dataflow = || DataflowRef::Name("a".to_owned());
        let (request_, deadline) = request(dataflow(), None, false);
        assert_eq!(request_.grace_ms, None);
        assert_eq!(deadline, Duration::from_secs(45));
        let (request_, deadline) = request(dataflow(), Some(Duration::from_millis(1_500)), false);
        assert_eq!(request_.grace_ms, Some(1_500));
        assert_eq!(deadline, Duration::from_secs(28));
        assert_eq!(request(dataflow(), None, true).1, Duration::from_secs(25));
    }
}
