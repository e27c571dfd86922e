//! Every verb, every flag and its help text; nothing is decided here.

mod access;
mod audit;
mod certs;
mod contexts;
mod dataflows;
mod level;
#[cfg(feature = "server")]
mod servers;
mod size;

pub use access::{Invite, InviteList, InviteRevoke, InviteRole, InviteVerb, Invites, Join, Locally, Revoke};
pub use audit::Audit;
pub use certs::{Certs, CertsInit, CertsIssue, CertsRenewIssuing, CertsShow, RoleArg};
pub use contexts::{ContextAdd, ContextRemove, ContextRename, ContextShow, ContextUse, Contexts};
pub use dataflows::{List, Logs, Start, Stop};
pub use level::{Level, Levels};
#[cfg(feature = "server")]
pub use servers::{
    AcceptRestore, Coordinator, CoordinatorBackup, CoordinatorInstall, CoordinatorRestore, CoordinatorRun, CoordinatorVerb,
    Daemon, DaemonInstall, DaemonRun, DaemonVerb, Down, Engine, Install, LogFormat, MachineFlags, ShipLogs,
};

use crate::{exit, output::Format, rights};
use clap::{ArgAction, Args, Parser, Subcommand};
use dora_remote_link::endpoint::MTU_RANGE;
use dora_remote_protocol::name::Name;
use std::path::PathBuf;

/// Start, watch and stop Dora dataflows on machines elsewhere, over QUIC with mutual TLS.
#[derive(Debug, Parser)]
#[command(
    name = "dora-remote",
    version,
    max_term_width = 110,
    after_help = exit::TABLE,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Flags of every verb.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every verb.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The coordinator: DNS name, IPv4 or IPv6, with a port unless it is 6013 [env: DORA_REMOTE_ADDR, DORA_COORDINATOR_ADDR]
    #[arg(long, global = true, value_name = "HOST[:PORT]")]
    pub coordinator_addr: Option<String>,
    /// The port of the coordinator, where the address names none [env: DORA_COORDINATOR_PORT]
    #[arg(long, global = true, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub coordinator_port: Option<u16>,
    /// The context to use: coordinator, identity and default machine under one name [env: DORA_REMOTE_CONTEXT] [default: the current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<Name>,
    /// Directory with your certificate, key and root [env: DORA_REMOTE_IDENTITY] [default: ~/.config/dora-remote/identity]
    #[arg(long, global = true, value_name = "DIR")]
    pub identity: Option<PathBuf>,
    /// For people or for programs: one JSON document, or JSON Lines where something is followed
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    pub format: Format,
    /// Say nothing but data and failures
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Log what happens to standard error; twice for more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Largest datagrams in bytes, where finding that out does not work
    #[arg(long, global = true, env = "DORA_REMOTE_MTU", value_name = "BYTES", hide = true, value_parser = mtu)]
    pub mtu: Option<u16>,
    /// Hand each datagram to the kernel by itself, where a driver fails at cutting up larger pieces
    #[arg(long, global = true, env = "DORA_REMOTE_SINGLE_DATAGRAMS", hide = true)]
    pub single_datagrams: bool,
}

fn mtu(text: &str) -> Result<u16, String> {
    let (least, most) = MTU_RANGE.into_inner();
    let bytes = text.parse().ok().filter(|bytes| MTU_RANGE.contains(bytes));
    bytes.ok_or_else(|| format!("a number of bytes from {least} to {most}"))
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a dataflow and follow it
    #[command(after_help = rights::help("start", "\
Examples:
  dora-remote start dataflow.yml
  dora-remote start dataflow.yml --detach --name arm --machine robot-7
  dora-remote start dataflow.yml --coordinator-addr robots.example.com --env SEED=42 --env-file secrets.env

The folder of the file travels along: everything that git does not ignore, and the files that nodes name.
The first Ctrl-C asks for a stop and waits for its end, the second one leaves."))]
    Start(Start),
    /// Stop a dataflow
    #[command(after_help = rights::help("stop", "\
Examples:
  dora-remote stop arm
  dora-remote stop --all --grace-duration 2s
  dora-remote stop 019f2c41-7d52-7cc8-a9a2-0f3c1e2b4d5e --force
"))]
    Stop(Stop),
    /// List dataflows
    #[command(
        visible_alias = "ps",
        after_help = rights::help("list", "\
Examples:
  dora-remote list
  dora-remote list --format json
  dora-remote ps -q
")
    )]
    List(List),
    /// Show log lines of a dataflow
    #[command(after_help = rights::help("logs", "\
Examples:
  dora-remote logs arm --follow
  dora-remote logs arm --node camera --tail 100
  dora-remote logs arm --since 10m --level warn
  dora-remote logs arm --grep timeout --tail 20
  dora-remote logs arm --format json
"))]
    Logs(Logs),
    /// List machines
    #[command(after_help = rights::help("machines", "\
Examples:
  dora-remote machines
  dora-remote machines --format json
"))]
    Machines,
    /// Show how the coordinator is, and who you are to it
    #[command(after_help = rights::help("status", "\
Examples:
  dora-remote status
  dora-remote status --coordinator-addr 192.0.2.7:6013
