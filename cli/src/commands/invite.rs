//! `invite`: makes the one command that is to be pasted on another machine, and sees to the invites that there are.
//!
//! The seed of an invite is made here and travels in the token alone; the coordinator is told its public half.

mod list;

use super::Context;
use crate::{
    args::{Invite, InviteVerb, Invites},
    asking::Asking,
    exit::Exit,
    failure::Failure,
    output::{
        json::SCHEMA,
        time::{rfc3339, span},
    },
};
use dora_remote_certs::{CertError, JoinCredentials, JoinKey, new_seed, sha256};
use dora_remote_link::{Address, DialKind};
use dora_remote_protocol::{
    access::{CreateInvite, InviteCreated, RevokeInvite},
    dataflow::Labels,
    identity::Role,
    invite::{InviteSeed, InviteToken},
    limits::QUERY_DEADLINE,
    refusal::Changed,
};
use serde::Serialize;
use std::{fmt::Write, net::IpAddr, time::Duration};

/// Carries out one of the verbs.
///
/// # Errors
/// What the coordinator refuses, and all that can go wrong on the way; a usage failure for flags that do not suit the role, and
/// where no address is known at which the joiner finds the coordinator.
pub async fn run(context: &Context, invites: &Invites) -> Result<Exit, Failure> {
    match &invites.verb {
        None => make(context, &invites.new).await,
        Some(InviteVerb::List(wanted)) => list::tell(context, wanted).await,
        Some(InviteVerb::Revoke(wanted)) => list::take_back(context, wanted).await,
    }
}

/// The name of an invite: the first 16 hex digits of the SHA-256 of its public key.
pub(super) fn id_of(key: &JoinKey) -> String {
    hex(&sha256(&key.0)[..8])
}

/// Bytes as people compare them.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What came of a new invite.
struct Made {
    token: InviteToken,
    id: String,
    /// Whether none of the addresses can be reached from another machine.
    is_loopback_only: bool,
}

async fn make(context: &Context, invite: &Invite) -> Result<Exit, Failure> {
    let seed = new_seed().map_err(|error| no_key(&error))?;
    let key = JoinCredentials::of(&seed).map_err(|error| no_key(&error))?.join_key();
    let request = request(invite, &key)?;
    let asking = async |asking: &Asking| {
        let what = format!("invite {}/{}", request.role, request.name);
        let created = asking.call(&what, &request, QUERY_DEADLINE).await?;
        let id = id_of(&key);
        match token(invite, asking, &created, seed) {
            Ok((token, is_loopback_only)) => Ok(Made {
                token,
                id,
                is_loopback_only,
            }),
            // Nobody will ever hold that token, so the name must not stay taken.
            Err(failure) => Err(match withdraw(asking, &id).await {
                Ok(()) => failure.changed(Changed::Nothing),
                Err(_) => failure.cause(format!("the invite {id} stays open and cannot be used by anybody")),
            }),
        }
    };
    let socket = invite.locally.admin_socket.as_deref();
    let made = context.asking(socket, DialKind::Command, asking).await?;
    show(context, invite, &made)?;
    Ok(Exit::Ok)
}

fn no_key(error: &CertError) -> Failure {
    Failure::new(Exit::Failed, "cannot make the key of an invite").because(error)
}

fn request(invite: &Invite, key: &JoinKey) -> Result<CreateInvite, Failure> {
    let (Some(role), Some(name)) = (invite.role, &invite.name) else {
        return Err(Failure::usage("an invite needs `--role` and `--name`"));
    };
    let role = Role::from(role);
    if role != Role::Daemon && !invite.labels.is_empty() {
        return Err(Failure::usage("only machines have labels").hint("leave `--labels` out, or use `--role daemon`"));
    }
    if role != Role::Operator && !invite.machines.is_empty() {
        return Err(Failure::usage("only operators can be limited to some machines")
            .hint("leave `--machines` out, or use `--role operator`"));
    }
    let milliseconds = |life: Duration| u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
    Ok(CreateInvite {
        role,
        name: name.clone(),
        labels: labels(&invite.labels),
        machines: labels(&invite.machines),
        join_key: key.0,
        life_ms: milliseconds(invite.expires),
        certificate_life_ms: invite.life.map(milliseconds),
        replace: invite.replace,
    })
}

fn labels(given: &[(String, String)]) -> Labels {
    given.iter().cloned().collect()
}

