//! Follows the log lines of one dataflow, over any number of lost connections: each line once, in order, gaps told.

use crate::{
    client::Session,
    failure::Failure,
    output::{
        Printer,
        lines::Lines,
        time::{relative, unix_ms},
    },
};
use dora_remote_link::CallError;
use dora_remote_protocol::{
    cli_to_coordinator::ReadLogs,
    log_line::{LogItem, LogLine},
    packed::PackError,
};
use std::time::SystemTime;

/// What is to be said of a feed that is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Lines of it are lost.
    pub had_gap: bool,
    /// A machine has newer lines, and could not be asked for them.
    pub is_old: bool,
}

/// Reads lines until the feed is whole.
///
/// `request` says which lines; its cursor moves as they are shown, so that a new connection goes on where the old one broke off.
///
/// # Errors
/// What ends the feed for good, and an output that cannot be written.
pub async fn run(session: &Session, mut request: ReadLogs, printer: &Printer, lines: &mut Lines) -> Result<Done, Failure> {
    let what = format!("read the logs of `{}`", request.dataflow);
    let mut done = Done::default();
    let mut peer = session.peer().await;
    loop {
        let ended = match peer.feed(&request, None).await {
            Err(error) => error,
            Ok(mut feed) => loop {
                match session.next(&peer, &mut feed).await {
                    Ok(None) => return Ok(done),
                    Ok(Some(item)) => {
                        let mut chunk = String::new();
                        done.is_old |= tell(&item, printer);
                        match take(&item, &mut request, lines, &mut chunk) {
                            Ok(is_gap) => done.had_gap |= is_gap,
                            Err(error) => break CallError::Protocol(error.to_string()),
                        }
                        printer.chunk(chunk).await?;
                    }
                    Err(error) => break error,
                }
            },
        };
        if request.follow && session.may_ask_again(&ended).await {
            continue;
        }
        if !session.may_return(&peer, &ended).await {
            return Err(Failure::of_call(&what, &ended).looking());
        }
        peer = session.reconnect(&peer).await.map_err(Failure::looking)?;
    }
}

/// Tells people what machines that send lines on demand do; whether one of them has lines that do not follow.
fn tell(item: &LogItem, printer: &Printer) -> bool {
    let now = unix_ms(SystemTime::now());
    match item {
        LogItem::Fetching { machines } => {
            let names = machines
                .iter()
                .map(|machine| format!("`{machine}`"))
                .collect::<Vec<_>>()
                .join(", ");
            printer.note(&format!(
                "asking {names} for what was written; lines are sent from there on demand"
            ));
            false
        }
        LogItem::Unfetched {
            machine,
            unreachable_since_unix_ms,
            newest_unix_ms,
        } => {
            let why = match unreachable_since_unix_ms {
                Some(since) => format!("cannot be reached and was heard last {}", relative(*since, now)),
                None => "does not send what it has".to_owned(),
            };
            let newest = match newest_unix_ms {
                Some(at) => format!("the newest line here was written {}", relative(*at, now)),
                None => "no line is here".to_owned(),
            };
            printer.warn(&format!("`{machine}` {why}; {newest}"));
            true
        }
        _ => false,
    }
}

/// Renders one item and moves the cursor behind it; tells whether it is a gap.
fn take(item: &LogItem, request: &mut ReadLogs, lines: &mut Lines, chunk: &mut String) -> Result<bool, PackError> {
    Ok(match item {
        LogItem::Lines(packed) => {
            let batch = packed.lines()?;
            for line in batch.iter().filter(|line| is_new(line, request)) {
                lines.log(line, chunk);
            }
            if let Some(last) = batch.last() {
                advance(request, last.seq);
            }
            false
        }
        LogItem::Gap {
            lines: count,
            next_after,
        } => {
            advance(request, *next_after);
            lines.gap(*count, chunk);
            true
        }
        LogItem::Passed { next_after } => {
            advance(request, *next_after);
            false
        }
        LogItem::CaughtUp => {
            // What comes now is not old, whatever the clock of its machine says.
            request.since_unix_ms = None;
            false
        }
        LogItem::Fetching { .. } | LogItem::Unfetched { .. } => false,
        LogItem::Lag {
            lines: count,
            milliseconds,
        } => {
            lines.lag(*count, *milliseconds, chunk);
            false
        }
    })
}

/// A line that was shown before a cut is not shown again.
fn is_new(line: &LogLine, request: &ReadLogs) -> bool {
    request.after.is_none_or(|after| line.seq > after)
}

fn advance(request: &mut ReadLogs, seq: u64) {
    request.after = Some(request.after.map_or(seq, |after| after.max(seq)));
    // The tail was counted from what existed when the first connection asked.
    request.tail = None;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;
    use dora_remote_protocol::{
        dataflow::DataflowRef,
        log_line::{LogSource, LogStream},
        packed::Packed,
    };

    fn line(seq: u64) -> LogLine {
        LogLine {
            seq,
            machine: "m".parse().expect("a name"),
            source: LogSource::Node("n".parse().expect("a node")),
            stream: LogStream::Stdout,
            level: None,
            at_unix_ms: 0,
            text: format!("line {seq}"),
        }
    }

    fn of_lines<const N: usize>(seqs: [u64; N]) -> LogItem {
        LogItem::Lines(Packed::of_lines(&seqs.map(line)))
    }

    #[test]
    fn after_a_cut_no_line_is_lost_or_shown_twice() {
        let mut lines = Lines::new(&Printer::new(Format::Table, true), std::iter::empty());
        let mut request = ReadLogs {
            tail: Some(5),
            follow: true,
            ..ReadLogs::of(DataflowRef::Name("a".to_owned()))
        };
        let mut out = String::new();
        let mut take = |item: &LogItem| take(item, &mut request, &mut lines, &mut out).expect("packed lines");
        assert!(!take(&of_lines([4, 5])));
        // What was sent again, and what is new.
        take(&of_lines([5, 6]));
        assert!(take(&LogItem::Gap { lines: 3, next_after: 9 }));
        take(&of_lines([10]));
        take(&LogItem::CaughtUp);
        let texts: Vec<_> = out.lines().filter_map(|line| line.split(" | ").nth(1)).collect();
        assert_eq!(texts, ["line 4", "line 5", "line 6", "line 10"]);
        assert_eq!((request.after, request.tail), (Some(10), None));
    }
}
