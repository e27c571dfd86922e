//! The flags of the verbs that run on servers and machines.

use super::{Locally, access::key_value, size::parse_size};
use crate::rights;
use clap::{Args, Subcommand, ValueEnum};
use dora_remote_protocol::{identity::TrustDomain, machine::LogShipping, name::MachineName};
use std::{net::SocketAddr, path::PathBuf};

/// End what `up` has started.
#[derive(Debug, Args)]
pub struct Down {
    /// Kill nodes at once
    #[arg(long)]
    pub force: bool,
    /// Do not ask; on a terminal you are asked first when dataflows are running
    #[arg(long)]
    pub yes: bool,
}

/// How a server logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    #[default]
    Human,
    /// One JSON object per line
    Json,
}

/// When a daemon sends log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ShipLogs {
    /// As they are written
    #[default]
    Always,
    /// While somebody reads them
    OnDemand,
}

impl From<ShipLogs> for LogShipping {
    fn from(when: ShipLogs) -> Self {
        match when {
            ShipLogs::Always => Self::Always,
            ShipLogs::OnDemand => Self::OnDemand,
        }
    }
}

/// Run a coordinator, or take care of one.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Coordinator {
    /// What else to do than to run it.
    #[command(subcommand)]
    pub verb: Option<CoordinatorVerb>,
    /// How to run it.
    #[command(flatten)]
    pub run: CoordinatorRun,
}

/// What can be done with a coordinator beside running it.
#[derive(Debug, Subcommand)]
pub enum CoordinatorVerb {
    /// Save all that a coordinator must not forget, but its keys, into one file
    #[command(after_help = rights::help("coordinator backup", "\
Examples:
  dora-remote coordinator backup --out coordinator.backup
  dora-remote coordinator backup --out - | ssh elsewhere 'cat > coordinator.backup'

Works from an admin's laptop and, without an identity, on the coordinator's host. Private keys are not in the file: keep the folder
of the authority as well.
"))]
    Backup(CoordinatorBackup),
    /// Make the state of a coordinator from a file that `backup` has saved; the coordinator must not run
    #[command(after_help = "\
Examples:
  sudo -H -u dora-remote-coordinator dora-remote coordinator restore coordinator.backup --state /var/lib/dora-remote-coordinator

The coordinator then finds out from its daemons that time has passed: what was revoked since stays revoked, open invites are void, and
no lapsed daemon recovers until `dora-remote coordinator accept-restore`.
")]
    Restore(CoordinatorRestore),
    /// Say that the state of a restored coordinator is right, so that lapsed daemons recover again
    #[command(after_help = rights::help("coordinator accept-restore", "\
Examples:
  dora-remote coordinator accept-restore
"))]
    AcceptRestore(AcceptRestore),
    /// Write the files of a systemd service that runs a coordinator, as a user of its own
    #[command(after_help = "\
Examples:
  dora-remote coordinator install --print
  sudo dora-remote coordinator install --trust-domain lab.example --advertise robots.example.com

Nothing is started: the commands for that are printed.
")]
    Install(CoordinatorInstall),
}

/// Save all that a coordinator must not forget.
#[derive(Debug, Args)]
pub struct CoordinatorBackup {
    /// Where to: a file that does not exist yet, or `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Replace the file that is there
    #[arg(long)]
    pub overwrite: bool,
    /// Where to ask.
    #[command(flatten)]
    pub locally: Locally,
}

/// Say that the state of a restored coordinator is right.
#[derive(Debug, Args)]
pub struct AcceptRestore {
    /// Where to ask.
    #[command(flatten)]
    pub locally: Locally,
}

/// Make the state of a coordinator from a backup.
#[derive(Debug, Args)]
pub struct CoordinatorRestore {
    /// The file that `coordinator backup` has saved
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The state directory of the coordinator; records that are there are kept under another name
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
}

