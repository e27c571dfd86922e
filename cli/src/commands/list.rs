//! `list`: dataflows and their states.

use super::{Context, dataflows, machines::RESTORED_MS};
use crate::{
    args::List,
    client::Session,
    exit::Exit,
    failure::Failure,
    output::{
        Format,
        json::{DataflowList, SCHEMA},
        table::Table,
        time::relative,
    },
};
use dora_remote_link::DialKind;
use dora_remote_protocol::dataflow::DataflowSummary;
use std::collections::BTreeSet;

/// Characters of the reason of a failure that a table shows.
const NOTE_CHARS: usize = 100;

/// Lists dataflows.
///
/// # Errors
/// See [`crate::client::Session`].
pub async fn run(context: &Context, list: &List) -> Result<Exit, Failure> {
    let asking = async |session: &Session| Ok((dataflows(session).await?, session.now_unix_ms().await?));
    let (dataflows, now) = context.in_session(DialKind::Command, asking).await?;
    let printer = &context.printer;
    if printer.is_json() || list.short_format == Some(Format::Json) {
        printer.document(&DataflowList {
            schema: SCHEMA,
            dataflows: dataflows.iter().map(Into::into).collect(),
        })?;
    } else if printer.is_quiet() {
        for dataflow in &dataflows {
            printer.line(&dataflow.id.to_string())?;
        }
    } else if dataflows.is_empty() {
        printer.note("no dataflows; `dora-remote start PATH` starts one");
    } else {
        printer.table(&table(&dataflows, now))?;
    }
    Ok(Exit::Ok)
}

/// The reason of a failure as far as a line of a table has room for it; JSON has all of it.
fn shortened(note: &str) -> String {
    let note = note.lines().next().unwrap_or_default();
    match note.char_indices().nth(NOTE_CHARS) {
        Some((end, _)) => format!("{}...", &note[..end]),
        None => note.to_owned(),
    }
}

fn table(dataflows: &[DataflowSummary], now: u64) -> Table {
    let mut table = Table::new(&["NAME", "STATE", "NODES", "MACHINES", "STARTED", "ID", ""]);
    for dataflow in dataflows {
        let machines: BTreeSet<_> = dataflow.nodes.iter().map(|node| node.machine.as_str()).collect();
        let mut reach: Vec<_> = dataflow
            .unreachable
            .iter()
            .map(|(machine, since)| format!("{machine} unreachable since {}", relative(*since, now)))
            .collect();
        let restored = dataflow
            .restored
            .iter()
            .filter(|(_, back)| back.at_unix_ms.saturating_add(RESTORED_MS) > now);
        reach.extend(restored.map(|(machine, back)| format!("{machine} restored {}", relative(back.at_unix_ms, now))));
        table.row(vec![
            dataflow.name.to_string(),
            dataflow.state.as_str().to_owned(),
            dataflow.nodes.len().to_string(),
            machines.into_iter().collect::<Vec<_>>().join(","),
            relative(dataflow.created_unix_ms, now),
            dataflow.id.to_string(),
            match &dataflow.result {
                Some(result) if !result.success => shortened(&result.note),
                _ => reach.join(", "),
            },
        ]);
    }
    table
}
