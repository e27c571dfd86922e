//! The command line of dora-remote: one verb per process, one stream per command.
//!
//! - [`args`] says what can be typed, [`app`] turns it into one of the [`commands`];
//! - [`target`], [`contexts`], [`identities`] and [`places`] decide which coordinator is meant and as whom, [`client`] asks it;
//! - [`asking`] is for what admins ask: a coordinator over the network, or that of this host through its [`admin_socket`];
//! - [`renewal`] keeps the certificates of people alive;
//! - [`descriptor`], [`local_files`], [`env_vars`] and [`bundle`] make of a YAML file and its folder what travels;
//! - [`rights`] says which roles may use which verb;
//! - [`output`] alone writes to the terminal, [`failure`] and [`exit`] say what a failure means;
//! - [`local`] knows what `up` has started on this machine, [`signals`] waits for Ctrl-C;
//! - `service` makes services of coordinator and daemon, and tells the service manager how they are.

pub mod admin_socket;
pub mod app;
pub mod args;
pub mod asking;
pub mod bundle;
pub mod client;
pub mod commands;
pub mod contexts;
pub mod descriptor;
pub mod env_vars;
pub mod exit;
pub mod failure;
pub mod identities;
pub mod link_loss;
pub mod local;
pub mod local_files;
pub mod output;
pub mod places;
#[cfg(feature = "server")]
pub mod processes;
pub mod renewal;
pub mod rights;
#[cfg(feature = "server")]
pub mod service;
pub mod signals;
pub mod target;

/// Build of this program, as peers are told.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");

/// When this program was built, or a little before.
#[must_use]
pub fn build_time() -> std::time::SystemTime {
    let seconds = env!("DORA_REMOTE_BUILD_TIME").parse().unwrap_or(0);
    std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)
}
