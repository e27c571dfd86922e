//! The verbs and flags of `context`.

use crate::link_loss;
use clap::{Args, Subcommand};
use dora_remote_protocol::{
    dataflow::LinkLoss,
    name::{MachineName, Name},
};

/// Keep coordinators, identities and default machines under names.
#[derive(Debug, Subcommand)]
pub enum Contexts {
    /// List contexts; `*` marks the current one
    #[command(after_help = "\
Examples:
  dora-remote context list
  dora-remote context list --format json")]
    List,
    /// Make a context the current one
    #[command(after_help = "\
Examples:
  dora-remote context use lab
  dora-remote context use --none

Verbs then go to its coordinator, unless the command line or the environment names another one.")]
    Use(ContextUse),
    /// Show one context, and who you are to it
    #[command(after_help = "\
Examples:
  dora-remote context show
  dora-remote context show lab --format json")]
    Show(ContextShow),
    /// Add a context; the first one becomes the current one
    #[command(after_help = "\
Examples:
  dora-remote context add lab --coordinator-addr robots.example.com --identity ./authority/admin
  dora-remote context add arm --coordinator-addr 192.0.2.7 --machine robot-7")]
    Add(ContextAdd),
    /// Give a context another name
    #[command(after_help = "\
Examples:
  dora-remote context rename lab old-lab")]
    Rename(ContextRename),
    /// Remove a context; its identity stays where it is
    #[command(after_help = "\
Examples:
  dora-remote context remove old-lab")]
    Remove(ContextRemove),
}

/// Make a context the current one.
#[derive(Debug, Args)]
pub struct ContextUse {
    /// Its name
    #[arg(value_name = "NAME", required_unless_present = "none", conflicts_with = "none")]
    pub name: Option<Name>,
    /// Let no context be the current one
    #[arg(long)]
    pub none: bool,
}

/// Show one context.
#[derive(Debug, Args)]
pub struct ContextShow {
    /// Its name [default: the one that would be used]
    #[arg(value_name = "NAME")]
    pub name: Option<Name>,
}

/// Add a context. Coordinator and identity are the flags of every verb.
#[derive(Debug, Args)]
pub struct ContextAdd {
    /// What to call it
    #[arg(value_name = "NAME")]
    pub name: Name,
    /// The machine for nodes that name none
    #[arg(long, value_name = "NAME")]
    pub machine: Option<MachineName>,
    /// What becomes of dataflows that say nothing themselves when a machine does not hear the coordinator
    #[arg(long, value_name = "keep|stop-after=DURATION", value_parser = link_loss::parse)]
    pub on_link_loss: Option<LinkLoss>,
}

/// Give a context another name.
#[derive(Debug, Args)]
pub struct ContextRename {
    /// Its name
    #[arg(value_name = "NAME")]
    pub from: Name,
    /// Its name from now on
    #[arg(value_name = "NEW-NAME")]
    pub to: Name,
}

/// Remove a context.
#[derive(Debug, Args)]
pub struct ContextRemove {
    /// Its name
    #[arg(value_name = "NAME")]
    pub name: Name,
}
