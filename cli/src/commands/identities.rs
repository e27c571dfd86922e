//! `certs show --all`: every identity that the coordinator has a record of, with the time to the end of its certificate.

use super::Context;
use crate::{
    args::CertsShow,
    asking::Asking,
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
    access::{IdentitySummary, ListIdentities},
    dataflow::Labels,
    limits::QUERY_DEADLINE,
};
use serde::Serialize;

/// Lists the identities.
///
/// # Errors
/// What the coordinator refuses, and all that can go wrong on the way.
pub async fn run(context: &Context, show: &CertsShow) -> Result<Exit, Failure> {
    let asking = async |asking: &Asking| {
        let identities = asking.call("list the identities", &ListIdentities {}, QUERY_DEADLINE).await;
        Ok((identities.map_err(Failure::looking)?, asking.now_unix_ms().await?))
    };
    let socket = show.locally.admin_socket.as_deref();
    let (identities, now) = context.asking(socket, DialKind::Command, asking).await?;
    let printer = &context.printer;
    if printer.is_json() {
        printer.document(&Document {
            schema: SCHEMA,
            identities: identities.iter().map(|summary| Row::of(summary, now)).collect(),
        })?;
    } else if identities.is_empty() {
        printer.note("nobody is on record; `dora-remote invite` invites somebody");
    } else {
        printer.table(&table(&identities, now))?;
    }
    Ok(Exit::Ok)
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    identities: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    identity: String,
    role: &'static str,
    name: &'a str,
    serial: &'a str,
    issued: String,
    certificate_ends: String,
    /// Negative once it has ended.
    seconds_left: i64,
    /// `ample`, `last-third`, `ended` or `revoked`.
    state: &'static str,
    seen: Option<String>,
    connections: u64,
    labels: &'a Labels,
    machines: &'a Labels,
    recoveries: u32,
    revoked: Option<Revoked<'a>>,
}

#[derive(Serialize)]
struct Revoked<'a> {
    at: String,
    by: &'a str,
    reason: &'a str,
}

impl<'a> Row<'a> {
    fn of(summary: &'a IdentitySummary, now: u64) -> Self {
        let signed = |ms: u64| i64::try_from(ms / 1000).unwrap_or(i64::MAX);
        Self {
            identity: summary.identity.to_string(),
            role: summary.identity.role.as_str(),
            name: summary.identity.name.as_str(),
            serial: &summary.serial,
            issued: rfc3339(summary.issued_unix_ms),
            certificate_ends: rfc3339(summary.not_after_unix_ms),
            seconds_left: signed(summary.not_after_unix_ms).saturating_sub(signed(now)),
            state: state(summary, now),
            seen: summary.seen_unix_ms.map(rfc3339),
            connections: summary.connections,
            labels: &summary.labels,
            machines: &summary.machines,
            recoveries: summary.recoveries,
            revoked: summary.revoked.as_ref().map(|revocation| Revoked {
                at: rfc3339(revocation.at_unix_ms),
                by: &revocation.by,
                reason: &revocation.reason,
            }),
        }
    }
}

/// How it stands with the certificate, in one word.
fn state(summary: &IdentitySummary, now: u64) -> &'static str {
    let (from, to) = (summary.issued_unix_ms, summary.not_after_unix_ms);
    if summary.revoked.is_some() {
        "revoked"
    } else if now > to {
        "ended"
    } else if to - now <= to.saturating_sub(from) / 3 {
        "last-third"
    } else {
        "ample"
    }
}

fn table(identities: &[IdentitySummary], now: u64) -> Table {
    let mut table = Table::new(&[
        "IDENTITY",
        "CERTIFICATE",
        "SEEN",
        "CONNECTIONS",
        "RECOVERIES",
        "LABELS",
        "LIMITED TO",
        "",
    ]);
    for summary in identities {
        let ends = relative(summary.not_after_unix_ms, now);
        let note = match (&summary.revoked, state(summary, now)) {
            (Some(revocation), _) => {
                let why = if revocation.reason.is_empty() {
                    String::new()
                } else {
                    format!(": {}", revocation.reason)
                };
                format!("revoked {} by {}{why}", relative(revocation.at_unix_ms, now), revocation.by)
            }
            (None, "last-third") => "was to be renewed by now".to_owned(),
            (None, _) => String::new(),
        };
        let seen = summary.seen_unix_ms;
        table.row(vec![
            format!("{}/{}", summary.identity.role, summary.identity.name),
            format!("{} {ends}", if summary.not_after_unix_ms < now { "ended" } else { "ends" }),
            seen.map_or_else(|| "never".to_owned(), |at| relative(at, now)),
            summary.connections.to_string(),
            summary.recoveries.to_string(),
            pairs(&summary.labels),
            pairs(&summary.machines),
            note,
        ]);
    }
    table
}

fn pairs(labels: &Labels) -> String {
    let pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dora_remote_protocol::access::{Revocation, RevokeTarget};

    #[test]
    fn the_last_third_an_end_and_a_revocation_are_told() {
        let mut summary = IdentitySummary {
            identity: "spiffe://lab/daemon/robot-7".parse().expect("good"),
            serial: "0a".to_owned(),
            not_after_unix_ms: 4_000_000,
            issued_unix_ms: 1_000_000,
            seen_unix_ms: None,
            connections: 0,
            labels: Labels::new(),
            machines: Labels::new(),
            recoveries: 0,
            revoked: None,
        };
        for (now, expected) in [
            (1_000_000, "ample"),
            (2_999_999, "ample"),
            (3_000_000, "last-third"),
            (4_000_000, "last-third"),
            (4_000_001, "ended"),
        ] {
            assert_eq!(state(&summary, now), expected, "at {now}");
        }
        assert_eq!(Row::of(&summary, 5_000_000).seconds_left, -1_000);
        summary.revoked = Some(Revocation {
            target: RevokeTarget::Serial("0a".to_owned()),
            at_unix_ms: 0,
            by: "ann".to_owned(),
            reason: String::new(),
        });
        assert_eq!(state(&summary, 1_000_000), "revoked");
    }
}
