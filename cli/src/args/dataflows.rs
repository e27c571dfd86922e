//! The flags of the verbs about dataflows: `start`, `stop`, `list`, `logs`.

use super::Level;
use crate::{
    link_loss,
    output::{
        Format,
        time::{Moment, parse_moment, parse_span},
    },
};
use clap::Args;
use dora_remote_protocol::{
    dataflow::LinkLoss,
    ids::NodeId,
    name::{DataflowName, MachineName},
};
use std::{path::PathBuf, time::Duration};

/// Start a dataflow.
#[derive(Debug, Args)]
pub struct Start {
    /// The YAML file that describes the dataflow
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Follow the dataflow to its end (the default)
    #[arg(long, conflicts_with = "detach")]
    pub attach: bool,
    /// Return once the dataflow runs
    #[arg(long)]
    pub detach: bool,
    /// Show only lines that matter so much; `stdout` is everything, messages of machines below a warning included
    #[arg(long, value_name = "LEVEL", value_enum, conflicts_with = "detach")]
    pub level: Option<Level>,
    /// End with code 10 when lines of the nodes are missing, however the dataflow has ended
    #[arg(long, conflicts_with = "detach")]
    pub strict: bool,
    /// Call the dataflow so; without it, the name of the file or its folder, with a number where that is taken
    #[arg(short, long, value_name = "NAME")]
    pub name: Option<DataflowName>,
    /// The machine for nodes that name none [default: the one of the context]
    #[arg(long, value_name = "NAME")]
    pub machine: Option<MachineName>,
    /// What the machines do with the dataflow when they do not hear the coordinator: let it go on, or stop it after so much silence
    /// [default: `on-link-loss` in .dora-remote.toml beside the file, else the one of the context, else keep]
    #[arg(long, value_name = "keep|stop-after=DURATION", value_parser = link_loss::parse)]
    pub on_link_loss: Option<LinkLoss>,
    /// Bring no files: use this directory, which is on the machine already
    #[arg(long, value_name = "DIR", value_parser = absolute_directory)]
    pub working_dir: Option<String>,
    /// Set a variable for every node; without a value it is taken from here. A node's own `env:` wins
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Read variables for every node from a file of NAME=VALUE lines
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Run Python nodes in an environment managed by uv
    #[arg(long)]
    pub uv: bool,
    /// End the dataflow once every node has ended, timers notwithstanding
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub exit_when_nodes_finish: Option<bool>,
}

/// Stop a dataflow.
#[derive(Debug, Args)]
pub struct Stop {
    /// Its name or id; not needed when exactly one runs
    #[arg(value_name = "NAME|ID", conflicts_with_all = ["name", "all"])]
    pub dataflow: Option<String>,
    /// Its name
    #[arg(short, long, value_name = "NAME", conflicts_with = "all")]
    pub name: Option<String>,
    /// Every dataflow; on a terminal you are asked first when there are several
    #[arg(long)]
    pub all: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Time between the stop event and SIGTERM; SIGKILL follows at 1.5 times that [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = parse_span, conflicts_with = "force")]
    pub grace_duration: Option<Duration>,
    /// Kill its nodes at once
    #[arg(short, long)]
    pub force: bool,
}

/// List dataflows.
#[derive(Debug, Args)]
pub struct List {
    /// Same as `--format`
    #[arg(short = 'f', value_name = "FORMAT", value_enum, hide = true)]
    pub short_format: Option<Format>,
}

/// Show log lines.
#[derive(Debug, Args)]
pub struct Logs {
    /// The dataflow's name or id; not needed when exactly one runs
    #[arg(value_name = "NAME|ID")]
    pub dataflow: Option<String>,
    /// Only lines of this node; may be given several times
    #[arg(short, long = "node", value_name = "NODE")]
    pub nodes: Vec<NodeId>,
    /// Lines of all nodes and of the machines (the default)
    #[arg(long, conflicts_with = "nodes")]
    pub all_nodes: bool,
    /// Go on with lines as they are written, until the dataflow has ended
    #[arg(short, long)]
    pub follow: bool,
    /// Begin with the last N of the lines that are asked for
    #[arg(long, value_name = "N")]
    pub tail: Option<u64>,
    /// Only lines written since then: a span such as 5m or 2h, or a time such as 2026-03-01T12:00:00Z or 2026-03-01 (UTC)
    #[arg(long, value_name = "TIME|DURATION", value_parser = parse_moment)]
    pub since: Option<Moment>,
    /// Only lines written until then
    #[arg(long, value_name = "TIME|DURATION", value_parser = parse_moment, conflicts_with = "follow")]
    pub until: Option<Moment>,
    /// Only lines that matter so much; `stdout` is everything, messages of machines below a warning included [env: DORA_LOG_LEVEL]
    #[arg(long, value_name = "LEVEL", value_enum, env = "DORA_LOG_LEVEL", hide_env = true)]
    pub level: Option<Level>,
    /// Only lines that contain this text, ignoring case
    #[arg(long, value_name = "TEXT")]
    pub grep: Option<String>,
    /// End with code 10 when lines are missing; without `--follow` that is always so
    #[arg(long)]
    pub strict: bool,
}

fn absolute_directory(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        return Ok(text.to_owned());
    }
    Err("it is a directory on the machine, so it must be absolute".to_owned())
}
