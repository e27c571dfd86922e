//! `coordinator`: the server that all others talk to.

use super::Context;
use crate::{args::CoordinatorRun, exit::Exit, failure::Failure, places, service::notify, signals::Interrupts, target};
use dora_remote_certs::Credentials;
use dora_remote_coordinator::{ConfigError, CoordinatorConfig, CoordinatorError, IdentitySource, Options};
use dora_remote_protocol::identity::Role;
use tokio_util::sync::CancellationToken;

/// Runs a coordinator until SIGTERM or Ctrl-C; a second one leaves at once.
///
/// # Errors
/// Why it could not start or go on.
pub async fn run(context: &Context, coordinator: CoordinatorRun) -> Result<Exit, Failure> {
    let config = config(context, coordinator)?;
    check_role(&config.identity)?;
    let mut interrupts = Interrupts::new()?;
    let shutdown = CancellationToken::new();
    let handle = dora_remote_coordinator::start(config, shutdown.clone())
        .await
        .map_err(|error| failed(&error))?;
    // Whoever asked for port 0 learns the port from here.
    let listening = format!("listening on {}", handle.local_address());
    context.printer.line(&listening)?;
    notify::ready(&listening);
    // Polled by the loop that serves, so that one that hangs is found out.
    let (running, alive) = (handle.wait(), notify::alive());
    tokio::pin!(running, alive);
    loop {
        tokio::select! {
            biased;
            ended = &mut running => return ended.map(|()| Exit::Ok).map_err(|error| failed(&error)),
            never = &mut alive => match never {},
            () = interrupts.next() => {
                if shutdown.is_cancelled() {
                    return Ok(Exit::Interrupted);
                }
                notify::stopping();
                shutdown.cancel();
            }
        }
    }
}

/// Puts flags, file and defaults together; flags win over the file.
fn config(context: &Context, coordinator: CoordinatorRun) -> Result<CoordinatorConfig, Failure> {
    let not_good = |error: &ConfigError| {
        let failure = Failure::usage("the settings of the coordinator are not good").because(error);
        match error {
            ConfigError::Missing { .. } => failure.hint(
                "use `--authority DIR` or `--identity DIR`; `--trust-domain DOMAIN` makes an authority in the state directory",
            ),
            ConfigError::Read { .. }
            | ConfigError::Content { .. }
            | ConfigError::Contradiction { .. }
            | ConfigError::Bad { .. } => failure,
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
        credentials_dir: identity.filter(|_| coordinator.authority.is_none() && coordinator.trust_domain.is_none()),
        authority_dir: coordinator.authority,
        trust_domain: coordinator.trust_domain,
        advertise: Some(coordinator.advertise).filter(|addresses| !addresses.is_empty()),
        ..Options::default()
    };
    let defaults = Options {
        state_dir: Some(places::state_dir(&places::process_env)?.join("coordinator")),
        ..Options::default()
    };
    let named = flags.over(file).over(defaults);
    let usual = usual_authority(&named);
    named.over(usual).checked().map_err(|error| not_good(&error))
}

/// Where nothing says where the certificate comes from: the authority in the state directory, if it is there or is to be made.
fn usual_authority(named: &Options) -> Options {
    let names_source = named.authority_dir.is_some() || named.credentials_dir.is_some();
    let dir = named.state_dir.as_ref().map(|dir| dir.join("authority"));
    Options {
        authority_dir: dir.filter(|dir| !names_source && (named.trust_domain.is_some() || dir.exists())),
        ..Options::default()
    }
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
        CoordinatorError::Identity(_) | CoordinatorError::OtherTrustDomain { .. } => Exit::Certificate,
        CoordinatorError::Folder { .. }
        | CoordinatorError::Open { .. }
        | CoordinatorError::Store(_)
        | CoordinatorError::Logs(_)
        | CoordinatorError::Thread(_)
        | CoordinatorError::Link(_)
        | CoordinatorError::AdminSocket(_)
        | CoordinatorError::HalfRestored(_)
        | CoordinatorError::Panicked => Exit::Failed,
    };
    Failure::new(exit, "the coordinator ended").because(error)
}
