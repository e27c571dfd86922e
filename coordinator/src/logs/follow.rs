//! One reader of log lines: the past, then what comes, without gap or double. It waits for its own stream alone, and is told when it
//! falls behind.

use super::hub::Hub;
use dora_remote_link::{FeedSink, Gone};
use dora_remote_logstore::{Filter, Since};
use dora_remote_protocol::{
    cli_to_coordinator::ReadLogs,
    ids::DataflowId,
    limits::MAX_GREP_BYTES,
    log_line::LogItem,
    refusal::{Refusal, RefusalCode},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Sends what was asked for. Ends when all was sent, for a follower when nothing more is waited for.
pub(crate) async fn serve(
    hub: &Hub,
    dataflow: DataflowId,
    request: &ReadLogs,
    sink: &FeedSink<LogItem>,
    shutdown: &CancellationToken,
) -> Result<(), Refusal> {
    // Taken before the first look at the store, so that nothing is missed between the look and the wait.
    let mut progress = hub.progress(dataflow);
    let last_at_open = hub.last_seq(dataflow).await?;
    let filter = Arc::new(filter(request, last_at_open)?);
    let mut cursor = request.after.unwrap_or(0);
    if let Some(lines) = request.tail {
        cursor = cursor.max(hub.tail_cursor(dataflow, lines, &filter).await?);
    }
    let mut out = Out {
        sink,
        told: request.after.unwrap_or(0),
        next_word: Instant::now(),
    };
    let mut is_caught_up = !request.follow;
    loop {
        let is_complete = progress
            .as_mut()
            .is_none_or(|progress| progress.borrow_and_update().is_complete);
        let page = hub.read(dataflow, cursor, &filter).await?;
        cursor = page.next_after;
        let catches_up = !is_caught_up && cursor >= last_at_open;
        let behind = if request.follow && is_caught_up && !page.at_end {
            hub.behind(dataflow, cursor).filter(|behind| behind.is_worth_telling())
        } else {
            None
        };
        let sent = async {
            for item in page.items {
                out.send(item).await?;
            }
            if catches_up {
                out.pass(cursor).await?;
                out.sink.send(LogItem::CaughtUp).await?;
            } else if (behind.is_some() || cursor > out.told) && out.is_time() {
                out.pass(cursor).await?;
                if let Some(behind) = behind {
                    let milliseconds = u64::try_from(behind.span.as_millis()).unwrap_or(u64::MAX);
                    let lines = behind.lines;
                    out.sink.send(LogItem::Lag { lines, milliseconds }).await?;
                }
            }
            Ok::<(), Gone>(())
        };
        if sent.await.is_err() {
            return Ok(());
        }
        is_caught_up |= catches_up;
        if !page.at_end {
            continue;
        }
        if !request.follow || is_complete {
            return Ok(());
        }
        let Some(progress) = progress.as_mut() else {
            return Ok(());
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                return Err(Refusal::new(
                    RefusalCode::ShuttingDown,
                    "the coordinator is ending",
                ));
            }
            () = sink.gone() => return Ok(()),
            changed = progress.changed() => {
                // The dataflow was forgotten: nothing more will come.
                if changed.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// What was asked for, where lines up to `last_at_open` exist.
fn filter(request: &ReadLogs, last_at_open: u64) -> Result<Filter, Refusal> {
    let grep = request.grep.as_deref().unwrap_or("");
    if grep.len() > MAX_GREP_BYTES {
        return Err(Refusal::new(
            RefusalCode::BadRequest,
            format!(
                "a text to search for has at most {MAX_GREP_BYTES} bytes, and this one has {}",
                grep.len()
            ),
        ));
    }
    let mut filter = Filter::nodes(request.nodes.iter().cloned()).containing(grep);
    filter.since = request.since_unix_ms.map(|at_unix_ms| Since {
        at_unix_ms,
        to_seq: last_at_open,
    });
    filter.until_unix_ms = request.until_unix_ms;
    filter.level = request.level;
    filter.machine_level = request.machine_level;
    Ok(filter)
}

/// The way to the reader, and how far it was told to be.
struct Out<'a> {
    sink: &'a FeedSink<LogItem>,
    /// Where the reader would go on after a cut.
    told: u64,
    /// When it may be told of something besides lines.
    next_word: Instant,
}

impl Out<'_> {
    async fn send(&mut self, item: LogItem) -> Result<(), Gone> {
        match &item {
            LogItem::Lines(lines) => self.told = lines.last,
            LogItem::Gap { next_after, .. } | LogItem::Passed { next_after } => self.told = *next_after,
            LogItem::CaughtUp | LogItem::Lag { .. } | LogItem::Fetching { .. } | LogItem::Unfetched { .. } => {}
        }
        self.sink.send(item).await
    }

    /// Tells a reader how far it is that was sent nothing of late, because nothing was wanted: so that it does not go through all of
    /// that again after a cut, nor hear of a gap where it missed nothing.
    async fn pass(&mut self, cursor: u64) -> Result<(), Gone> {
        if cursor > self.told {
            self.send(LogItem::Passed { next_after: cursor }).await?;
        }
        Ok(())
    }

    fn is_time(&mut self) -> bool {
        let now = Instant::now();
        let is_time = now >= self.next_word;
        if is_time {
            self.next_word = now + WORD;
        }
        is_time
    }
}

/// Shortest time between two words about how far a reader is. The first may come at once.
const WORD: Duration = Duration::from_secs(10);
