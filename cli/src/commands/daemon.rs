//! `daemon`: the agent on a machine.

use super::Context;
use crate::{args::DaemonRun, env_vars, exit::Exit, failure::Failure, places, service::notify, signals::Interrupts};
use dora_remote_daemon::{DaemonConfig, DaemonError, DiskCaps, Policy, Standing};
use std::{env, fs};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Runs a daemon until SIGTERM or Ctrl-C; a second one leaves at once.
///
/// # Errors
/// Why it could not start or go on; trouble with the network is no reason.
pub async fn run(context: &Context, daemon: DaemonRun) -> Result<Exit, Failure> {
    // Before all else: a policy that cannot be read must not be found out after something was started without it.
    let policy = daemon.policy.as_deref().map(Policy::load).transpose().map_err(|error| {
        Failure::usage("the daemon does not start without its policy")
            .because(&error)
            .hint("correct the file, or leave `--policy` away if everything may be started here")
    })?;
    let target = context.target_of_daemon()?;
    context.announce(&target);
    let coordinator = target.address.to_string();
    let state_dir = match daemon.state {
        Some(dir) => dir,
        None => places::state_dir(&places::process_env)?.join("daemon"),
    };
    if let Some(parent) = state_dir.parent() {
        fs::create_dir_all(parent)
            .map_err(|error| Failure::new(Exit::Failed, format!("cannot make {}", parent.display())).because(&error))?;
    }
    let variables = env_vars::collect(&daemon.machine.env_file, &[], &places::process_env)
        .map_err(|error| Failure::usage("cannot use the variables for the nodes").because(&error))?;
    let exe = env::current_exe().map_err(|error| Failure::new(Exit::Failed, "cannot find this program").because(&error))?;
    let config = DaemonConfig {
        state_dir,
        coordinator: target.address,
        credentials_dir: target.identity,
        labels: daemon.machine.labels.into_iter().collect(),
        exe,
        pass_env: daemon.machine.pass_env,
        env: variables,
        build: crate::BUILD.to_owned(),
        build_time: crate::build_time(),
        clock: std::sync::Arc::new(dora_remote_certs::SystemClock),
        disk: DiskCaps {
            node_log_bytes: daemon.max_node_logs,
            log_bytes: daemon.max_logs,
            ended_bytes: daemon.max_ended,
            free_bytes: daemon.min_free,
        },
        on_revoked: policy.as_ref().map(Policy::on_revoked).unwrap_or_default(),
        policy,
        logs: daemon.machine.logs.into(),
    };
    let mut interrupts = Interrupts::new()?;
    let shutdown = CancellationToken::new();
    let (standing, stands) = watch::channel(Standing::Starting);
    let running = dora_remote_daemon::run_and_tell(config, shutdown.clone(), standing);
    // Both are polled by the loop of the daemon itself, so that one that hangs is found out.
    let (telling, alive) = (notify::follow(stands, &coordinator), notify::alive());
    tokio::pin!(running, telling, alive);
    let mut is_told = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut running => return ended.map(|()| Exit::Ok).map_err(|error| failure(&error)),
            () = &mut telling, if !is_told => is_told = true,
            never = &mut alive => match never {},
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
            .hint("`dora-remote join` makes one of an invite (`dora-remote invite --role daemon --name MACHINE`); name it with `--identity DIR`"),
        DaemonError::StateDir(_) => Failure::new(Exit::Failed, "the daemon cannot use its state directory")
            .because(error)
            .hint("name another one with `--state DIR`"),
        DaemonError::Store(_) | DaemonError::Thread(_) | DaemonError::Broken(_) => {
            Failure::new(Exit::Failed, "the daemon ended").because(error)
        }
    }
}
