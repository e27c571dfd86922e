//! The verbs and flags about who may come in: `invite`, `join`, `revoke`.

use crate::output::time::parse_span;
use clap::{Args, Subcommand, ValueEnum};
use dora_remote_link::Address;
use dora_remote_protocol::{access::RevokeTarget, identity::Role, limits::MAX_LABEL_BYTES, name::Name};
use std::{path::PathBuf, time::Duration};

/// The flag of the verbs that also go through the admin socket of the coordinator on this host.
#[derive(Clone, Debug, Default, Args)]
pub struct Locally {
    /// Ask the coordinator of this host through its admin socket, which needs no certificate [env: DORA_REMOTE_ADMIN_SOCKET]
    #[arg(long, value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
}

/// Invite somebody, and see to the invites that there are.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Invites {
    /// What else to do with invites.
    #[command(subcommand)]
    pub verb: Option<InviteVerb>,
    /// A new invite.
    #[command(flatten)]
    pub new: Invite,
}

/// What else to do with invites.
#[derive(Debug, Subcommand)]
pub enum InviteVerb {
    /// List the open invites, and what became of those of the last day
    #[command(after_help = "\
Examples:
  dora-remote invite list
  dora-remote invite list --format json")]
    List(InviteList),
    /// Take back open invites
    #[command(after_help = "\
Examples:
  dora-remote invite revoke robot-7
  dora-remote invite revoke 5f1d3c2ab09e4477")]
    Revoke(InviteRevoke),
}

/// A new invite.
#[derive(Debug, Args)]
pub struct Invite {
    /// What the joiner becomes
    #[arg(long, value_enum, required = true)]
    pub role: Option<InviteRole>,
    /// What it is called from then on; for a daemon the name of its machine
    #[arg(long, required = true)]
    pub name: Option<Name>,
    /// Labels of the machine, which `deploy.labels` and limits of operators ask for; they win over the machine's own
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = key_value)]
    pub labels: Vec<(String, String)>,
    /// Limit an operator to the machines that have all of these labels
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = key_value)]
    pub machines: Vec<(String, String)>,
    /// How long the invite can be used
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_span)]
    pub expires: Duration,
    /// How long each certificate of the joiner lives; it is renewed in time [default: 7d for a daemon, 30d for people]
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    pub life: Option<Duration>,
    /// Let the joiner take the place of the one who has that name now
    #[arg(long)]
    pub replace: bool,
    /// Where the joiner finds the coordinator; may be given several times [default: what the coordinator says, else the address that is used here]
    #[arg(long = "address", value_name = "HOST[:PORT]")]
    pub addresses: Vec<Address>,
    /// Print the token alone and not the command to paste; `--quiet` does the same
    #[arg(long)]
    pub token_only: bool,
    /// Which way to ask.
    #[command(flatten)]
    pub locally: Locally,
}

/// List invites.
#[derive(Debug, Args)]
pub struct InviteList {
    /// Which way to ask.
    #[command(flatten)]
    pub locally: Locally,
}

/// Take back open invites.
#[derive(Debug, Args)]
pub struct InviteRevoke {
    /// The name of the invited, or the id of the invite
    #[arg(value_name = "NAME|ID")]
    pub which: String,
    /// Which way to ask.
    #[command(flatten)]
    pub locally: Locally,
}

/// A role that one can be invited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InviteRole {
    /// May do everything a person can do
    Admin,
    /// May start, stop and watch dataflows
    Operator,
    /// May look, and change nothing
    Viewer,
    /// The agent on a machine
    Daemon,
}

impl From<InviteRole> for Role {
    fn from(role: InviteRole) -> Self {
        match role {
            InviteRole::Admin => Self::Admin,
            InviteRole::Operator => Self::Operator,
            InviteRole::Viewer => Self::Viewer,
            InviteRole::Daemon => Self::Daemon,
        }
    }
}

/// Use an invite.
#[derive(Debug, Args)]
pub struct Join {
    /// The token, a file with it, or `-` for standard input (the default): other users see what is typed here, so prefer a file
    #[arg(value_name = "TOKEN|FILE")]
    pub token: Option<String>,
    /// Where the identity goes [default: ~/.config/dora-remote/identities/TRUST-DOMAIN-ROLE-NAME]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// What to call the context [default: the trust domain for people, the name of the machine for a daemon]
    #[arg(long, value_name = "NAME", conflicts_with = "no_context")]
    pub context_name: Option<Name>,
    /// Write no context
    #[arg(long)]
    pub no_context: bool,
    /// Make the context the current one; without this it becomes so when there is none
    #[arg(long = "use", conflicts_with = "no_context")]
    pub make_current: bool,
    /// Replace an identity or a context that is there
    #[arg(long)]
    pub overwrite: bool,
}

