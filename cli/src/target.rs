//! Which coordinator a command means, and as whom it asks.
//!
//! Address: flag, `DORA_REMOTE_ADDR`, `DORA_COORDINATOR_ADDR`, the context (`--context`, `DORA_REMOTE_CONTEXT`, else the current
//! one), the local one made by `up`. Identity: flag, `DORA_REMOTE_IDENTITY`, the context's, the one made by `up` when its
//! coordinator is meant, the user's own. A context that was chosen gives identity and machine whatever the address; the current
//! one only together with its address.

use crate::{
    contexts::{Contexts, ContextsError, Entry},
    exit::Exit,
    failure::Failure,
    local::{Record, up_dir, up_identity},
    places::{self, Env},
};
use dora_remote_link::Address;
use dora_remote_protocol::{
    dataflow::LinkLoss,
    name::{MachineName, Name},
};
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// What the command line says about the coordinator.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `--coordinator-addr`.
    pub address: Option<String>,
    /// `--coordinator-port`.
    pub port: Option<u16>,
    /// `--identity`.
    pub identity: Option<PathBuf>,
    /// `--context`.
    pub context: Option<Name>,
}

/// A coordinator and an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where the coordinator is.
    pub address: Address,
    /// Directory with the certificate, the key and the root.
    pub identity: PathBuf,
    /// The context that is used.
    pub context: Option<Name>,
    /// The machine for nodes that name none, by that context.
    pub machine: Option<MachineName>,
    /// What becomes of dataflows when their machine does not hear the coordinator, by that context.
    pub on_link_loss: Option<LinkLoss>,
    /// The address of that context, where a variable of the environment has set it aside.
    pub set_aside: Option<Address>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "coordinator {}", self.address)?;
        match &self.context {
            Some(context) => write!(f, " (context {context})"),
            None => Ok(()),
        }
    }
}

/// What is known before it is asked whether it is enough.
struct Found {
    address: Option<Address>,
    identity: PathBuf,
    context: Option<(Name, Entry)>,
}

/// Decides which coordinator and which identity are meant.
///
/// # Errors
/// A failure when no coordinator is named, what is named is no address, or the context does not exist or cannot be read.
pub fn resolve(given: &Given, env: Env<'_>) -> Result<Target, Failure> {
    resolve_if_named(given, env)?.ok_or_else(|| {
        Failure::usage("no coordinator is named").hint(
            "use `--coordinator-addr HOST[:PORT]` or set DORA_REMOTE_ADDR; `dora-remote join` knows it from an invite, and \
             `dora-remote up` starts one on this machine",
        )
    })
}

/// As [`resolve`]; none when no coordinator is named.
///
/// # Errors
/// Those of [`resolve`] but that none is named.
pub fn resolve_if_named(given: &Given, env: Env<'_>) -> Result<Option<Target>, Failure> {
    let found = find(given, env)?;
    let Some(address) = found.address else {
        return Ok(None);
    };
    let (context, entry) = found.context.unzip();
    let on_link_loss = entry.as_ref().and_then(|entry| entry.on_link_loss);
    let (machine, of_context) = entry.map(|entry| (entry.machine, entry.coordinator_addr)).unzip();
    Ok(Some(Target {
        set_aside: of_context.filter(|of_context| *of_context != address && given.address.is_none()),
        address,
        identity: found.identity,
        context,
        machine: machine.flatten(),
        on_link_loss,
    }))
}

/// Decides which identity is meant, whether or not a coordinator is named.
///
/// # Errors
/// Those of [`resolve`] but that none is named.
pub fn identity(given: &Given, env: Env<'_>) -> Result<PathBuf, Failure> {
    find(given, env).map(|found| found.identity)
}

/// The name of the context that was chosen with `--context` or `DORA_REMOTE_CONTEXT`.
///
/// # Errors
/// A failure when the variable holds no name.
pub fn chosen_context(given: &Given, env: Env<'_>) -> Result<Option<Name>, Failure> {
    let from_env = || {
        let text = env("DORA_REMOTE_CONTEXT")?.to_string_lossy().into_owned();
        Some(
            text.parse()
                .map_err(|error| Failure::usage(format!("DORA_REMOTE_CONTEXT names no context: {error}"))),
        )
    };
    match &given.context {
        Some(name) => Ok(Some(name.clone())),
        None => from_env().transpose(),
    }
}

