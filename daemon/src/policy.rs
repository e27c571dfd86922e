//! What the owner of this machine lets others start on it, whatever the coordinator says.
//!
//! A policy limits what may be asked for. It is no sandbox: a node that runs can do whatever its user can. `file` reads it, `judge`
//! applies it to what the engine found.

mod file;
mod judge;

pub use file::PolicyError;

use crate::on_revoked::OnRevoked;
use dora_remote_protocol::{
    identity::{Identity, IdentityError, Role, TrustDomain},
    name::Name,
};
use serde::Deserialize;
use std::{fmt, path::PathBuf, str::FromStr};

/// Names of environment variables that a dataflow may not set unless the policy says otherwise: those of the loader, and those by
/// which programs that are allowed are made to run others.
const DENIED: &[&str] = &["LD_*", "PYTHON*", "UV_*", "PATH", "BASH_ENV"];
/// Stands for the files that came along with a dataflow.
const BUNDLE: &str = "bundle";

/// What may be started on this machine, and by whom. What it does not allow, it forbids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    start: Start,
    run: Run,
    environment: Environment,
    link: Link,
}

impl Policy {
    /// What becomes of running dataflows when this machine is shut out.
    #[must_use]
    pub const fn on_revoked(&self) -> OnRevoked {
        self.link.on_revoked
    }
}

/// `[start]`: who may start something here. Without both keys everybody whom the coordinator lets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Start {
    roles: Option<Vec<PersonRole>>,
    names: Option<Vec<Person>>,
}

/// `[run]`: what may be started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Run {
    /// Where programs, scripts and operators may lie.
    executables: Vec<Place>,
    /// Where nodes may run, beside the places of executables and the dataflow's own directory.
    directories: Vec<Directory>,
    /// Shells, interpreters, scripts for them, and programs whose purpose is to start others.
    shell: bool,
    /// Scripts for the machine's Python.
    python: bool,
    /// Programs and operators out of the network.
    urls: bool,
    /// Sources out of git repositories.
    git: bool,
    /// Nodes with a `build:` command.
    build: bool,
    /// Operators inside dora's runtime.
    operators: bool,
}

/// `[environment]`: which variables a dataflow may set, by patterns with `*` for any text. A name must fit one of `allow` and none of
/// `deny`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Environment {
    allow: Vec<String>,
    deny: Vec<String>,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            allow: vec!["*".to_owned()],
            deny: DENIED.iter().map(|&pattern| pattern.to_owned()).collect(),
        }
    }
}

/// `[link]`: what follows from the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Link {
    on_revoked: OnRevoked,
}

/// A role that can start something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct PersonRole(Role);

impl TryFrom<String> for PersonRole {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let role: Role = text.parse().map_err(|error: IdentityError| error.to_string())?;
        match role {
            Role::Admin | Role::Operator => Ok(Self(role)),
            Role::Viewer | Role::Daemon | Role::Coordinator => Err(format!("the role `{role}` never starts anything")),
        }
    }
}

/// One holder of a certificate: `ROLE/NAME`, or a SPIFFE id.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Person {
    trust_domain: Option<TrustDomain>,
    role: Role,
    name: Name,
}

impl Person {
    fn is(&self, who: &Identity) -> bool {
        self.role == who.role
            && self.name.same_as(&who.name)
            && self.trust_domain.as_ref().is_none_or(|domain| *domain == who.trust_domain)
    }
}

impl TryFrom<String> for Person {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let person = if text.contains("://") {
            Identity::from_str(&text).map(|who| Self {
                trust_domain: Some(who.trust_domain),
                role: who.role,
                name: who.name,
            })
        } else {
            let (role, name) = text
                .split_once('/')
                .ok_or_else(|| format!("`{}` is neither ROLE/NAME nor a SPIFFE id", text.escape_debug()))?;
            role.parse().and_then(|role| {
                Ok(Self {
                    trust_domain: None,
                    role,
                    name: name.parse()?,
                })
            })
        };
        person.map_err(|error| error.to_string())
    }
}

/// Where executables may lie.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
enum Place {
    /// The files that came along with the dataflow.
    Bundle,
    /// A directory and all below it, or one file.
    At(PathBuf),
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == BUNDLE {
            return Ok(Self::Bundle);
        }
        let Directory(path) = Directory::try_from(text).map_err(|error| format!("{error}, nor \"{BUNDLE}\""))?;
        Ok(Self::At(path))
    }
}

/// An absolute path.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Directory(PathBuf);

impl TryFrom<String> for Directory {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let path = PathBuf::from(&text);
        if path.is_absolute() {
            Ok(Self(path))
        } else {
            Err(format!("`{}` is not an absolute path", text.escape_debug()))
        }
    }
}

impl fmt::Display for Policy {
    /// The policy in one line, for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = &self.run;
        let kinds = [
            ("shell", run.shell),
            ("python", run.python),
            ("urls", run.urls),
            ("git", run.git),
            ("build", run.build),
            ("operators", run.operators),
        ];
        write!(f, "executables: ")?;
        for (index, place) in run.executables.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            match place {
                Place::Bundle => write!(f, "{comma}{BUNDLE}")?,
                Place::At(path) => write!(f, "{comma}{}", path.display())?,
            }
        }
        if run.executables.is_empty() {
            write!(f, "none")?;
        }
        for (kind, _) in kinds.iter().filter(|(_, allowed)| *allowed) {
            write!(f, ", {kind}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
