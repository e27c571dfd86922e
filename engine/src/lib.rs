//! The engine of a machine: dora's own daemon, with a coordinator for it in the same process and a socket for the agent.
//!
//! It is a child process of its own, so that neither an outage of the network nor a restart of the agent ever touches the
//! connection between dora's daemon and its coordinator, nor a node. From the outside in:
//!
//! - `agent_socket` talks with the agent, `orders` carries out what it says, `engine` holds what both share;
//! - `check` says whether a run can be made here, `spawn` makes the command for it, `runs` knows how far each run is;
//! - `translate` turns dora's events into ours, `events` keeps them until the agent has them;
//! - `shim` is the coordinator for dora's daemon, `wire` its language;
//! - `processes` ends what dora could not.

mod agent_socket;
mod check;
mod engine;
mod events;
mod log_caps;
mod losses;
mod orders;
mod processes;
mod runs;
mod shim;
mod spawn;
mod state_dir;
mod translate;
mod wire;

use agent_socket::AgentSocket;
use dora_daemon::{Daemon, ZenohOptions};
use dora_remote_protocol::{dataflow::Labels, ids::EngineId, name::MachineName};
use engine::Engine;
use events::EventStore;
use processes::Sweeper;
use shim::Shim;
use state_dir::StateDir;
use std::{
    env, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};
use thiserror::Error;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::{interval, timeout},
};

/// Version of the dora daemon inside.
pub const DORA_VERSION: &str = "1.1.0";
/// Environment variable with the id of the engine: set by the agent, inherited by every node, so that what a dead engine left behind
/// can be found.
pub const ENGINE_ID_ENV: &str = "DORA_REMOTE_ENGINE_ID";
/// Environment variable with the secret between dora's daemon and the coordinator inside the engine; dora takes it away from nodes.
pub const TOKEN_ENV: &str = "DORA_AUTH_TOKEN";
/// Environment variable with the loopback port on which dynamic nodes find dora's daemon; any free one when absent.
pub const LOCAL_PORT_ENV: &str = "DORA_DAEMON_LOCAL_LISTEN_PORT";

/// Time for dora's daemon to register and open its zenoh session.
const UP_DEADLINE: Duration = Duration::from_secs(60);
/// Time for the last words to an agent.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Time for dora's daemon to end after it was told to, all nodes being gone.
const DESTROY_DEADLINE: Duration = Duration::from_secs(5);
/// Time for the threads of dora and zenoh to end.
const THREADS_DEADLINE: Duration = Duration::from_secs(2);

/// Interval at which lines that could not be written are told, all of that time together.
const TELL_LOSSES: Duration = Duration::from_millis(500);

/// What an engine is told at its start.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Its own directory, mode 0700: holds `engine.sock`, `events.log` and, once the engine is up, `engine.json`.
    pub state_dir: PathBuf,
    /// The machine whose nodes it runs.
    pub machine: MachineName,
    /// Labels of the machine.
    pub labels: Labels,
    /// This life of the engine; the same as in the environment, see [`engine_id`].
    pub engine: EngineId,
    /// Bytes that the log files of one node may have together where the descriptor sets no `max_log_size`.
    pub node_log_bytes: u64,
}

/// Why an engine ended, or did not start.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The agent did not set a variable, or set it to something else.
    #[error("environment variable {name} {problem}; an engine is started by `dora-remote daemon` and not by hand")]
    Environment {
        /// Name of the variable.
        name: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Its directory cannot be used.
    #[error("cannot use the engine's directory {}: {source}", path.display())]
    StateDir {
        /// Which directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A socket on loopback, a thread or a runtime cannot be made.
    #[error("cannot make {what}: {source}")]
    Start {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Dora's daemon ended, or never came up.
    #[error("dora's daemon ended: {0}")]
    Daemon(String),
    /// The connection of dora's daemon was lost; the message says how.
    #[error("{0}")]
    Lost(String),
}

/// The id that the agent gave this engine in its environment ([`ENGINE_ID_ENV`]).
///
/// # Errors
/// [`EngineError::Environment`] when it is absent or no id.
pub fn engine_id() -> Result<EngineId, EngineError> {
    let name = ENGINE_ID_ENV;
    let text = env::var(name).map_err(|_| EngineError::Environment {
        name,
        problem: "is not set",
    })?;
    text.parse().map_err(|_| EngineError::Environment {
        name,
        problem: "is no engine id",
    })
}

/// Runs an engine until it is ordered to end. Blocks; makes its own threads and runtimes.
///
/// Needs [`TOKEN_ENV`] and [`ENGINE_ID_ENV`] in the environment and takes [`LOCAL_PORT_ENV`] from it. On every way out, no process
/// that this engine made is left.
///
/// # Errors
/// [`EngineError`] for everything but an ordered end (an order of the agent, or SIGTERM). The process should exit with a
/// code other than 0 then, so that the agent cleans up and starts another engine.
pub fn run(config: EngineConfig) -> Result<(), EngineError> {
    if engine_id()? != config.engine {
        return Err(EngineError::Environment {
            name: ENGINE_ID_ENV,
            problem: "names another engine",
        });
    }
    let token = env::var(TOKEN_ENV)
        .ok()
        .filter(|token| !token.is_empty())
        .ok_or(EngineError::Environment {
            name: TOKEN_ENV,
            problem: "is not set",
        })?;
    let state_dir = StateDir::open(&config.state_dir).map_err(state_dir_error(&config.state_dir))?;
    let store = EventStore::open(&state_dir.events()).map_err(state_dir_error(&state_dir.events()))?;
    let local_port = local_port()?;
    let listener = loopback("the loopback listener")?;
    let address = listener.local_addr().map_err(start("the loopback listener"))?;
    listener.set_nonblocking(true).map_err(start("the loopback listener"))?;

    let daemons = runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("dora")
        .build()
        .map_err(start("the runtime of dora's daemon"))?;
    // From here on there may be processes to end: on every way out, a panic included.
    let _sweeper = Sweeper(config.engine);
    let (ended, shim_ended) = oneshot::channel();
    let own = config.clone();
    let shim = thread::Builder::new()
        .name("shim".to_owned())
        .spawn(move || {
            let result = shim_thread(&own, &state_dir, listener, token, store);
            state_dir.withdraw();
            // Nobody listens when dora's daemon ended first.
            let _ = ended.send(result);
        })
        .map_err(start("the thread of the shim"))?;
    let result = daemons.block_on(run_daemon(&config, address, local_port, shim_ended));
    daemons.shutdown_timeout(THREADS_DEADLINE);
    if shim.is_finished() && shim.join().is_err() {
        tracing::error!("the thread of the shim panicked");
    }
    result
}

async fn run_daemon(
    config: &EngineConfig,
    coordinator: SocketAddr,
    local_port: u16,
    mut shim_ended: oneshot::Receiver<Result<(), EngineError>>,
) -> Result<(), EngineError> {
    let zenoh = ZenohOptions {
        disable_multicast: true,
        ..ZenohOptions::default()
    };
    let daemon = Daemon::run_with_zenoh_listen(
        coordinator,
        Some(config.machine.to_string()),
        config.labels.clone(),
        local_port,
        zenoh,
    );
    let lost = || EngineError::Lost("the thread of the shim ended".to_owned());
    tokio::select! {
        // Dropping dora's daemon kills the nodes that it still has.
        shim = &mut shim_ended => shim.unwrap_or_else(|_| Err(lost())),
        daemon = daemon => match daemon {
            // Ended in order: then the shim is about to end well, too. SIGINT also ends here, and it does not.
            Ok(()) => match timeout(DESTROY_DEADLINE, shim_ended).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) | Err(_) => Err(EngineError::Daemon("without an error and without an order".to_owned())),
            },
            Err(error) => Err(EngineError::Daemon(format!("{error:#}"))),
        },
    }
}