"))]
    Status,
    /// Show who did what and when, and check that nobody has changed that
    #[command(after_help = rights::help("audit", "\
Examples:
  dora-remote audit --since 2h
  dora-remote audit --who ann --verb stop --format json
  dora-remote audit --follow
  dora-remote audit --verify

Works from an admin's laptop and, without an identity, on the coordinator's host."))]
    Audit(Audit),
    /// Invite a machine or a person: prints the one command to paste there
    #[command(after_help = rights::help("invite", "\
Examples:
  dora-remote invite --role daemon --name robot-7 --labels team=arm,gpu=yes
  dora-remote invite --role operator --name ann --machines team=arm --expires 12h
  dora-remote invite list
  dora-remote invite revoke robot-7

Whoever has the token may use it, once and until it expires. Works from an admin's laptop and, without an identity, on the
coordinator's host."))]
    Invite(Invites),
    /// Use an invite: get an identity of your own, and a context with it
    #[command(after_help = rights::help("join", "\
Examples:
  dora-remote join dri1-... && dora-remote daemon
  dora-remote join token.txt --context-name lab --use
  ssh admin@server dora-remote invite --role viewer --name ann --token-only | dora-remote join

The key is made here and never leaves this machine. Trying again after a lost answer is safe."))]
    Join(Join),
    /// Shut a machine or a person out for good; its connections are closed
    #[command(after_help = rights::help("revoke", "\
Examples:
  dora-remote revoke robot-7 --reason stolen
  dora-remote revoke operator/ann
  dora-remote revoke 3f:aa:09:c1:77:be:10:02:91:5d:e4:6a:b0:cc:12:f8 --yes

Works from an admin's laptop and, without an identity, on the coordinator's host."))]
    Revoke(Revoke),
    /// Make an authority, issue and show certificates
    #[command(subcommand)]
    Certs(Certs),
    /// Keep coordinators, identities and default machines under names
    #[command(subcommand)]
    Context(Contexts),
    /// Tell whether your role may use a verb; asks no coordinator
    #[command(after_help = rights::help("can-i", "\
Examples:
  dora-remote can-i stop
  dora-remote can-i invite list
  dora-remote can-i --list
  dora-remote can-i start --identity ./ci --quiet

Prints yes or no, and exits with 0 or 4. The role is the one in your certificate; a coordinator may allow less.
"))]
    CanI(CanI),
    /// Start coordinator, daemon and engine on this machine, with an authority of their own
    #[cfg(feature = "server")]
    #[command(after_help = rights::help("up", "\
Examples:
  dora-remote up
  dora-remote start dataflow.yml
"))]
    Up,
    /// End what `up` has started
    #[cfg(feature = "server")]
    #[command(after_help = rights::help("down", "\
Examples:
  dora-remote down
  dora-remote down --force
"))]
    Down(Down),
    /// Run a coordinator, save and restore its state, install it as a service
    #[cfg(feature = "server")]
    #[command(after_help = rights::help("coordinator", "\
Examples:
  dora-remote coordinator --trust-domain lab.example --advertise robots.example.com
  dora-remote coordinator --authority ./authority
  dora-remote coordinator --identity ./coordinator --listen 0.0.0.0:6013 --log-format json
"))]
    Coordinator(Coordinator),
    /// Run the daemon of a machine, whose name is the one in its certificate, or install it as a service
    #[cfg(feature = "server")]
    #[command(after_help = rights::help("daemon", "\
Examples:
  dora-remote daemon --coordinator-addr robots.example.com --identity ./robot-7
  dora-remote daemon --labels gpu=true,arm=left --pass-env 'ROS_*' --pass-env DISPLAY --env-file ros.env
"))]
    Daemon(Daemon),
    /// Run the engine of a machine; the daemon starts it
    #[cfg(feature = "server")]
    #[command(hide = true)]
    Engine(Engine),
}

/// Tell whether your role may use a verb.
#[derive(Debug, Args)]
pub struct CanI {
    /// The verb, as it is typed: one word or two
    #[arg(value_name = "VERB", required_unless_present = "list", conflicts_with = "list")]
    pub verb: Vec<String>,
    /// Every verb, the roles that may use it, and the requests that it makes
    #[arg(long)]
    pub list: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_stand_before_or_behind_the_verb() {
        for line in [
            ["dora-remote", "--coordinator-addr", "h", "list"],
            ["dora-remote", "list", "--coordinator-addr", "h"],
        ] {
            let cli = Cli::try_parse_from(line).expect("good");
            assert_eq!(cli.global.coordinator_addr.as_deref(), Some("h"));
        }
    }

    #[test]
    fn attach_and_detach_exclude_each_other_and_so_do_grace_and_force() {
        for line in [
            &["dora-remote", "start", "x", "--attach", "--detach"][..],
            &["dora-remote", "stop", "x", "--force", "--grace-duration", "1s"],
            &["dora-remote", "stop", "x", "--all"],
            &["dora-remote", "start", "x", "--working-dir", "relative"],
        ] {
            assert!(Cli::try_parse_from(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn ps_is_list() {
        let cli = Cli::try_parse_from(["dora-remote", "ps"]).expect("good");
        assert!(matches!(cli.command, Command::List(_)));
    }
}
