//! Which coordinator and identity a daemon means that was told neither: those that `join` has written down on its machine.

use super::{Given, Target, chosen_context, named_address, named_identity, read_contexts, resolve};
use crate::{
    contexts::{Contexts, Entry},
    descriptor::listed,
    failure::Failure,
    identities::identity_in,
    places::{self, Env},
};
use dora_remote_protocol::{identity::Role, name::Name};

/// As [`resolve`], for a daemon: where nothing is named, the current context counts only when its identity is that of a
/// daemon, and otherwise the only context with such an identity.
///
/// # Errors
/// Those of [`resolve`], and when several contexts could be meant.
pub fn resolve_for_daemon(given: &Given, env: Env<'_>) -> Result<Target, Failure> {
    let is_named =
        named_address(given, env)?.is_some() || named_identity(given, env).is_some() || chosen_context(given, env)?.is_some();
    if is_named {
        return resolve(given, env);
    }
    let contexts = read_contexts(env)?;
    match of_daemons(&contexts, env).as_slice() {
        [] => resolve(given, env),
        [only] => resolve(&with_context(given, only), env),
        several => match contexts.current.as_ref().and_then(|current| find(several, current)) {
            Some(current) => resolve(&with_context(given, current), env),
            None => Err(Failure::usage(format!(
                "several contexts have the identity of a daemon: {}",
                listed(several.iter().map(ToString::to_string))
            ))
            .hint("name one of them with `--context NAME`")),
        },
    }
}

fn find<'a>(names: &'a [Name], wanted: &Name) -> Option<&'a Name> {
    names.iter().find(|name| name.same_as(wanted))
}

fn with_context(given: &Given, name: &Name) -> Given {
    Given {
        context: Some(name.clone()),
        ..given.clone()
    }
}

fn of_daemons(contexts: &Contexts, env: Env<'_>) -> Vec<Name> {
    let is_daemon = |entry: &Entry| {
        let usual = || Some(places::config_dir(env).ok()?.join("identity"));
        let identity = entry.identity.clone().or_else(usual).and_then(|dir| identity_in(&dir));
        identity.is_some_and(|identity| identity.role == Role::Daemon)
    };
    let all = contexts.contexts.iter();
    all.filter(|(_, entry)| is_daemon(entry))
        .map(|(name, _)| name.clone())
        .collect()
}
