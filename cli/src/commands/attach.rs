//! `start --attach`: starts a dataflow, shows what its nodes write, and ends as it ends.
//!
//! The first Ctrl-C asks for a stop and waits for the end, the second one leaves.

use super::{
    follow,
    launch::{Placed, Teller},
    outcome,
    stop::stop_one,
};
use crate::{
    args::Levels,
    client::Session,
    exit::Exit,
    failure::Failure,
    output::{
        Printer,
        json::{FeedLine, Outcome},
        lines::Lines,
    },
    signals::Interrupts,
};
use dora_remote_protocol::{
    cli_to_coordinator::{ReadLogs, StartDataflow},
    dataflow::{DataflowRef, DataflowResult},
};
use std::{future::Future, pin::Pin, pin::pin, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

/// Time for the last lines to come after a dataflow has ended; a little more than the coordinator waits for its machines.
const LAST_LINES: Duration = Duration::from_secs(20);
/// Time for the lines that belong to a start that failed.
const LINES_OF_FAILURE: Duration = Duration::from_secs(2);

/// How the lines of a dataflow are followed.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// Which lines are shown.
    pub levels: Levels,
    /// Whether missing lines decide how the command ends.
    pub strict: bool,
}

/// A stop that is under way.
type Stopping<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

/// Starts a dataflow and follows it.
///
/// # Errors
/// Why it could not be started or followed. That a dataflow fails is no failure of the command: [`Exit::DataflowFailed`], and
/// [`Exit::Gap`] when lines are missing and that was to count.
pub async fn run(session: &Session, request: &StartDataflow, wishes: Wishes, printer: &Printer) -> Result<Exit, Failure> {
    let mut interrupts = Interrupts::new()?;
    let mut teller = Teller::new(printer, true);
    let placed = teller.placed();
    let mut life = pin!(live(&mut teller, session, request, placed.clone()));
    let mut lines = Lines::new(printer, request.spec.nodes.iter().map(|node| node.id.as_str()));
    let mut logs = pin!(read(session, placed.clone(), wishes.levels, printer, &mut lines));
    let mut stopping: Option<Stopping<'_>> = None;
    let (mut is_asked, mut had_all_lines, mut had_gap) = (false, false, false);
    let mut ended: Option<(DataflowResult, Instant)> = None;
    loop {
        if let (Some((result, _)), true) = (&ended, had_all_lines) {
            let exit = finish(printer, &placed, result).await?;
            // Where they are missing was told.
            return Ok(if had_gap && wishes.strict { Exit::Gap } else { exit });
        }
        let until = ended.as_ref().map_or_else(Instant::now, |(_, at)| *at + LAST_LINES);
        tokio::select! {
            biased;
            () = interrupts.next() => {
                let known = placed.borrow().clone();
                let (Some(placed), false) = (known, is_asked) else {
                    return Ok(leave(printer, &placed));
                };
                is_asked = true;
                printer.note(&format!("stopping `{}`; Ctrl-C again leaves it to itself", placed.name));
                stopping = Some(Box::pin(async move {
                    stop_one(session, DataflowRef::Id(placed.id), None, false).await.map(drop)
                }));
            }
            done = waiting_for(&mut stopping) => {
                stopping = None;
                if let Err(failure) = done {
                    printer.failure(&failure);
                }
            }
            result = &mut life, if ended.is_none() => match result {
                Ok(result) => ended = Some((result, Instant::now())),
                Err(failure) => {
                    if placed.borrow().is_some() && !had_all_lines {
                        // What machines said belongs to the failure; what cannot be had in time is in the log.
                        drop(timeout(LINES_OF_FAILURE, &mut logs).await);
                    }
                    return Err(still_running(failure, &placed));
                }
            },
            read = &mut logs, if !had_all_lines => {
                had_gap |= read.map_err(|failure| still_running(failure, &placed))?;
                had_all_lines = true;
            }
            // While the link is cut nothing can come, and what does not come is not late.
            () = sleep_until(until), if ended.is_some() => if session.is_silent() {
                ended = ended.map(|(result, _)| (result, Instant::now()));
            } else {
                printer.warn("the last lines did not come in time; `dora-remote logs` shows them when they have");
                (had_all_lines, had_gap) = (true, true);
            }
        }
    }
}

async fn live(
    teller: &mut Teller<'_>,
    session: &Session,
    request: &StartDataflow,
    placed: watch::Receiver<Option<Placed>>,
) -> Result<DataflowResult, Failure> {
    if let Some(result) = teller.launch(session, request).await? {
        return Ok(result);
    }
    let id = placed.borrow().as_ref().map(|placed| placed.id);
    let id = id.ok_or_else(|| Failure::new(Exit::Failed, "the coordinator did not say where the nodes run"))?;
    teller.watch(session, id).await
}

async fn read(
    session: &Session,
    mut placed: watch::Receiver<Option<Placed>>,
    levels: Levels,
    printer: &Printer,
    lines: &mut Lines,
) -> Result<bool, Failure> {
    let id = match placed.wait_for(Option::is_some).await {
        Ok(placed) => placed.as_ref().map(|placed| placed.id),
        Err(_) => None,
    };
    let Some(id) = id else { return Ok(false) };
    let request = ReadLogs {
        follow: true,
        level: levels.lines,
        machine_level: levels.machines,
        ..ReadLogs::of(DataflowRef::Id(id))
    };
    follow::run(session, request, printer, lines).await.map(|done| done.had_gap)
}

async fn finish(printer: &Printer, placed: &watch::Receiver<Option<Placed>>, result: &DataflowResult) -> Result<Exit, Failure> {
    if let Some(placed) = placed.borrow().clone() {
        if printer.is_json() {
            let line = FeedLine::Result {
                id: placed.id,
                name: &placed.name,
                result: Outcome::from(result),
            };
            printer.chunk(line.to_line()).await?;
        }
        outcome::tell(printer, &placed.name, result);
    }
    Ok(outcome::exit(result))
}

/// Says what happens to the dataflow that is left.
fn leave(printer: &Printer, placed: &watch::Receiver<Option<Placed>>) -> Exit {
    match placed.borrow().as_ref() {
        Some(placed) => printer.note(&format!(
            "left `{0}`; `dora-remote logs {0} --follow` follows it again",
            placed.name
        )),
        None => printer.note("left while the start was under way; `dora-remote list` tells whether it went on"),
    }
    Exit::Interrupted
}

/// A command that lost its coordinator leaves a dataflow behind that goes on.
fn still_running(failure: Failure, placed: &watch::Receiver<Option<Placed>>) -> Failure {
    match placed.borrow().as_ref() {
        Some(placed) if matches!(failure.exit, Exit::Unreachable | Exit::Timeout) && !failure.message.is_empty() => {
            failure.hint(format!(
                "the dataflow goes on without this command; `dora-remote logs {} --follow` follows it again",
                placed.name
            ))
        }
        _ => failure,
    }
}

async fn waiting_for(stopping: &mut Option<Stopping<'_>>) -> Result<(), Failure> {
    match stopping {
        Some(stopping) => stopping.await,
        None => std::future::pending().await,
    }
}
