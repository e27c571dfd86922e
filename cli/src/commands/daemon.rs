//! `daemon`: the agent on a machine.

use super::Context;
use crate::{args::Daemon, env_vars, exit::Exit, failure::Failure, places, signals::Interrupts};
use dora_remote_daemon::{DaemonConfig, DaemonError};
use std::{env, fs};
use tokio_util::sync::CancellationToken;

/// Runs a daemon until SIGTERM or Ctrl-C; a second one leaves at once.
///
/// # Errors
/// Why it could not start or go on; trouble with the network is no reason.
pub async fn run(context: &Context, daemon: Daemon) -> Result<Exit, Failure> {
    let target = context.target()?;
    context.announce(&target);
    let state_dir = match daemon.state {
        Some(dir) => dir,
        None => places::state_dir(&places::process_env)?.join("daemon"),
    };
    if let Some(parent) = state_dir.parent() {
        fs::create_dir_all(parent)
            .map_err(|error| Failure::new(Exit::Failed, format!("cannot make {}", parent.display())).because(&error))?;
    }
    let variables = env_vars::collect(&daemon.env_file, &[], &places::process_env)
        .map_err(|error| Failure::usage("cannot use the variables for the nodes").because(&error))?;
    let exe = env::current_exe().map_err(|error| Failure::new(Exit::Failed, "cannot find this program").because(&error))?;
    let config = DaemonConfig {
        state_dir,
        coordinator: target.address,
        credentials_dir: target.identity,
        labels: daemon.labels.into_iter().collect(),
        exe,
        pass_env: daemon.pass_env,
        env: variables,
        build: crate::BUILD.to_owned(),
    };
    let mut interrupts = Interrupts::new()?;
    let shutdown = CancellationToken::new();
    let running = dora_remote_daemon::run(config, shutdown.clone());
    tokio::pin!(running);
    loop {
        tokio::select! {
            biased;
            ended = &mut running => return ended.map(|()| Exit::Ok).map_err(|error| failure(&error)),
            () = interrupts.next() => {
                if shutdown.is_cancelled() {
                    return Ok(Exit::Interrupted);
                }
                shutdown.cancel();
            }
        }
    }
}

fn failure(error: &DaemonError) -> Failure {
    match error {
        DaemonError::Credentials(_) => Failure::new(Exit::Certificate, "the daemon cannot use its identity")
            .because(error)
            .hint("`dora-remote certs issue --role daemon --name MACHINE --out DIR` makes one; name it with `--identity DIR`"),
        DaemonError::StateDir(_) => Failure::new(Exit::Failed, "the daemon cannot use its state directory")
            .because(error)
            .hint("name another one with `--state DIR`"),
        DaemonError::Store(_) | DaemonError::Thread(_) | DaemonError::Broken(_) => {
            Failure::new(Exit::Failed, "the daemon ended").because(error)
        }
    }
}
