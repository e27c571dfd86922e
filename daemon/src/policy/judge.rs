//! Judges who starts something, and what the engine says would be started. Pure but for [`Policy::roots`].
//!
//! Everything that is forbidden is said at once, with the keys of the policy that decide it.

use super::{Place, Policy};
use crate::environment;
use dora_remote_protocol::{
    engine_to_agent::{NodeFacts, OperatorFacts, OperatorKind, RunFacts, Starts},
    identity::Identity,
    name::MachineName,
    refusal::{Refusal, RefusalCode},
};
use std::{
    collections::BTreeSet,
    fmt::{Display, Write as _},
    fs,
    path::{Path, PathBuf},
};

/// Forbidden things that are named one by one; more are counted.
const NAMED: usize = 8;

/// The places of a policy as they really lie at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roots {
    /// Where executables may lie.
    executables: Vec<PathBuf>,
    /// Where nodes may run.
    directories: Vec<PathBuf>,
}

#[cfg(test)]
impl Roots {
    /// Roots that need not exist.
    pub(super) fn of(executables: Vec<PathBuf>, directories: Vec<PathBuf>) -> Self {
        Self {
            executables,
            directories,
        }
    }
}

impl Policy {
    /// Whether somebody may start something here at all. `by` is a SPIFFE id; whoever has none is refused where the policy limits who.
    pub(crate) fn may_start(&self, machine: &MachineName, by: &str) -> Result<(), Refusal> {
        let (roles, names) = (&self.start.roles, &self.start.names);
        if roles.is_none() && names.is_none() {
            return Ok(());
        }
        let who = by.parse::<Identity>().ok();
        let allowed = who.as_ref().is_some_and(|who| {
            roles.iter().flatten().any(|role| role.0 == who.role) || names.iter().flatten().any(|person| person.is(who))
        });
        if allowed {
            return Ok(());
        }
        let who = match who {
            Some(who) => format!("`{}/{}`", who.role, who.name),
            None => "somebody without a name".to_owned(),
        };
        let message = format!("machine `{machine}` forbids {who} to start anything on it");
        Err(Refusal::new(RefusalCode::ForbiddenByMachine, message).hint(hint(&BTreeSet::from(["start.names", "start.roles"]))))
    }

    /// Finds where the places of the policy really lie. `bundle`: the directory of the files that came along, if any did. A place
    /// that does not exist holds nothing. Blocks for the time of a few lookups.
    pub(crate) fn roots(&self, bundle: Option<&Path>) -> Roots {
        let real = |path: &Path| fs::canonicalize(path).ok();
        let executables: Vec<PathBuf> = self
            .run
            .executables
            .iter()
            .filter_map(|place| match place {
                Place::Bundle => real(bundle?),
                Place::At(path) => real(path),
            })
            .collect();
        let directories = self.run.directories.iter().map(|directory| directory.0.as_path());
        let directories = directories.chain(bundle).filter_map(real);
        Roots {
            directories: directories.chain(executables.iter().cloned()).collect(),
            executables,
        }
    }

    /// Whether all of a run may be started here.
    pub(crate) fn judge(&self, machine: &MachineName, facts: &RunFacts, roots: &Roots) -> Result<(), Refusal> {
        let mut forbidden = Forbidden::default();
        if facts.nodes.iter().any(|node| node.starts != Starts::Nothing) {
            for name in self.denied(&facts.environment) {
                forbidden.add(&"the dataflow", "environment", format!("it sets the variable `{name}`"));
            }
        }
        for node in &facts.nodes {
            self.judge_node(facts.uv, node, roots, &mut forbidden);
        }
        forbidden.refusal(machine)
    }

