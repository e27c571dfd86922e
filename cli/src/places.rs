//! Where files of this user lie: the XDG base directories and what this program puts below them.

use crate::{exit::Exit, failure::Failure};
use std::{env, ffi::OsString, path::PathBuf};

/// Reads one environment variable; an empty one counts as not set.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The environment of this process.
#[must_use]
pub fn process_env(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// `$XDG_CONFIG_HOME/dora-remote`: identities and authorities.
///
/// # Errors
/// A failure when neither `XDG_CONFIG_HOME` nor `HOME` is set.
pub fn config_dir(env: Env<'_>) -> Result<PathBuf, Failure> {
    base(env, "XDG_CONFIG_HOME", ".config")
}

/// `$XDG_STATE_HOME/dora-remote`: what daemons, coordinators and `up` keep.
///
/// # Errors
/// A failure when neither `XDG_STATE_HOME` nor `HOME` is set.
pub fn state_dir(env: Env<'_>) -> Result<PathBuf, Failure> {
    base(env, "XDG_STATE_HOME", ".local/state")
}

fn base(env: Env<'_>, variable: &str, below_home: &str) -> Result<PathBuf, Failure> {
    let given = env(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = given.or_else(|| Some(PathBuf::from(env("HOME")?).join(below_home)));
    base.map(|base| base.join("dora-remote")).ok_or_else(|| {
        Failure::new(Exit::Failed, format!("neither {variable} nor HOME is set"))
            .hint("set HOME, or name the directory on the command line")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_directories_follow_the_xdg_rules() {
        let env = |name: &str| match name {
            "HOME" => Some(OsString::from("/home/ann")),
            "XDG_STATE_HOME" => Some(OsString::from("relative counts as not set")),
            "XDG_CONFIG_HOME" => Some(OsString::from("/etc/ann")),
            _ => None,
        };
        assert_eq!(config_dir(&env), Ok(PathBuf::from("/etc/ann/dora-remote")));
        assert_eq!(state_dir(&env), Ok(PathBuf::from("/home/ann/.local/state/dora-remote")));
        assert!(state_dir(&|_| None).is_err());
    }
}