fn find(given: &Given, env: Env<'_>) -> Result<Found, Failure> {
    let named = named_address(given, env)?;
    let context = match chosen_context(given, env)? {
        Some(name) => Some(entry_of(&read_contexts(env)?, &name)?),
        // An address that was named leaves the current context out of account, and a damaged file with it.
        None if named.is_some() => None,
        None => {
            let contexts = read_contexts(env)?;
            contexts.current.as_ref().map(|name| entry_of(&contexts, name)).transpose()?
        }
    };
    let up = places::state_dir(env).ok().map(|dir| up_dir(&dir));
    let up_address = up.as_deref().and_then(address_of_up);
    let address = named
        .or_else(|| Some(context.as_ref()?.1.coordinator_addr.clone()))
        .or_else(|| up_address.clone());
    let of_context = || context.as_ref()?.1.identity.clone();
    let identity = match (named_identity(given, env).or_else(of_context), up) {
        (Some(identity), _) => identity,
        (None, Some(up)) if up_address.is_some() && up_address == address => up_identity(&up),
        (None, _) => places::config_dir(env)?.join("identity"),
    };
    Ok(Found {
        address,
        identity,
        context,
    })
}

/// Where neither `XDG_CONFIG_HOME` nor `HOME` is set there are no contexts.
fn read_contexts(env: Env<'_>) -> Result<Contexts, Failure> {
    let Ok(dir) = places::config_dir(env) else {
        return Ok(Contexts::default());
    };
    Contexts::read(&dir).map_err(|error| of_contexts(&error))
}

/// The failure of reading or changing the contexts.
#[must_use]
pub fn of_contexts(error: &ContextsError) -> Failure {
    let (what, hint) = match error {
        ContextsError::Read { .. } => ("cannot read the contexts", "make the file readable, or move it away"),
        ContextsError::Content { .. } => (
            "the file with the contexts is damaged",
            "correct that line, or move the file away",
        ),
        ContextsError::Write { .. } | ContextsError::Encode { .. } => {
            ("cannot change the contexts", "may this user write there?")
        }
        ContextsError::Busy { .. } => ("cannot change the contexts", "try again"),
    };
    Failure::new(Exit::Failed, what).because(error).hint(hint)
}

impl From<ContextsError> for Failure {
    fn from(error: ContextsError) -> Self {
        of_contexts(&error)
    }
}

/// The failure of naming a context that does not exist.
#[must_use]
pub fn no_such_context(name: &Name) -> Failure {
    Failure::new(Exit::NotFound, format!("there is no context `{name}`"))
        .hint("`dora-remote context list` shows the contexts, `dora-remote context add` makes one")
}

fn entry_of(contexts: &Contexts, name: &Name) -> Result<(Name, Entry), Failure> {
    let found = contexts.find(name).ok_or_else(|| no_such_context(name))?;
    Ok((found.0.clone(), found.1.clone()))
}

/// The address on the command line or in the environment, if there is one.
///
/// # Errors
/// A failure when it is no address.
pub fn named_address(given: &Given, env: Env<'_>) -> Result<Option<Address>, Failure> {
    let text_of = |name: &str| Some((name.to_owned(), env(name)?.to_string_lossy().into_owned()));
    let flag = given.address.clone().map(|text| ("--coordinator-addr".to_owned(), text));
    let Some((source, text)) = flag
        .or_else(|| text_of("DORA_REMOTE_ADDR"))
        .or_else(|| text_of("DORA_COORDINATOR_ADDR"))
    else {
        return Ok(None);
    };
    let mut address: Address = text.parse().map_err(|error| {
        Failure::usage(format!("{source} is no address: {error}"))
            .hint("it looks like robots.example.com:6013, 192.0.2.7 or [2001:db8::7]:6013")
    })?;
    // A port within the address is the more special word; dora's own variable and flag fill in where there is none.
    if !names_port(&text) {
        let from_env = || env("DORA_COORDINATOR_PORT")?.into_string().ok()?.parse().ok();
        if let Some(port) = given.port.or_else(from_env) {
            address.port = port;
        }
    } else if given.port.is_some_and(|port| port != address.port) {
        return Err(Failure::usage(format!(
            "{source} names port {}, and --coordinator-port another one",
            address.port
        )));
    }
    Ok(Some(address))
}

/// The identity on the command line or in the environment, if there is one.
#[must_use]
pub fn named_identity(given: &Given, env: Env<'_>) -> Option<PathBuf> {
    given
        .identity
        .clone()
        .or_else(|| env("DORA_REMOTE_IDENTITY").map(PathBuf::from))
}

fn address_of_up(dir: &Path) -> Option<Address> {
    Record::read(dir)?.address.parse().ok()
}

/// Whether the text names a port: `HOST:PORT` or `[IPv6]:PORT`, and not a bare IPv6 address.
fn names_port(text: &str) -> bool {
    match text.rfind(']') {
        Some(end) => text[end..].contains(':'),
        None => text.matches(':').count() == 1,
    }
}

#[cfg(feature = "server")]
mod daemon;
#[cfg(test)]
mod tests;

#[cfg(feature = "server")]
pub use daemon::resolve_for_daemon;
