//! `machines`: daemons, their engines and how well they are heard.

use super::Context;
use crate::{
    client::Session,
    exit::Exit,
    failure::Failure,
    output::{
        json::{MachineList, SCHEMA},
        table::Table,
        time::relative,
    },
};
use dora_remote_link::DialKind;
use dora_remote_protocol::{
    cli_to_coordinator::ListMachines,
    limits::QUERY_DEADLINE,
    machine::{EngineStatus, MachineSummary, Reach},
};

/// How long a table says that a machine came back, in milliseconds; JSON always does.
pub(super) const RESTORED_MS: u64 = 3_600_000;

/// Lists machines.
///
/// # Errors
/// See [`crate::client::Session`].
pub async fn run(context: &Context) -> Result<Exit, Failure> {
    let asking = async |session: &Session| {
        let machines = session.call("list the machines", &ListMachines {}, QUERY_DEADLINE).await;
        Ok((machines.map_err(Failure::looking)?, session.now_unix_ms().await?))
    };
    let (machines, now) = context.in_session(DialKind::Command, asking).await?;
    let printer = &context.printer;
    if printer.is_json() {
        printer.document(&MachineList {
            schema: SCHEMA,
            machines: machines.iter().map(Into::into).collect(),
        })?;
    } else if machines.is_empty() {
        printer.note("no machines; `dora-remote daemon` on a machine adds it");
    } else {
        printer.table(&table(&machines, now))?;
    }
    for warning in machines.iter().flat_map(|machine| refused(machine, now)) {
        printer.note(&warning);
    }
    for warning in machines.iter().flat_map(unheard) {
        printer.note(&warning);
    }
    Ok(Exit::Ok)
}

/// One line about each other machine that came with the identity of this one: nobody looks for it in a table.
fn refused(machine: &MachineSummary, now: u64) -> impl Iterator<Item = String> {
    machine.quarantined.iter().map(move |twin| {
        format!(
            "another machine with the identity of `{}` was refused {} (instance {} from {}); give it an identity of its own",
            machine.name,
            relative(twin.at_unix_ms, now),
            twin.instance,
            twin.address
        )
    })
}

/// One line about each older engine of a machine that its daemon cannot talk with: its dataflows look well, and cannot be stopped.
fn unheard(machine: &MachineSummary) -> impl Iterator<Item = String> {
    machine.facts.engine.older().iter().filter_map(|engine| {
        let trouble = engine.trouble.as_ref()?;
        Some(format!(
            "an older engine of `{}` (process {}, dataflows: {}) goes on and cannot be reached: {trouble}",
            machine.name, engine.pid, engine.runs
        ))
    })
}

fn table(machines: &[MachineSummary], now: u64) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "STATE",
        "ENGINE",
        "DATAFLOWS",
        "RTT",
        "LOGS",
        "PLATFORM",
        "LABELS",
        "ADDRESS",
    ]);
    for machine in machines {
        let state = match machine.reach {
            Reach::Connected => match machine
                .restored
                .filter(|restored| restored.at_unix_ms.saturating_add(RESTORED_MS) > now)
            {
                Some(restored) => format!("connected, restored {}", relative(restored.at_unix_ms, now)),
                None => "connected".to_owned(),
            },
            Reach::Unreachable { since_unix_ms } => format!("unreachable since {}", relative(since_unix_ms, now)),
        };
        let engine = match &machine.facts.engine {
            EngineStatus::Starting => "starting".to_owned(),
            EngineStatus::Up { dora_version, older, .. } if older.is_empty() => format!("dora {dora_version}"),
            EngineStatus::Up { dora_version, older, .. } => format!("dora {dora_version}, {} older", older.len()),
            EngineStatus::Down { reason } => format!("down: {reason}"),
        };
        let labels: Vec<_> = machine
            .facts
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        table.row(vec![
            machine.name.to_string(),
            state,
            engine,
            machine.dataflows.len().to_string(),
            machine
                .rtt_us
                .map_or_else(String::new, |us| format!("{:.1} ms", us as f64 / 1000.0)),
            machine.facts.logs.as_str().to_owned(),
            machine.facts.platform.clone(),
            labels.join(","),
            machine.address.clone(),
        ]);
    }
    table
}
