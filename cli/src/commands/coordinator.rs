//! `coordinator`: the server that all others talk to.

use super::Context;
use crate::{args::Coordinator, exit::Exit, failure::Failure, places, signals::Interrupts, target};
use dora_remote_certs::Credentials;
use dora_remote_coordinator::{ConfigError, CoordinatorConfig, CoordinatorError, IdentitySource, Options};
use dora_remote_protocol::identity::Role;
use tokio_util::sync::CancellationToken;

/// Runs a coordinator until SIGTERM or Ctrl-C; a second one leaves at once.
///
/// # Errors
/// Why it could not start or go on.
pub async fn run(context: &Context, coordinator: Coordinator) -> Result<Exit, Failure> {
    let config = config(context, coordinator)?;
    check_role(&config.identity)?;
    let mut interrupts = Interrupts::new()?;
    let shutdown = CancellationToken::new();
    let handle = dora_remote_coordinator::start(config, shutdown.clone())
        .await
        .map_err(|error| failed(&error))?;
    // Whoever asked for port 0 learns the port from here.
    context.printer.line(&format!("listening on {}", handle.local_address()))?;
    let running = handle.wait();
    tokio::pin!(running);
    loop {
        tokio::select! {
            biased;
            ended = &mut running => return ended.map(|()| Exit::Ok).map_err(|error| failed(&error)),
            () = interrupts.next() => {
                if shutdown.is_cancelled() {
                    return Ok(Exit::Interrupted);
                }
                shutdown.cancel();
            }
        }
    }
}

/// Puts flags, file and defaults together; flags win over the file.
fn config(context: &Context, coordinator: Coordinator) -> Result<CoordinatorConfig, Failure> {
    let not_good = |error: &ConfigError| {
        let failure = Failure::usage("the settings of the coordinator are not good").because(error);
        match error {
            ConfigError::Missing { .. } => failure.hint("use `--authority DIR` or `--identity DIR`"),
            ConfigError::Read { .. } | ConfigError::Content { .. } | ConfigError::Contradiction { .. } => failure,
        }
    };
    let file = match &coordinator.config {
        None => Options::default(),
        Some(path) => Options::read(path).map_err(|error| not_good(&error))?,
    };
    let identity = target::named_identity(&context.given, &places::process_env);
    let flags = Options {
        listen: coordinator.listen,
        state_dir: coordinator.state,
        // An authority on the command line wins over an identity in the environment.
        credentials_dir: identity.filter(|_| coordinator.authority.is_none()),
        authority_dir: coordinator.authority,
        ..Options::default()
    };
    let defaults = Options {
        state_dir: Some(places::state_dir(&places::process_env)?.join("coordinator")),
        ..Options::default()
    };
    flags.over(file).over(defaults).checked().map_err(|error| not_good(&error))
}

/// A certificate for something else would only be refused by everybody who connects.
fn check_role(identity: &IdentitySource) -> Result<(), Failure> {
    let IdentitySource::Credentials(dir) = identity else {
        return Ok(());
    };
    let credentials = Credentials::load(dir)
        .map_err(|error| Failure::of_certificates(&format!("use the identity in {}", dir.display()), &error))?;
    let identity = credentials.identity();
    if identity.role == Role::Coordinator {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Certificate,
        format!(
            "the certificate in {} is that of {identity}, and not of a coordinator",
            dir.display()
        ),
    )
    .hint("`dora-remote certs issue --role coordinator --name NAME --out DIR` makes one"))
}

fn failed(error: &CoordinatorError) -> Failure {
    let exit = match error {
        CoordinatorError::Identity(_) => Exit::Certificate,
        CoordinatorError::Folder { .. }
        | CoordinatorError::Open { .. }
        | CoordinatorError::Store(_)
        | CoordinatorError::Logs(_)
        | CoordinatorError::Thread(_)
        | CoordinatorError::Link(_)
        | CoordinatorError::Panicked => Exit::Failed,
    };
    Failure::new(exit, "the coordinator ended").because(error)
}