    fn judge_node(&self, uv: bool, node: &NodeFacts, roots: &Roots, forbidden: &mut Forbidden) {
        let run = &self.run;
        let mut forbid = |key, what: String| forbidden.add(&format_args!("node `{}`", node.node), key, what);
        let is_executable = |path: &str| is_below(path, &roots.executables);
        if node.git && !run.git {
            forbid("run.git", "its source is a git repository".to_owned());
        }
        if node.build && !run.build {
            forbid("run.build", "it has a `build:` command".to_owned());
        }
        let own_code = match &node.starts {
            Starts::Nothing => return,
            Starts::ShellCommand => {
                if !run.shell {
                    forbid("run.shell", "it is a shell command".to_owned());
                }
                false
            }
            Starts::Download => {
                if !run.urls {
                    forbid("run.urls", "it is downloaded from a URL".to_owned());
                }
                uv
            }
            Starts::Program { file, shell } => {
                if !is_executable(file) {
                    let what = format!("its executable {} is not under an allowed root", plain(file));
                    forbid("run.executables", what);
                }
                if let Some(why) = shell.as_deref().filter(|_| !run.shell) {
                    let what = format!("its executable {} counts as a shell: {}", plain(file), plain(why));
                    forbid("run.shell", what);
                }
                uv
            }
            Starts::Python { script } => {
                if !is_executable(script) {
                    let what = format!("its script {} is not under an allowed root", plain(script));
                    forbid("run.executables", what);
                }
                if !run.python {
                    forbid("run.python", format!("its script {} is for Python", plain(script)));
                }
                uv
            }
            Starts::Operators(operators) => {
                if !run.operators {
                    forbid("run.operators", "it has operators".to_owned());
                }
                for operator in operators {
                    self.judge_operator(operator, roots, &mut forbid);
                }
                // The runtime is imported by a Python that looks into the node's directory first.
                operators.iter().any(|operator| operator.kind == OperatorKind::Python)
            }
        };
        if own_code && !is_executable(&node.dir) {
            let what = format!(
                "it takes code from its directory {}, which is not under an allowed root",
                plain(&node.dir)
            );
            forbid("run.executables", what);
        } else if !is_below(&node.dir, &roots.directories) {
            let what = format!("its directory {} is not among the allowed ones", plain(&node.dir));
            forbid("run.directories", what);
        }
        for name in self.denied(&node.environment) {
            forbid("environment", format!("it sets the variable `{name}`"));
        }
    }

    fn judge_operator(&self, operator: &OperatorFacts, roots: &Roots, forbid: &mut impl FnMut(&'static str, String)) {
        let run = &self.run;
        match &operator.file {
            Some(file) if !is_below(file, &roots.executables) => {
                let what = format!("its operator {} is not under an allowed root", plain(file));
                forbid("run.executables", what);
            }
            None if !run.urls => forbid("run.urls", "an operator of it is downloaded from a URL".to_owned()),
            Some(_) | None => {}
        }
        if operator.kind == OperatorKind::Python && !run.python {
            forbid("run.python", "it has an operator for Python".to_owned());
        }
        // Whoever names the environment chooses the interpreter.
        if operator.conda && !run.shell {
            forbid("run.shell", "it chooses the conda environment of an operator".to_owned());
        }
    }

    /// The names that may not be set, printable. Names that must not be set are known by any case of their letters.
    fn denied<'a>(&'a self, names: &'a [String]) -> impl Iterator<Item = String> + 'a {
        let rules = &self.environment;
        let allowed = |name: &str| rules.allow.iter().any(|pattern| environment::matches(pattern, name));
        let denied = |name: &str| {
            let name = name.to_uppercase();
            let mut deny = rules.deny.iter();
            deny.any(|pattern| environment::matches(&pattern.to_uppercase(), &name))
        };
        let forbidden = names.iter().filter(move |name| denied(name) || !allowed(name));
        forbidden.map(|name| plain(name))
    }
}

/// Whether a real path is one of the roots or lies below one.
fn is_below(path: &str, roots: &[PathBuf]) -> bool {
    roots.iter().any(|root| Path::new(path).starts_with(root))
}

/// A text of a stranger without control characters, and not longer than a line needs.
fn plain(text: &str) -> String {
    const MOST: usize = 300;
    let mut plain: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        plain.push_str("...");
    }
    plain
}

/// What is forbidden of one run, and by which keys.
#[derive(Debug, Default)]
struct Forbidden {
    text: String,
    count: usize,
    keys: BTreeSet<&'static str>,
}

impl Forbidden {
    fn add(&mut self, what: &dyn Display, key: &'static str, why: String) {
        self.count += 1;
        self.keys.insert(key);
        if self.count <= NAMED {
            let _ = write!(self.text, "{}{what}: {why}", if self.count == 1 { "" } else { "; " });
        }
    }

    fn refusal(self, machine: &MachineName) -> Result<(), Refusal> {
        if self.count == 0 {
            return Ok(());
        }
        let mut message = format!("machine `{machine}` forbids {}", self.text);
        if self.count > NAMED {
            let _ = write!(message, "; and {} more", self.count - NAMED);
        }
        Err(Refusal::new(RefusalCode::ForbiddenByMachine, message).hint(hint(&self.keys)))
    }
}

fn hint(keys: &BTreeSet<&'static str>) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    format!(
        "the policy on the machine decides that, by {}; nothing was started",
        keys.join(", ")
    )
}
