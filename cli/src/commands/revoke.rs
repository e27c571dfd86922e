//! `revoke`: shuts a machine, a person or a certificate out for good.

use super::{Context, confirm};
use crate::{
    args::Revoke,
    asking::Asking,
    exit::Exit,
    failure::Failure,
    output::{json::SCHEMA, time::rfc3339},
};
use dora_remote_link::DialKind;
use dora_remote_protocol::{
    access::{MAX_REASON_BYTES, Revoke as Request, RevokeTarget, Revoked},
    identity::Role,
    limits::QUERY_DEADLINE,
};
use serde::Serialize;

/// Shuts out whom or what is named, after a question on a terminal.
///
/// # Errors
/// What the coordinator refuses, and all that can go wrong on the way; a failure that says that nothing was changed when the
/// question is not answered with yes.
pub async fn run(context: &Context, revoke: &Revoke) -> Result<Exit, Failure> {
    if revoke.reason.len() > MAX_REASON_BYTES {
        return Err(Failure::usage(format!("the reason has more than {MAX_REASON_BYTES} bytes")));
    }
    let target = &revoke.target;
    let (warning, word) = match target {
        RevokeTarget::Holder { name, .. } => (
            format!("this shuts {target} out for good: its connections are closed, and nobody can ever have that name again"),
            name.to_string(),
        ),
        RevokeTarget::Serial(serial) => (
            format!("this shuts out the certificate with serial {serial} for good, and all that it has signed"),
            serial.clone(),
        ),
    };
    let request = Request {
        target: target.clone(),
        reason: revoke.reason.clone(),
    };
    let asking = async |asking: &Asking| {
        confirm::that(context, &warning, &word, revoke.yes).await?;
        asking.call(&format!("revoke {target}"), &request, QUERY_DEADLINE).await
    };
    let socket = revoke.locally.admin_socket.as_deref();
    let revoked = context.asking(socket, DialKind::Follow, asking).await?;
    show(context, &revoked)?;
    Ok(Exit::Ok)
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    role: Option<&'static str>,
    name: Option<&'a str>,
    serial: Option<&'a str>,
    reason: &'a str,
    by: &'a str,
    at: String,
    /// False when it had been revoked before.
    new: bool,
    connections_closed: u64,
}

fn show(context: &Context, revoked: &Revoked) -> Result<(), Failure> {
    let (printer, revocation) = (&context.printer, &revoked.revocation);
    if printer.is_json() {
        let (role, name, serial) = match &revocation.target {
            RevokeTarget::Holder { role, name } => (role.map(Role::as_str), Some(name.as_str()), None),
            RevokeTarget::Serial(serial) => (None, None, Some(serial.as_str())),
        };
        printer.document(&Document {
            schema: SCHEMA,
            role,
            name,
            serial,
            reason: &revocation.reason,
            by: &revocation.by,
            at: rfc3339(revocation.at_unix_ms),
            new: revoked.is_new,
            connections_closed: revoked.closed,
        })?;
        return Ok(());
    }
    printer.line(&revocation.target.to_string())?;
    if revoked.is_new {
        printer.note(&format!("{} is revoked", revocation.target));
    } else {
        let at = rfc3339(revocation.at_unix_ms);
        printer.note(&format!(
            "{} was revoked before, at {at} by {}",
            revocation.target, revocation.by
        ));
    }
    printer.note(&match revoked.closed {
        0 => "it had no connection".to_owned(),
        1 => "1 connection was closed".to_owned(),
        many => format!("{many} connections were closed"),
    });
    Ok(())
}
