//! `status`: how the coordinator is, and who we are to it.

use super::Context;
use crate::{
    client::Session,
    exit::Exit,
    failure::Failure,
    output::{json::Status, progress::bytes, table::Table, time::relative},
};
use dora_remote_link::DialKind;
use dora_remote_protocol::{
    cli_to_coordinator::{GetStatus, ListMachines},
    limits::QUERY_DEADLINE,
    machine::MachineSummary,
};

/// What machines take of their disks, where it was measured.
fn disks(machines: &[MachineSummary]) -> Table {
    let mut table = Table::new(&["MACHINE", "LOGS", "ENDED", "BUNDLES", "STORE", "FREE"]);
    let of = |used, most| format!("{} of {}", bytes(used), bytes(most));
    for (machine, disk) in machines
        .iter()
        .filter_map(|machine| Some((&machine.name, machine.disk.as_ref()?)))
    {
        table.row(vec![
            machine.to_string(),
            of(disk.log_bytes, disk.log_bytes_max),
            of(disk.ended_bytes, disk.ended_bytes_max),
            bytes(disk.bundle_bytes),
            bytes(disk.store_bytes),
            format!("{}, {} kept free", bytes(disk.free_bytes), bytes(disk.free_bytes_min)),
        ]);
    }
    table
}

/// Shows the status.
///
/// # Errors
/// See [`crate::client::Session`].
pub async fn run(context: &Context) -> Result<Exit, Failure> {
    let asking = async |session: &Session| {
        let status = session.call("ask for the status", &GetStatus {}, QUERY_DEADLINE).await;
        let machines = session.call("list the machines", &ListMachines {}, QUERY_DEADLINE).await;
        Ok((
            status.map_err(Failure::looking)?,
            machines.map_err(Failure::looking)?,
            session.peer().await.rtt(),
            session.address().to_string(),
        ))
    };
    let (status, machines, rtt, address) = context.in_session(DialKind::Command, asking).await?;
    if context.printer.is_json() {
        context.printer.document(&Status::of(&status, &machines, address))?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["COORDINATOR", ""]);
    let now = status.now_unix_ms;
    let mut row = |key: &str, value: String| table.row(vec![key.to_owned(), value]);
    row("address", format!("{address} ({:.1} ms)", rtt.as_secs_f64() * 1000.0));
    row("identity", status.identity.clone());
    row("build", format!("{} (this program: {})", status.build, crate::BUILD));
    row("started", relative(status.started_unix_ms, now));
    row(
        "certificate",
        format!("ends {}", relative(status.certificate_ends_unix_ms, now)),
    );
    row(
        "machines",
        format!(
            "{} connected, {} unreachable",
            status.machines_connected, status.machines_unreachable
        ),
    );
    row(
        "dataflows",
        format!("{} live, {} ended", status.dataflows_live, status.dataflows_ended),
    );
    row(
        "logs",
        format!("{} of {}", bytes(status.log_bytes), bytes(status.log_bytes_max)),
    );
    row(
        "disk",
        format!(
            "{} free, {} kept free",
            bytes(status.free_bytes),
            bytes(status.free_bytes_min)
        ),
    );
    row("you are", status.asker);
    context.printer.table(&table)?;
    let disks = disks(&machines);
    if !disks.is_empty() {
        context.printer.table(&disks)?;
    }
    Ok(Exit::Ok)
}
