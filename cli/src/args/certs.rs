//! The verbs and flags of `certs`.

use super::Locally;
use crate::output::time::parse_span;
use clap::{Args, Subcommand, ValueEnum};
use dora_remote_protocol::{
    identity::{Role, TrustDomain},
    name::Name,
};
use std::{path::PathBuf, time::Duration};

/// Make an authority, issue and show certificates.
#[derive(Debug, Subcommand)]
pub enum Certs {
    /// Make an authority and the certificate of a first admin
    #[command(after_help = "\
Examples:
  dora-remote certs init --out ./authority
  dora-remote certs init --trust-domain lab.example --out ./authority

Keep DIR/root.key offline. The admin's certificate lies in DIR/admin; move it to ~/.config/dora-remote/identity.")]
    Init(CertsInit),
    /// Issue a certificate
    #[command(after_help = "\
Examples:
  dora-remote certs issue --authority ./authority --role coordinator --name main --out ./coordinator
  dora-remote certs issue --authority ./authority --role daemon --name robot-7 --out ./robot-7
  dora-remote certs issue --authority ./authority --role viewer --name ci --life 1h --out ./ci

DIR then holds a private key: move it to where it is used, over a channel that you trust.")]
    Issue(CertsIssue),
    /// Make a new issuing certificate under the same root; needs root.key
    #[command(after_help = "\
Examples:
  dora-remote certs renew-issuing --authority ./authority

The issuing certificate lives for a year, and the coordinator warns from its last third on. Bring root.key back for this and take it
away again. Certificates that were issued before stay good to their end. A coordinator that runs takes the new one when it renews its
own certificate, or when it is started again.")]
    RenewIssuing(CertsRenewIssuing),
    /// Show what certificates say
    #[command(after_help = "\
Examples:
  dora-remote certs show ./robot-7
  dora-remote certs show ./authority/root.crt
  dora-remote certs show --all

With `--all` the coordinator is asked, which needs the role admin or its admin socket.")]
    Show(CertsShow),
}

/// Make an authority.
#[derive(Debug, Args)]
pub struct CertsInit {
    /// What all its certificates have in common: lower-case letters, digits, `.`, `-` and `_`
    #[arg(long, value_name = "DOMAIN", default_value = "dora")]
    pub trust_domain: TrustDomain,
    /// Name of the first admin
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub admin: Name,
    /// Where the authority is to be kept
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Issue a certificate.
#[derive(Debug, Args)]
pub struct CertsIssue {
    /// What its holder is
    #[arg(long, value_enum)]
    pub role: RoleArg,
    /// What its holder is called; for a daemon the name of its machine
    #[arg(long)]
    pub name: Name,
    /// Where the certificate and its key go
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Where the authority is kept [default: ~/.config/dora-remote/authority]
    #[arg(long, value_name = "DIR")]
    pub authority: Option<PathBuf>,
    /// How long it lives [default: 7d for a daemon, 30d for all others]
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    pub life: Option<Duration>,
    /// Replace the certificate that is there
    #[arg(long)]
    pub overwrite: bool,
}

/// Make a new issuing certificate.
#[derive(Debug, Args)]
pub struct CertsRenewIssuing {
    /// Where the authority is kept [default: ~/.config/dora-remote/authority]
    #[arg(long, value_name = "DIR")]
    pub authority: Option<PathBuf>,
}

/// Show what certificates say.
#[derive(Debug, Args)]
pub struct CertsShow {
    /// A PEM file, the directory of an identity or of an authority [default: your identity]
    #[arg(value_name = "FILE|DIR")]
    pub path: Option<PathBuf>,
    /// Every identity that the coordinator knows: when its certificate ends, when it was last seen, whether it is revoked
    #[arg(long, conflicts_with = "path")]
    pub all: bool,
    /// Which way to ask; stands for `--all` too.
    #[command(flatten)]
    pub locally: Locally,
}

impl CertsShow {
    /// Whether the coordinator is to be asked, and not files to be read.
    #[must_use]
    pub const fn asks(&self) -> bool {
        self.all || self.locally.admin_socket.is_some()
    }
}

/// A role on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// May do everything a person can do
    Admin,
    /// May start, stop and watch dataflows
    Operator,
    /// May look, and change nothing
    Viewer,
    /// The agent on a machine
    Daemon,
    /// The server that all others talk to
    Coordinator,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Admin => Self::Admin,
            RoleArg::Operator => Self::Operator,
            RoleArg::Viewer => Self::Viewer,
            RoleArg::Daemon => Self::Daemon,
            RoleArg::Coordinator => Self::Coordinator,
        }
    }
}