/// The thread on which all but dora lives.
fn shim_thread(
    config: &EngineConfig,
    state_dir: &StateDir,
    listener: TcpListener,
    token: String,
    store: EventStore,
) -> Result<(), EngineError> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(start("the runtime of the shim"))?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(start("the loopback listener"))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(start("the handler of SIGTERM"))?;
        let (shim, commands) = Shim::new(listener, token, config.machine.to_string());
        let engine = Arc::new(Engine::new(config, commands, store));
        let hearer = Arc::clone(&engine);
        let daemon = shim.run(move |event| hearer.hear(event));
        let teller = Arc::clone(&engine);
        tokio::spawn(async move {
            let mut tick = interval(TELL_LOSSES);
            loop {
                tick.tick().await;
                teller.tell_losses();
            }
        });
        let terminated = Arc::clone(&engine);
        tokio::spawn(async move {
            terminate.recv().await;
            tracing::info!("SIGTERM: killing all dataflows and ending");
            let _ = orders::shutdown(&terminated, true).await;
            terminated.end.cancel();
        });
        tokio::select! {
            // In an ordered end the connection closes, too, and the order decides what it is called.
            error = daemon => if engine.end.is_cancelled() { Ok(()) } else { Err(EngineError::Lost(error.to_string())) },
            result = serve_agents(config, state_dir, &engine) => result,
        }
    })
}

/// Serves agents once dora's daemon is up; returns when the engine has ended in order.
async fn serve_agents(config: &EngineConfig, state_dir: &StateDir, engine: &Arc<Engine>) -> Result<(), EngineError> {
    let mut up = engine.up.subscribe();
    tokio::select! {
        up = timeout(UP_DEADLINE, up.wait_for(|up| *up)) => match up {
            Ok(_) => {}
            Err(_) => return Err(EngineError::Daemon(format!("it did not come up within {} s", UP_DEADLINE.as_secs()))),
        },
        () = engine.end.cancelled() => return Ok(()),
    }
    let path = state_dir.socket();
    let socket = AgentSocket::bind(&path, Arc::clone(engine)).map_err(state_dir_error(&path))?;
    state_dir.announce(config).map_err(state_dir_error(&config.state_dir))?;
    tracing::info!(engine = %engine.id, machine = %engine.machine, socket = %path.display(), "the engine is up");
    socket.run(LAST_WORDS).await;
    // All runs have ended; dora's daemon answers at once and goes.
    let destroy = engine.ask(dora_message::coordinator_to_daemon::DaemonCoordinatorEvent::Destroy);
    if timeout(DESTROY_DEADLINE, destroy).await.is_err() {
        tracing::warn!("dora's daemon did not end in order");
    }
    Ok(())
}

fn local_port() -> Result<u16, EngineError> {
    if let Ok(port) = env::var(LOCAL_PORT_ENV) {
        return port.parse().map_err(|_| EngineError::Environment {
            name: LOCAL_PORT_ENV,
            problem: "is no port",
        });
    }
    let what = "a port for dynamic nodes";
    loopback(what)?
        .local_addr()
        .map(|address| address.port())
        .map_err(start(what))
}

fn loopback(what: &'static str) -> Result<TcpListener, EngineError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(start(what))
}

fn start(what: &'static str) -> impl FnOnce(io::Error) -> EngineError {
    move |source| EngineError::Start { what, source }
}

fn state_dir_error(path: &std::path::Path) -> impl FnOnce(io::Error) -> EngineError {
    let path = path.to_owned();
    move |source| EngineError::StateDir { path, source }
}
