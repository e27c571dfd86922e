//! Which coordinator a command means, and as whom it asks.
//!
//! Address: flag, `DORA_REMOTE_ADDR`, `DORA_COORDINATOR_ADDR`, the local one made by `up`. Identity: flag,
//! `DORA_REMOTE_IDENTITY`, the one made by `up` when its coordinator is meant, the user's own.

use crate::{
    failure::Failure,
    local::{Record, up_dir, up_identity},
    places::{self, Env},
};
use dora_remote_link::Address;
use std::path::{Path, PathBuf};

/// What the command line says about the coordinator.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `--coordinator-addr`.
    pub address: Option<String>,
    /// `--coordinator-port`.
    pub port: Option<u16>,
    /// `--identity`.
    pub identity: Option<PathBuf>,
}

/// A coordinator and an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where the coordinator is.
    pub address: Address,
    /// Directory with the certificate, the key and the root.
    pub identity: PathBuf,
}

/// Decides which coordinator and which identity are meant.
///
/// # Errors
/// A failure when no coordinator is named, or what is named is no address.
pub fn resolve(given: &Given, env: Env<'_>) -> Result<Target, Failure> {
    let up = places::state_dir(env).ok().map(|dir| up_dir(&dir));
    let up_address = up.as_deref().and_then(address_of_up);
    let address = match named_address(given, env)? {
        Some(address) => address,
        None => up_address.clone().ok_or_else(|| {
            Failure::usage("no coordinator is named")
                .hint("use `--coordinator-addr HOST[:PORT]` or set DORA_REMOTE_ADDR; `dora-remote up` starts one on this machine")
        })?,
    };
    let identity = match (named_identity(given, env), up) {
        (Some(identity), _) => identity,
        (None, Some(up)) if up_address.as_ref() == Some(&address) => up_identity(&up),
        (None, _) => places::config_dir(env)?.join("identity"),
    };
    Ok(Target { address, identity })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{exit::Exit, local::Process};
    use std::{ffi::OsString, fs};

    fn env_of<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        move |name| {
            set.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        }
    }

    fn address(given: &Given, set: &[(&str, &str)]) -> String {
        let env = env_of(set);
        let found = named_address(given, &env).expect("good").expect("named");
        found.to_string()
    }

    fn with_flag(text: &str) -> Given {
        Given {
            address: Some(text.to_owned()),
            ..Given::default()
        }
    }

    #[test]
    fn the_flag_wins_over_our_variable_and_ours_over_doras() {
        let set = [("DORA_REMOTE_ADDR", "ours"), ("DORA_COORDINATOR_ADDR", "doras")];
        assert_eq!(address(&with_flag("flag:1"), &set), "flag:1");
        assert_eq!(address(&Given::default(), &set), "ours:6013");
        assert_eq!(address(&Given::default(), &set[1..]), "doras:6013");
    }

    #[test]
    fn a_port_may_stand_beside_the_address() {
        let mut given = with_flag("2001:db8::7");
        given.port = Some(7);
        assert_eq!(address(&given, &[]), "[2001:db8::7]:7");
        assert_eq!(address(&with_flag("h"), &[("DORA_COORDINATOR_PORT", "9")]), "h:9");
        assert_eq!(address(&with_flag("h:5"), &[("DORA_COORDINATOR_PORT", "9")]), "h:5");
        let mut given = with_flag("h:6013");
        given.port = Some(7);
        assert_eq!(named_address(&given, &|_| None).expect_err("two ports").exit, Exit::Usage);
    }

    #[test]
    fn without_any_address_the_one_of_up_is_meant_with_its_identity() {
        let home = tempfile::tempdir().expect("a directory");
        let home_text = home.path().to_str().expect("UTF-8").to_owned();
        let set = [("HOME", home_text.as_str())];
        let env = env_of(&set);
        assert_eq!(resolve(&Given::default(), &env).expect_err("nothing runs").exit, Exit::Usage);

        let up = home.path().join(".local/state/dora-remote/up");
        fs::create_dir_all(&up).expect("made");
        let this = Process { pid: 1, started: 1 };
        Record::new("127.0.0.1:7001".to_owned(), this, this)
            .write(&up)
            .expect("written");
        let target = resolve(&Given::default(), &env).expect("found");
        assert_eq!(
            (target.address.to_string(), target.identity),
            ("127.0.0.1:7001".to_owned(), up.join("admin"))
        );

        let elsewhere = resolve(&with_flag("robots"), &env).expect("named");
        assert_eq!(elsewhere.identity, home.path().join(".config/dora-remote/identity"));
        let set = [("HOME", home_text.as_str()), ("DORA_REMOTE_IDENTITY", "/id")];
        assert_eq!(
            resolve(&Given::default(), &env_of(&set)).expect("found").identity,
            PathBuf::from("/id")
        );
    }

    #[test]
    fn what_is_no_address_is_a_mistake_of_the_command_line() {
        let failure = named_address(&with_flag("a:b:c:d"), &|_| None).expect_err("no address");
        assert_eq!(failure.exit, Exit::Usage);
    }
}
