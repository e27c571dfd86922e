//! `join`: uses an invite. The key is made here and stays here; what is asked for is a certificate for it.
//!
//! The coordinator is verified by the hash of its root, which the token holds, before it learns anything. The new certificate
//! is tried before it is saved. The key is on the disk before it is asked with, so that asking again is always right.

mod dial;
mod place;
mod token;

use super::{
    Context,
    invite::{hex, id_of},
};
use crate::{
    args::Join,
    exit::Exit,
    failure::Failure,
    output::{
        json::SCHEMA,
        time::{relative, rfc3339, unix_ms},
    },
};
use dora_remote_certs::{
    CertError, Clock, Credentials, FloorClock, JoinCredentials, SystemClock, forget_pending, pending_request,
};
use dora_remote_link::Address;
use dora_remote_protocol::{identity::Role, invite::InviteToken, name::Name, refusal::Changed};
use place::Place;
use serde::Serialize;
use std::{sync::Arc, time::SystemTime};

/// Joins, and writes down identity and context.
///
/// # Errors
/// Exit code 2 for a token that is none, 3 for a file that is not there, 4 for an invite that cannot be used any more, 5 for a
/// coordinator that does not answer, 6 for a coordinator that is another one and for clocks that are wrong.
pub async fn run(context: &Context, join: &Join) -> Result<Exit, Failure> {
    let token = token::read(context, join.token.as_deref()).await?;
    let credentials = JoinCredentials::of(token.seed())
        .map_err(|error| Failure::new(Exit::Failed, "cannot use the key of the invite").because(&error))?;
    let id = id_of(&credentials.join_key());
    let place = Place::find(join, &token, &id)?;
    tell(context, &token);
    if let Some(joined) = place.joined() {
        context.printer.note(&format!(
            "this invite was used here before: {} has what came of it",
            place.dir().display()
        ));
        return finish(context, &place, &joined, None);
    }
    let clock = clock(&token);
    let request = pending_request(place.dir(), &id, &token.identity()).map_err(|error| unwritable(&place, &error))?;
    let way = dial::Way {
        token: &token,
        clock: &clock,
        printer: &context.printer,
    };
    let answer = way.ask(credentials, request.der()).await.inspect_err(|failure| {
        if failure.exit == Exit::Denied {
            place.leave(&id);
        }
    })?;
    let chain = answer.issued.chain.into_iter().map(Into::into).collect();
    let fresh = request.into_credentials(chain, answer.root.into()).map_err(|error| {
        Failure::of_certificates("use what the coordinator has issued", &error)
            .hint("nothing was saved; the two sides may be of different builds")
    })?;
    way.prove(&fresh, &answer.address).await?;
    place.save(&fresh, &id).map_err(|error| unwritable(&place, &error))?;
    if let Err(error) = forget_pending(place.dir(), &id) {
        // It is of no use to anybody by now.
        context
            .printer
            .warn(&format!("a key that is not needed any more stays: {error}"));
    }
    finish(context, &place, &fresh, Some(&answer.address))
}

/// A board without a clock of its own judges by the time of the build, and takes a coordinator's word for what is later; at a
/// laptop somebody sits who can set the clock.
fn clock(token: &InviteToken) -> Arc<dyn Clock> {
    let floor = FloorClock::new(Arc::new(SystemClock), crate::build_time(), None);
    match token.role() {
        Role::Daemon => Arc::new(floor.unattended()),
        Role::Admin | Role::Operator | Role::Viewer | Role::Coordinator => Arc::new(floor),
    }
}

/// What a person can compare with what the one who invites has seen.
fn tell(context: &Context, token: &InviteToken) {
    let printer = &context.printer;
    printer.note(&format!(
        "joining trust domain {} as {}",
        token.trust_domain(),
        token.identity()
    ));
    printer.note(&format!("root SHA-256 {}", hex(token.root_hash())));
}

fn unwritable(place: &Place, error: &CertError) -> Failure {
    let failure = Failure::of_certificates(&format!("keep an identity in {}", place.dir().display()), error);
    match error {
        CertError::TooOpen { .. } => failure,
        _ => failure.hint("name another directory with `--out DIR`; the same invite can be used again from this machine"),
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    identity: String,
    trust_domain: String,
    root_sha256: String,
    /// Where the certificate, the key and the root lie.
    directory: String,
    certificate_ends: String,
    context: Option<&'a Name>,
    /// Whether that context is the current one.
    current: bool,
    coordinator: Option<String>,
}

/// Writes the context and tells what was done.
fn finish(context: &Context, place: &Place, credentials: &Credentials, address: Option<&Address>) -> Result<Exit, Failure> {
    let written = place.write_context(address).map_err(|failure| {
        let dir = place.dir().display();
        failure
            .hint(format!(
                "the identity is saved in {dir}; run the same command again, or `dora-remote context add NAME --identity {dir} \
                 --coordinator-addr HOST[:PORT]`"
            ))
            .changed(Changed::Partly)
    })?;
    let (printer, facts) = (&context.printer, credentials.certificate());
    let ends = unix_ms(facts.not_after);
    if printer.is_json() {
        printer.document(&Document {
            schema: SCHEMA,
            identity: facts.identity.to_string(),
            trust_domain: facts.identity.trust_domain.to_string(),
            root_sha256: credentials.root_fingerprint(),
            directory: place.dir().display().to_string(),
            certificate_ends: rfc3339(ends),
            context: written.as_ref().map(|written| &written.name),
            current: written.as_ref().is_some_and(|written| written.is_current),
            coordinator: written.as_ref().map(|written| written.coordinator.to_string()),
        })?;
        return Ok(Exit::Ok);
    }
    printer.line(&place.dir().display().to_string())?;
    printer.note(&format!(
        "joined as {}; the certificate ends {} and is renewed in time",
        facts.identity,
        relative(ends, unix_ms(SystemTime::now()))
    ));
    if let Some(written) = &written {
        let name = &written.name;
        printer.note(&if written.is_current {
            format!("context `{name}`: coordinator {}; it is the current one", written.coordinator)
        } else {
            format!(
                "context `{name}`: coordinator {}; `dora-remote context use {name}` makes it the current one",
                written.coordinator
            )
        });
    }
    printer.note(match facts.identity.role {
        Role::Daemon => "next: `dora-remote daemon` runs the daemon of this machine",
        Role::Admin | Role::Operator | Role::Viewer | Role::Coordinator => "next: `dora-remote status` shows the coordinator",
    });
    Ok(Exit::Ok)
}