/// Shut somebody out for good.
#[derive(Debug, Args)]
pub struct Revoke {
    /// A name, or the serial number of a certificate in hex; that of an issuing certificate shuts out all it has signed
    #[arg(value_name = "NAME|ROLE/NAME|SERIAL", value_parser = revoke_target)]
    pub target: RevokeTarget,
    /// Why, for the audit and for those who are shut out
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Which way to ask.
    #[command(flatten)]
    pub locally: Locally,
}

/// Fewest digits of what is taken for a serial number rather than for a name; serial numbers have 32, or a few less.
const SERIAL_DIGITS: usize = 16;

/// Tells names and serial numbers apart: a name that looks like a serial number needs its role.
fn revoke_target(text: &str) -> Result<RevokeTarget, String> {
    if let Some((role, name)) = text.split_once('/') {
        return Ok(RevokeTarget::Holder {
            role: Some(role.parse().map_err(|error| format!("{error}"))?),
            name: name.parse().map_err(|error| format!("{error}"))?,
        });
    }
    let digits = text.bytes().filter(|byte| *byte != b':');
    let is_serial = digits.clone().all(|byte| byte.is_ascii_hexdigit()) && digits.count() >= SERIAL_DIGITS;
    if is_serial {
        return Ok(RevokeTarget::Serial(text.replace(':', "").to_ascii_lowercase()));
    }
    let name = text.parse().map_err(|error| format!("{error}"))?;
    Ok(RevokeTarget::Holder { role: None, name })
}

/// Reads a label: `KEY=VALUE`.
pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    let good = |part: &&str| !part.is_empty() && part.len() <= MAX_LABEL_BYTES;
    text.split_once('=')
        .filter(|(key, value)| good(key) && good(value))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected KEY=VALUE".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn parsed(line: &[&str]) -> Result<Command, clap::Error> {
        let line = ["dora-remote"].iter().chain(line);
        Cli::try_parse_from(line).map(|cli| cli.command)
    }

    #[test]
    fn an_invite_needs_role_and_name_and_the_other_verbs_need_neither() {
        let line = [
            "invite",
            "--role",
            "daemon",
            "--name",
            "robot-7",
            "--labels",
            "gpu=yes,arm=left",
        ];
        let Ok(Command::Invite(Invites { verb: None, new })) = parsed(&line) else {
            panic!("a good line")
        };
        assert_eq!(new.labels.len(), 2);
        assert_eq!(new.expires, Duration::from_secs(3600));
        assert!(parsed(&["invite", "--role", "daemon"]).is_err());
        assert!(parsed(&["invite", "--role", "coordinator", "--name", "x"]).is_err());
        assert!(parsed(&["invite", "--name", "x", "list"]).is_err());
        assert!(matches!(
            parsed(&["invite", "list"]),
            Ok(Command::Invite(Invites {
                verb: Some(InviteVerb::List(_)),
                ..
            }))
        ));
        assert!(parsed(&["invite", "revoke"]).is_err());
    }

    #[test]
    fn names_and_serial_numbers_are_told_apart() {
        let holder = |role, name: &str| RevokeTarget::Holder {
            role,
            name: name.parse().expect("a name"),
        };
        assert_eq!(revoke_target("robot-7"), Ok(holder(None, "robot-7")));
        assert_eq!(revoke_target("daemon/robot-7"), Ok(holder(Some(Role::Daemon), "robot-7")));
        assert_eq!(revoke_target("cafe"), Ok(holder(None, "cafe")));
        let serial = RevokeTarget::Serial("00ff00ff00ff00ff".to_owned());
        assert_eq!(revoke_target("00FF00FF00FF00FF"), Ok(serial.clone()));
        assert_eq!(revoke_target("00:FF:00:FF:00:FF:00:FF"), Ok(serial));
        assert_eq!(
            revoke_target("daemon/00ff00ff00ff00ff"),
            Ok(holder(Some(Role::Daemon), "00ff00ff00ff00ff"))
        );
        for bad in ["", "x/y", "daemon/", "a b", "daemon/a/b"] {
            assert!(revoke_target(bad).is_err(), "{bad}");
        }
    }
}
