//! `coordinator restore` and `coordinator accept-restore`: from a backup to a coordinator that is believed again.

use super::Context;
use crate::{
    args::{AcceptRestore, CoordinatorRestore},
    asking::Asking,
    exit::Exit,
    failure::Failure,
    output::{json::SCHEMA, progress, time::rfc3339},
};
use dora_remote_coordinator::{RestoreError, RestoreReport};
use dora_remote_link::DialKind;
use dora_remote_protocol::{access, limits::QUERY_DEADLINE, refusal::Changed};
use nix::unistd::geteuid;
use serde::Serialize;
use std::{fs, os::unix::fs::MetadataExt, path::Path, time::SystemTime};
use tokio::task::spawn_blocking;

#[derive(Serialize)]
struct Restored<'a> {
    schema: u32,
    state: String,
    coordinator: &'a str,
    build: &'a str,
    made: String,
    dataflows: u64,
    machines: u64,
    audit_entries: u64,
    audit_fault: Option<&'a str>,
    voided_invites: u64,
    kept_revocations: u64,
    former_unread: Option<&'a str>,
    former_files: Vec<String>,
}

/// Makes the state of a coordinator from a backup. No coordinator is asked.
///
/// # Errors
/// Exit code 1 when the backup is none, or a coordinator runs there.
pub async fn run(context: &Context, restore: &CoordinatorRestore) -> Result<Exit, Failure> {
    check_user(&restore.state)?;
    let (file, state) = (restore.file.clone(), restore.state.clone());
    let working = spawn_blocking(move || dora_remote_coordinator::restore(&file, &state, SystemTime::now()));
    let restoring = || format!("restoring {}", restore.state.display());
    let done = progress::showing(&context.printer, restoring, working).await;
    let report = done
        .map_err(|error| {
            Failure::new(Exit::Failed, "the restore broke off")
                .because(&error)
                .changed(Changed::Unknown)
        })?
        .map_err(|error| failed(&error))?;
    show(context, restore, &report)?;
    Ok(Exit::Ok)
}

fn show(context: &Context, restore: &CoordinatorRestore, report: &RestoreReport) -> Result<(), Failure> {
    let printer = &context.printer;
    let made = rfc3339(report.made_unix_ms);
    let state = restore.state.display().to_string();
    if printer.is_json() {
        printer.document(&Restored {
            schema: SCHEMA,
            state,
            coordinator: &report.coordinator,
            build: &report.build,
            made: made.clone(),
            dataflows: report.dataflows,
            machines: report.machines,
            audit_entries: report.audit_entries,
            audit_fault: report.audit_fault.as_deref(),
            voided_invites: report.voided_invites,
            kept_revocations: report.kept_revocations,
            former_unread: report.unread.as_deref(),
            former_files: report.aside.iter().map(|path| path.display().to_string()).collect(),
        })?;
    } else {
        printer.line(&state)?;
    }
    if let Some(fault) = &report.audit_fault {
        printer.warn(&format!("the audit of the backup is not whole: {fault}"));
    }
    if let Some(why) = &report.unread {
        printer.warn(&format!(
            "revocations that the former records alone knew could not be taken over: {why}; connected daemons bring back what they know"
        ));
    }
    printer.note(&format!(
        "restored the backup that {} made at {made}: {} dataflows, {} machines, {} audit entries; {} open invites are void, {} \
         revocations were kept from the former records",
        report.coordinator,
        report.dataflows,
        report.machines,
        report.audit_entries,
        report.voided_invites,
        report.kept_revocations
    ));
    for path in &report.aside {
        printer.note(&format!("the former records are in {}", path.display()));
    }
    printer.note(
        "next: start the coordinator, wait for the daemons, look at `dora-remote audit` and `certs show --all`, then `dora-remote \
         coordinator accept-restore`",
    );
    Ok(())
}

/// Files of another user than the one that the coordinator runs as would be out of its reach.
fn check_user(state: &Path) -> Result<(), Failure> {
    let (Ok(found), ours) = (fs::metadata(state), geteuid().as_raw()) else {
        return Ok(());
    };
    if found.uid() == ours {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{} belongs to user {}, and this is user {ours}",
        state.display(),
        found.uid()
    ))
    .hint(format!(
        "restore as the user that the coordinator runs as: `sudo -u '#{}' ...`",
        found.uid()
    ))
    .changed(Changed::Nothing))
}

fn failed(error: &RestoreError) -> Failure {
    let failure = Failure::new(Exit::Failed, "cannot restore the coordinator").because(error);
    match error {
        RestoreError::Replace { .. } => failure.changed(Changed::Partly),
        RestoreError::InUse { .. } => failure.hint("end the coordinator first").changed(Changed::Nothing),
        RestoreError::Archive { .. } | RestoreError::Disk { .. } | RestoreError::Records(_) | RestoreError::Unfinished { .. } => {
            failure.changed(Changed::Nothing)
        }
    }
}

#[derive(Serialize)]
struct Accepted<'a> {
    schema: u32,
    /// Why the coordinator took itself for restored; absent when it did not.
    restored: Option<&'a str>,
    voided_invites: u64,
}

/// Says that the state of a restored coordinator is right.
///
/// # Errors
/// Those of asking.
pub async fn accept(context: &Context, accept: &AcceptRestore) -> Result<Exit, Failure> {
    let socket = accept.locally.admin_socket.as_deref();
    let asking = async |asking: &Asking| {
        asking
            .call("accept the restored state", &access::AcceptRestore {}, QUERY_DEADLINE)
            .await
    };
    let accepted = context.asking(socket, DialKind::Command, asking).await?;
    let printer = &context.printer;
    if printer.is_json() {
        printer.document(&Accepted {
            schema: SCHEMA,
            restored: accepted.restored.as_deref(),
            voided_invites: accepted.voided_invites,
        })?;
        return Ok(Exit::Ok);
    }
    match &accepted.restored {
        None => printer.note("the coordinator did not take itself for restored; nothing was changed"),
        Some(why) => {
            printer.line("accepted")?;
            printer.note(&format!(
                "the coordinator took itself for restored ({why}) and had voided {} open invites; lapsed daemons recover again",
                accepted.voided_invites
            ));
        }
    }
    Ok(Exit::Ok)
}
