//! The flags of the verbs that run on servers and machines.

use clap::{Args, ValueEnum};
use dora_remote_protocol::{limits::MAX_LABEL_BYTES, name::MachineName};
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

/// Run a coordinator.
#[derive(Debug, Args)]
pub struct Coordinator {
    /// Where to listen, UDP [default: port 6013, IPv4 and IPv6]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Where it keeps what must outlive a restart [default: ~/.local/state/dora-remote/coordinator]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// An authority, by which it issues its own certificate; otherwise `--identity` names a certificate
    #[arg(long, value_name = "DIR", conflicts_with = "identity")]
    pub authority: Option<PathBuf>,
    /// A file with settings; flags win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How it logs to standard error
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// Run a daemon.
#[derive(Debug, Args)]
pub struct Daemon {
    /// Where it keeps what must outlive a restart [default: ~/.local/state/dora-remote/daemon]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Labels of the machine, which `deploy.labels` can ask for
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = key_value)]
    pub labels: Vec<(String, String)>,
    /// Variables of its environment that nodes may see, with `*` for any text; may be given several times
    #[arg(long, value_name = "PATTERN")]
    pub pass_env: Vec<String>,
    /// Read variables for every node from a file of NAME=VALUE lines
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
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
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let good = |part: &&str| !part.is_empty() && part.len() <= MAX_LABEL_BYTES;
    text.split_once('=')
        .filter(|(key, value)| good(key) && good(value))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected KEY=VALUE".to_owned())
}
