//! `can-i`: what the role in one's certificate allows, by the table that coordinators check by. No coordinator is asked.

use super::Context;
use crate::{
    args::CanI,
    client::{load_identity_in, warn_of_end},
    exit::Exit,
    failure::Failure,
    output::{json::SCHEMA, table::Table, time::span},
    places::process_env,
    rights::{INVITED, Needs, VERBS, any_of, requests_without_verb},
    target,
};
use dora_remote_certs::{LifeLeft, lives_left};
use dora_remote_protocol::identity::{Identity, Role};
use serde::Serialize;
use std::time::SystemTime;

/// Answers for one verb, with [`Exit::Denied`] for a no, or for all of them.
///
/// # Errors
/// A failure with exit code 6 for an identity that cannot be used, 2 for a verb that does not exist.
pub fn run(context: &Context, can_i: &CanI) -> Result<Exit, Failure> {
    let verb = (!can_i.verb.is_empty()).then(|| can_i.verb.join(" "));
    let needs = verb.as_deref().map(needs_of).transpose()?;
    let dir = target::identity(&context.given, &process_env)?;
    let credentials = load_identity_in(&dir)?;
    warn_of_end(&credentials, &context.printer);
    if let LifeLeft::Ended(ago) = lives_left(credentials.certificate(), SystemTime::now()) {
        let ago = span(ago);
        context.printer.warn(&format!(
            "your certificate ended {ago} ago; until it is renewed, a coordinator allows you nothing"
        ));
    }
    let you = credentials.identity();
    match needs {
        Some(needs) => answer(context, you, needs),
        None => list(context, you),
    }
}

/// The needs of a verb, or of a request that no verb makes.
fn needs_of(verb: &str) -> Result<Needs, Failure> {
    Needs::of(verb)
        .or_else(|| requests_without_verb().into_iter().find(|request| request.verb == verb))
        .ok_or_else(|| Failure::usage(format!("there is no verb `{verb}`")).hint("`dora-remote can-i --list` shows all of them"))
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    identity: String,
    role: &'static str,
    verbs: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    verb: &'a str,
    allowed: bool,
    /// Empty for a verb that asks no coordinator, which anybody may use, and for one that needs an invite.
    roles: Vec<&'static str>,
    /// Whether it is for the holder of an invite, whatever the role.
    invite: bool,
    /// Whether the admin socket on the coordinator's host allows it without a role.
    local: bool,
    requests: &'a [&'static str],
}

impl Row<'_> {
    fn of(needs: &Needs, role: Role) -> Self {
        let roles = if needs.needs_role() { needs.roles() } else { Vec::new() };
        Self {
            verb: needs.verb,
            allowed: needs.allow(role),
            roles: roles.into_iter().map(Role::as_str).collect(),
            invite: needs.is_for_invited(),
            local: needs.is_local(),
            requests: needs.requests,
        }
    }
}

fn answer(context: &Context, you: &Identity, needs: Needs) -> Result<Exit, Failure> {
    let (printer, allowed) = (&context.printer, needs.allow(you.role));
    if printer.is_json() {
        printer.document(&Document {
            schema: SCHEMA,
            identity: you.to_string(),
            role: you.role.as_str(),
            verbs: vec![Row::of(&needs, you.role)],
        })?;
    } else {
        printer.line(if allowed { "yes" } else { "no" })?;
        let roles = needs.roles();
        printer.note(&if needs.is_for_invited() {
            format!("`{}` is for {INVITED}, whatever the role; you are {you}", needs.verb)
        } else if needs.needs_role() {
            format!("`{}` needs the role {}; you are {you}", needs.verb, any_of(&roles))
        } else {
            format!("`{}` needs no role; you are {you}", needs.verb)
        });
    }
    Ok(if allowed { Exit::Ok } else { Exit::Denied })
}

fn list(context: &Context, you: &Identity) -> Result<Exit, Failure> {
    let printer = &context.printer;
    let others = requests_without_verb();
    let all = VERBS.iter().chain(&others);
    if printer.is_json() {
        printer.document(&Document {
            schema: SCHEMA,
            identity: you.to_string(),
            role: you.role.as_str(),
            verbs: all.map(|needs| Row::of(needs, you.role)).collect(),
        })?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["VERB", "YOU", "ROLES", "REQUESTS"]);
    for needs in all {
        let row = Row::of(needs, you.role);
        table.row(vec![
            row.verb.to_owned(),
            if row.allowed { "yes" } else { "no" }.to_owned(),
            if row.invite {
                INVITED.to_owned()
            } else if row.roles.is_empty() {
                "any".to_owned()
            } else {
                row.roles.join(", ")
            },
            row.requests.join(", "),
        ]);
    }
    printer.table(&table)?;
    printer.note(&format!("you are {you}"));
    Ok(Exit::Ok)
}