/// The token, and whether it leads nowhere from another machine.
fn token(invite: &Invite, asking: &Asking, created: &InviteCreated, seed: InviteSeed) -> Result<(InviteToken, bool), Failure> {
    let used = match asking {
        Asking::Remote(session) => Some(session.address()),
        Asking::Local(..) => None,
    };
    let addresses = addresses(&invite.addresses, &created.addresses, used);
    if addresses.is_empty() {
        return Err(Failure::usage("it is not known where the joiner finds this coordinator")
            .hint("use `--address HOST[:PORT]`, or start the coordinator with `--advertise HOST[:PORT]`"));
    }
    let is_loopback_only = addresses.iter().all(|address| is_loopback(address));
    let token = InviteToken::new(
        created.identity.clone(),
        addresses,
        created.root_hash,
        seed,
        created.expires_unix_ms,
    );
    let token = token.map_err(|error| Failure::usage("cannot make a token").because(&error).hint("see `--address`"))?;
    Ok((token, is_loopback_only))
}

/// What is typed, else what the coordinator says, else the address that is used here.
fn addresses(typed: &[Address], said: &[String], used: Option<&Address>) -> Vec<String> {
    if !typed.is_empty() {
        return typed.iter().map(ToString::to_string).collect();
    }
    if !said.is_empty() {
        return said.to_vec();
    }
    used.into_iter().map(ToString::to_string).collect()
}

fn is_loopback(address: &str) -> bool {
    address.parse().is_ok_and(|address: Address| {
        let ip: Result<IpAddr, _> = address.host.parse();
        ip.map_or_else(|_| address.host.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback())
    })
}

async fn withdraw(asking: &Asking, id: &str) -> Result<(), Failure> {
    let request = RevokeInvite { which: id.to_owned() };
    asking.call("take the invite back", &request, QUERY_DEADLINE).await.map(drop)
}

/// The line to paste where the invite is to be used.
fn command(token: &InviteToken) -> String {
    match token.role() {
        Role::Daemon => format!("dora-remote join {token} && dora-remote daemon"),
        Role::Admin | Role::Operator | Role::Viewer | Role::Coordinator => format!("dora-remote join {token}"),
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    /// Secret: whoever has it may join.
    token: String,
    command: String,
    identity: String,
    id: &'a str,
    trust_domain: String,
    root_sha256: String,
    addresses: &'a [String],
    expires: String,
}

fn show(context: &Context, invite: &Invite, made: &Made) -> Result<(), Failure> {
    let (printer, token) = (&context.printer, &made.token);
    let expires = token.expires_unix_ms();
    if made.is_loopback_only {
        printer.warn(&format!(
            "the invite names {}, which leads nowhere from another machine; `--address HOST[:PORT]` names another address",
            token.addresses().join(", ")
        ));
    }
    if printer.is_json() {
        printer.document(&Document {
            schema: SCHEMA,
            token: token.to_string(),
            command: command(token),
            identity: token.identity().to_string(),
            id: &made.id,
            trust_domain: token.trust_domain().to_string(),
            root_sha256: hex(token.root_hash()),
            addresses: token.addresses(),
            expires: rfc3339(expires),
        })?;
        return Ok(());
    }
    printer.note(&format!(
        "invite {} for {}, to be used once and within {} ({})",
        made.id,
        token.identity(),
        span(invite.expires),
        rfc3339(expires)
    ));
    printer.note(&format!(
        "trust domain {}, root SHA-256 {}",
        token.trust_domain(),
        hex(token.root_hash())
    ));
    if invite.token_only || printer.is_quiet() {
        printer.line(&token.to_string())?;
        return Ok(());
    }
    printer.note("whoever has the token may use it; paste this where it is meant for:");
    printer.line(&command(token))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().expect("an address")
    }

    #[test]
    fn the_joiner_is_sent_where_somebody_said_and_else_where_this_command_went() {
        let (typed, said, used) = ([address("a"), address("[::1]:7")], ["b:1".to_owned()], address("c"));
        assert_eq!(addresses(&typed, &said, Some(&used)), ["a:6013", "[::1]:7"]);
        assert_eq!(addresses(&[], &said, Some(&used)), ["b:1"]);
        assert_eq!(addresses(&[], &[], Some(&used)), ["c:6013"]);
        assert!(addresses(&[], &[], None).is_empty());
    }

    #[test]
    fn loopback_addresses_are_known() {
        for text in ["127.0.0.1:6013", "[::1]:7", "localhost:1", "LOCALHOST"] {
            assert!(is_loopback(text), "{text}");
        }
        for text in ["192.0.2.7:6013", "robots.example.com:6013", "[2001:db8::7]:1"] {
            assert!(!is_loopback(text), "{text}");
        }
    }

    #[test]
    fn a_daemon_is_started_by_the_same_line_and_people_just_join() {
        for (role, end) in [(Role::Daemon, " && dora-remote daemon"), (Role::Viewer, "")] {
            let identity = format!("spiffe://lab/{role}/x").parse().expect("an identity");
            let token = InviteToken::new(identity, vec!["h:1".to_owned()], [1; 32], InviteSeed([2; 32]), 3).expect("good");
            assert_eq!(command(&token), format!("dora-remote join {token}{end}"));
        }
    }
}
