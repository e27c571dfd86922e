//! The command line of dora-remote: one verb per process, one stream per command.
//!
//! - [`args`] says what can be typed, [`app`] turns it into one of the [`commands`];
//! - [`target`], [`contexts`] and [`places`] decide which coordinator is meant and as whom, [`client`] asks it;
//! - [`descriptor`], [`local_files`], [`env_vars`] and [`bundle`] make of a YAML file and its folder what travels;
//! - [`rights`] says which roles may use which verb;
//! - [`output`] alone writes to the terminal, [`failure`] and [`exit`] say what a failure means;
//! - [`local`] knows what `up` has started on this machine, [`signals`] waits for Ctrl-C.

pub mod app;
pub mod args;
pub mod bundle;
pub mod client;
pub mod commands;
pub mod contexts;
pub mod descriptor;
pub mod env_vars;
pub mod exit;
pub mod failure;
pub mod local;
pub mod local_files;
pub mod output;
pub mod places;
#[cfg(feature = "server")]
pub mod processes;
pub mod rights;
pub mod signals;
pub mod target;

/// Build of this program, as peers are told.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");