/// Write the files of the coordinator's service.
#[derive(Debug, Args)]
pub struct CoordinatorInstall {
    /// What to do with the files.
    #[command(flatten)]
    pub install: Install,
    /// Make an authority of this trust domain at the first start, unless there is one
    #[arg(long, value_name = "DOMAIN")]
    pub trust_domain: Option<TrustDomain>,
    /// An address that invites name; may be given several times
    #[arg(long, value_name = "HOST[:PORT]")]
    pub advertise: Vec<String>,
    /// Where to listen, UDP [default: port 6013, IPv4 and IPv6]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// A file with settings, which the user of the service must be able to read
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Write the files of a service.
#[derive(Debug, Args)]
pub struct Install {
    /// Write nothing: show the files
    #[arg(long, conflicts_with = "root")]
    pub print: bool,
    /// Write below this directory instead of `/`, for packages and images
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// The program that the service runs [default: this one]
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
}

/// How to run a coordinator.
#[derive(Debug, Args)]
pub struct CoordinatorRun {
    /// Where to listen, UDP [default: port 6013, IPv4 and IPv6]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Where it keeps what must outlive a restart [default: ~/.local/state/dora-remote/coordinator]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// An authority, by which it issues certificates, its own among them; otherwise `--identity` names a certificate
    /// [default: `authority` in the state directory, where it is there or made]
    #[arg(long, value_name = "DIR", conflicts_with = "identity")]
    pub authority: Option<PathBuf>,
    /// Make an authority of this trust domain at the first start, unless there is one
    #[arg(long, value_name = "DOMAIN", conflicts_with = "identity")]
    pub trust_domain: Option<TrustDomain>,
    /// An address that invites name, such as the one that robots reach this host at; may be given several times
    #[arg(long, value_name = "HOST[:PORT]")]
    pub advertise: Vec<String>,
    /// A file with settings; flags win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How it logs to standard error
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// Run a daemon, or install it as a service.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Daemon {
    /// What else to do than to run it.
    #[command(subcommand)]
    pub verb: Option<DaemonVerb>,
    /// How to run it.
    #[command(flatten)]
    pub run: DaemonRun,
}

/// What can be done with a daemon beside running it.
#[derive(Debug, Subcommand)]
pub enum DaemonVerb {
    /// Write the files of a systemd service that runs the daemon of this machine, as a user of its own
    #[command(after_help = "\
Examples:
  dora-remote daemon install --print
  sudo dora-remote daemon install --labels gpu=true --policy /etc/dora-remote/policy.toml --group video

Nothing is started: the commands for that are printed.
")]
    Install(DaemonInstall),
}

/// Write the files of the daemon's service.
#[derive(Debug, Args)]
pub struct DaemonInstall {
    /// What to do with the files.
    #[command(flatten)]
    pub install: Install,
    /// What may be started on this machine: a file that the user of the service must be able to read
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// What the machine is and does.
    #[command(flatten)]
    pub machine: MachineFlags,
    /// A group that nodes need, such as `video` or `dialout`; may be given several times
    #[arg(long, value_name = "GROUP")]
    pub group: Vec<String>,
}

/// What a machine is and does, whether its daemon is run or installed.
#[derive(Debug, Args)]
pub struct MachineFlags {
    /// Labels of the machine, which `deploy.labels` can ask for
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = key_value)]
    pub labels: Vec<(String, String)>,
    /// Variables of its environment that nodes may see, with `*` for any text; may be given several times
    #[arg(long, value_name = "PATTERN")]
    pub pass_env: Vec<String>,
    /// Read variables for every node from a file of NAME=VALUE lines
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// When log lines of nodes are sent: as they are written, or, for metered links, while somebody reads them
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub logs: ShipLogs,
}

/// How to run a daemon.
#[derive(Debug, Args)]
pub struct DaemonRun {
    /// Where it keeps what must outlive a restart [default: ~/.local/state/dora-remote/daemon]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// What may be started on this machine, and by whom; everything when absent
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// What the machine is and does.
    #[command(flatten)]
    pub machine: MachineFlags,
    /// What the log files of one node may take, unless its `max_log_size` says otherwise
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    pub max_node_logs: u64,
    /// What the log files of all nodes may take until they are shipped
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = parse_size)]
    pub max_logs: u64,
    /// What dataflows that have ended may leave behind
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = parse_size)]
    pub max_ended: u64,
    /// What of the disk is kept free [default: 1GiB, or 5 % of a smaller disk]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub min_free: Option<u64>,
    /// How it logs to standard error
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// Run an engine.
#[derive(Debug, Args)]
pub struct Engine {
    /// Its directory
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// The machine whose nodes it runs
    #[arg(long, value_name = "NAME")]
    pub machine: MachineName,
    /// A label of the machine; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    pub labels: Vec<(String, String)>,
    /// Bytes that the log files of one node may have together
    #[arg(long, value_name = "BYTES")]
    pub node_log_bytes: u64,
}
