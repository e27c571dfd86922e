//! `invite list` and `invite revoke`: what became of the invites, and the end of those that are open.

use crate::{
    args::{InviteList, InviteRevoke},
    asking::Asking,
    commands::Context,
    exit::Exit,
    failure::Failure,
    output::{
        json::SCHEMA,
        table::Table,
        time::{relative, rfc3339},
    },
};
use dora_remote_link::DialKind;
use dora_remote_protocol::{
    access::{InviteState, InviteSummary, ListInvites, RevokeInvite},
    dataflow::Labels,
    limits::QUERY_DEADLINE,
};
use serde::Serialize;

/// Lists the invites.
pub(super) async fn tell(context: &Context, list: &InviteList) -> Result<Exit, Failure> {
    let asking = async |asking: &Asking| {
        let invites = asking.call("list the invites", &ListInvites {}, QUERY_DEADLINE).await;
        Ok((invites.map_err(Failure::looking)?, asking.now_unix_ms().await?))
    };
    let socket = list.locally.admin_socket.as_deref();
    let (invites, now) = context.asking(socket, DialKind::Command, asking).await?;
    if invites.is_empty() && !context.printer.is_json() {
        context
            .printer
            .note("no invites; `dora-remote invite --role ROLE --name NAME` makes one");
    } else {
        show_all(context, &invites, now)?;
    }
    Ok(Exit::Ok)
}

/// Takes back open invites.
pub(super) async fn take_back(context: &Context, revoke: &InviteRevoke) -> Result<Exit, Failure> {
    let request = RevokeInvite {
        which: revoke.which.clone(),
    };
    let asking = async |asking: &Asking| {
        let what = format!("take back the invite `{}`", request.which);
        Ok((
            asking.call(&what, &request, QUERY_DEADLINE).await?,
            asking.now_unix_ms().await?,
        ))
    };
    let socket = revoke.locally.admin_socket.as_deref();
    let (invites, now) = context.asking(socket, DialKind::Command, asking).await?;
    show_all(context, &invites, now)?;
    if !context.printer.is_json() {
        context.printer.note("nobody can use it any more");
    }
    Ok(Exit::Ok)
}

#[derive(Serialize)]
struct List<'a> {
    schema: u32,
    invites: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    identity: String,
    state: &'static str,
    made: String,
    by: &'a str,
    expires: String,
    labels: &'a Labels,
    machines: &'a Labels,
    /// When it was used or revoked.
    at: Option<String>,
    /// Address that the joiner came from.
    from: Option<&'a str>,
    /// Serial of the certificate that was issued.
    serial: Option<&'a str>,
    /// Who took it back.
    revoked_by: Option<&'a str>,
}

impl<'a> From<&'a InviteSummary> for Row<'a> {
    fn from(invite: &'a InviteSummary) -> Self {
        let mut row = Self {
            id: &invite.id,
            identity: invite.identity.to_string(),
            state: "open",
            made: rfc3339(invite.made_unix_ms),
            by: &invite.by,
            expires: rfc3339(invite.expires_unix_ms),
            labels: &invite.labels,
            machines: &invite.machines,
            at: None,
            from: None,
            serial: None,
            revoked_by: None,
        };
        match &invite.state {
            InviteState::Open => {}
            InviteState::Expired => row.state = "expired",
            InviteState::Used {
                at_unix_ms,
                from,
                serial,
            } => {
                row.state = "used";
                row.at = Some(rfc3339(*at_unix_ms));
                row.from = Some(from);
                row.serial = Some(serial);
            }
            InviteState::Revoked { at_unix_ms, by } => {
                row.state = "revoked";
                row.at = Some(rfc3339(*at_unix_ms));
                row.revoked_by = Some(by);
            }
        }
        row
    }
}

fn show_all(context: &Context, invites: &[InviteSummary], now: u64) -> Result<(), Failure> {
    let printer = &context.printer;
    if printer.is_json() {
        printer.document(&List {
            schema: SCHEMA,
            invites: invites.iter().map(Row::from).collect(),
        })?;
        return Ok(());
    }
    let mut table = Table::new(&["ID", "FOR", "STATE", "MADE", "BY", "LABELS"]);
    for invite in invites {
        let state = match &invite.state {
            InviteState::Open => format!("open, ends {}", relative(invite.expires_unix_ms, now)),
            InviteState::Expired => format!("ended {}", relative(invite.expires_unix_ms, now)),
            InviteState::Used { at_unix_ms, from, .. } => format!("used {} from {from}", relative(*at_unix_ms, now)),
            InviteState::Revoked { at_unix_ms, by } => format!("taken back {} by {by}", relative(*at_unix_ms, now)),
        };
        let labels = invite.labels.iter().chain(&invite.machines);
        table.row(vec![
            invite.id.clone(),
            format!("{}/{}", invite.identity.role, invite.identity.name),
            state,
            relative(invite.made_unix_ms, now),
            invite.by.clone(),
            labels
                .map(|(key, value)| format!("{key}={value}"))
                .collect::<Vec<_>>()
                .join(","),
        ]);
    }
    printer.table(&table)?;
    Ok(())
}
