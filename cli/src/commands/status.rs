//! `status`: how the coordinator is, and who we are to it.

use super::Context;
use crate::{
    client::Session,
    exit::Exit,
    failure::Failure,
    output::{json::Status, progress::bytes, table::Table, time::relative},
};
use dora_remote_link::DialKind;
use dora_remote_protocol::{cli_to_coordinator::GetStatus, limits::QUERY_DEADLINE};

/// Shows the status.
///
/// # Errors
/// See [`crate::client::Session`].
pub async fn run(context: &Context) -> Result<Exit, Failure> {
    let asking = async |session: &Session| {
        let status = session.call("ask for the status", &GetStatus {}, QUERY_DEADLINE).await;
        Ok((
            status.map_err(Failure::looking)?,
            session.peer().await.rtt(),
            session.address().to_string(),
        ))
    };
    let (status, rtt, address) = context.in_session(DialKind::Command, asking).await?;
    if context.printer.is_json() {
        context.printer.document(&Status::of(&status, address))?;
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
    row("you are", status.asker);
    context.printer.table(&table)?;
    Ok(Exit::Ok)
}
