//! From a command line to an exit code: parse, log, run one verb, tell what went wrong.

#[cfg(feature = "server")]
use crate::args::{CoordinatorVerb, DaemonVerb};
use crate::{
    args::{Certs, Cli, Command},
    commands::{self, Context},
    exit::Exit,
    failure::Failure,
    output::{Printer, show_clap},
};
use clap::Parser;
use dora_remote_link::endpoint::{PathOptions, set_path_options};
use std::{ffi::OsString, future::Future, io, time::Duration};
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// Time for what still runs on other threads after the verb has ended, such as a write that nobody reads.
const LEFTOVER: Duration = Duration::from_millis(100);

/// Runs one command line and says how it ended.
pub fn run(line: impl Iterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(line) {
        Ok(cli) => cli,
        Err(error) => return show_clap(&error),
    };
    let printer = Printer::new(cli.global.format, cli.global.quiet);
    set_path_options(PathOptions {
        mtu: cli.global.mtu,
        single_datagrams: cli.global.single_datagrams,
    });
    let context = Context::new(&cli.global, printer.clone());
    match dispatch(&context, cli.command, cli.global.verbose) {
        Ok(exit) => exit,
        Err(failure) => {
            printer.failure(&failure);
            failure.exit
        }
    }
}

fn dispatch(context: &Context, command: Command, verbose: u8) -> Result<Exit, Failure> {
    match command {
        #[cfg(feature = "server")]
        Command::Coordinator(coordinator) => match coordinator.verb {
            Some(verb) => {
                log_if_asked(verbose);
                within_runtime(care_for_coordinator(context, verb))
            }
            None => {
                log_as_server(coordinator.run.log_format, verbose);
                within_runtime(commands::coordinator::run(context, coordinator.run))
            }
        },
        #[cfg(feature = "server")]
        Command::Daemon(daemon) => match daemon.verb {
            Some(DaemonVerb::Install(install)) => commands::install::daemon(context, &install),
            None => {
                log_as_server(daemon.run.log_format, verbose);
                within_runtime(commands::daemon::run(context, daemon.run))
            }
        },
        // The engine makes its own runtimes.
        #[cfg(feature = "server")]
        Command::Engine(engine) => {
            log_as_server(crate::args::LogFormat::Human, verbose);
            commands::engine::run(engine)
        }
        command => {
            log_if_asked(verbose);
            match &command {
                Command::Certs(Certs::Show(show)) if show.asks() => within_runtime(commands::identities::run(context, show)),
                Command::Certs(certs) => commands::certs::run(context, certs),
                Command::Context(verb) => commands::context::run(context, verb),
                Command::CanI(can_i) => commands::can_i::run(context, can_i),
                _ => within_runtime(as_client(context, command)),
            }
        }
    }
}

async fn as_client(context: &Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Start(start) => commands::start::run(context, start).await,
        Command::Stop(stop) => commands::stop::run(context, &stop).await,
        Command::List(list) => commands::list::run(context, &list).await,
        Command::Logs(logs) => commands::logs::run(context, &logs).await,
        Command::Audit(audit) => commands::audit::run(context, &audit).await,
        Command::Machines => commands::machines::run(context).await,
        Command::Status => commands::status::run(context).await,
        Command::Invite(invites) => commands::invite::run(context, &invites).await,
        Command::Join(join) => commands::join::run(context, &join).await,
        Command::Revoke(revoke) => commands::revoke::run(context, &revoke).await,
        #[cfg(feature = "server")]
        Command::Up => commands::up::run(context).await,
        #[cfg(feature = "server")]
        Command::Down(down) => commands::down::run(context, &down).await,
        Command::Certs(certs) => commands::certs::run(context, &certs),
        Command::Context(verb) => commands::context::run(context, &verb),
        Command::CanI(can_i) => commands::can_i::run(context, &can_i),
        #[cfg(feature = "server")]
        Command::Coordinator(_) | Command::Daemon(_) | Command::Engine(_) => {
            Err(Failure::new(Exit::Failed, "this verb needs a runtime of its own"))
        }
    }
}

#[cfg(feature = "server")]
async fn care_for_coordinator(context: &Context, verb: CoordinatorVerb) -> Result<Exit, Failure> {
    match verb {
        CoordinatorVerb::Backup(backup) => commands::backup::run(context, &backup).await,
        CoordinatorVerb::Restore(restore) => commands::restore::run(context, &restore).await,
        CoordinatorVerb::AcceptRestore(accept) => commands::restore::accept(context, &accept).await,
        CoordinatorVerb::Install(install) => commands::install::coordinator(context, &install),
    }
}

/// One thread is enough for one command, and a server's endpoint is fastest on one.
fn within_runtime(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime: io::Result<Runtime> = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failed, "cannot start").because(&error))?;
    let ended = runtime.block_on(work);
    runtime.shutdown_timeout(LEFTOVER);
    ended
}

/// Servers log from `info` on; `RUST_LOG` says otherwise.
#[cfg(feature = "server")]
fn log_as_server(format: crate::args::LogFormat, verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_writer(io::stderr);
    // A second subscriber is a mistake of an embedding program; the first one stays.
    let _ = match format {
        crate::args::LogFormat::Human => subscriber.with_ansi(false).try_init(),
        crate::args::LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
}

/// Commands log nothing unless they are asked to.
fn log_if_asked(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_writer(io::stderr)
        .with_ansi(false);
    let _ = subscriber.try_init();
}

fn filter(level: LevelFilter) -> EnvFilter {
    EnvFilter::builder().with_default_directive(level.into()).from_env_lossy()
}
