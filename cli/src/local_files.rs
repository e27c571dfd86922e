//! Finds the files that nodes name (`path:`, operators) in the dataflow's folder, so that they travel even when git ignores
//! them, and refuses what a machine elsewhere could not find. Reads names and existence, no contents.

use crate::{exit::Exit, failure::Failure};
use dora_core::descriptor::{CoreNodeKind, DYNAMIC_SOURCE, OperatorSource, SHELL_SOURCE, source_is_url};
use dora_remote_protocol::refusal::Changed;
use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

/// Something that a node runs.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Id of the node.
    pub node: String,
    /// Its `deploy.working_dir`.
    pub working_dir: Option<PathBuf>,
    /// What it runs.
    pub source: Source,
    /// Whether a `build:` command makes it.
    pub is_built: bool,
}

/// What a node runs, as the YAML names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An executable or a script; a bare name may also lie on the machine's `PATH`.
    Program(String),
    /// A Python or WebAssembly operator: always a file.
    Module(String),
    /// A shared library, named without the prefix and the end that the platform adds.
    Library(String),
}

/// What a node runs from a file; nothing for nodes that need none.
#[must_use]
pub fn sources(kind: &CoreNodeKind) -> Vec<Source> {
    match kind {
        CoreNodeKind::Custom(custom) => match custom.path.as_str() {
            DYNAMIC_SOURCE | SHELL_SOURCE => Vec::new(),
            path if source_is_url(path) => Vec::new(),
            path => vec![Source::Program(path.to_owned())],
        },
        CoreNodeKind::Runtime(runtime) => runtime
            .operators
            .iter()
            .map(|operator| match &operator.config.source {
                OperatorSource::SharedLibrary(path) => Source::Library(path.clone()),
                OperatorSource::Python(python) => Source::Module(python.source.clone()),
                OperatorSource::Wasm(path) => Source::Module(path.clone()),
            })
            .filter(|source| !source_is_url(source.text()))
            .collect(),
    }
}

impl Source {
    fn text(&self) -> &str {
        match self {
            Self::Program(path) | Self::Module(path) | Self::Library(path) => path,
        }
    }

    /// The file that is meant, as dora makes it from the text.
    fn file(&self) -> PathBuf {
        let path = Path::new(self.text());
        match (self, path.file_name()) {
            (Self::Library(_), Some(name)) if path.extension().is_none() => {
                path.with_file_name(format!("lib{}.so", name.to_string_lossy()))
            }
            _ => path.to_owned(),
        }
    }

    /// Whether the machine may find it without the folder.
    fn may_be_elsewhere(&self) -> bool {
        let path = Path::new(self.text());
        let is_bare = path.components().count() == 1;
        matches!(self, Self::Program(_)) && is_bare && path.extension().is_none_or(|end| end != "py")
    }
}

/// Looks for every wanted file in `folder` and gives those that are there, relative to it.
///
/// # Errors
/// A failure for a path that leaves the folder, for an absolute `deploy.working_dir`, and for a file that is missing.
pub fn find(folder: &Path, wanted: &[Wanted]) -> Result<Vec<PathBuf>, Failure> {
    let mut found = BTreeSet::new();
    for wanted in wanted {
        let node = &wanted.node;
        let base = wanted.working_dir.clone().unwrap_or_default();
        if base.is_absolute() {
            return Err(bad(format!(
                "node `{node}`: `deploy.working_dir: {}` is absolute, but the files of this dataflow travel into a fresh directory",
                base.display()
            ))
            .hint("make it relative to the dataflow's folder, or use `--working-dir DIR` for files that are on the machine already"));
        }
        let file = wanted.source.file();
        if file.is_absolute() {
            // An absolute path is meant on the machine; it is checked there before anything starts.
            continue;
        }
        let Some(relative) = inside(&base.join(&file)) else {
            return Err(bad(format!(
                "node `{node}`: `{}` lies outside of the dataflow's folder {}, which is all that travels",
                base.join(&file).display(),
                folder.display()
            ))
            .hint("move the file into the folder, or the YAML file up, or use `--working-dir DIR` for files that are on the machine already"));
        };
        if fs::metadata(folder.join(&relative)).is_ok() {
            found.insert(relative);
        } else if !wanted.source.may_be_elsewhere() {
            let missing = bad(format!(
                "node `{node}`: the file {} does not exist",
                folder.join(&relative).display()
            ));
            return Err(if wanted.is_built {
                missing.hint("its `build:` command is not run yet by this version: run it first, then start again")
            } else {
                missing.hint("correct `path:`, or build the node first")
            });
        }
    }
    Ok(found.into_iter().collect())
}

/// The path without `.` and `..`, or nothing when it leaves the directory that it is relative to.
#[must_use]
pub fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                if !clean.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

fn bad(message: String) -> Failure {
    Failure::new(Exit::Failed, message).changed(Changed::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(source: Source) -> Wanted {
        Wanted {
            node: "n".to_owned(),
            working_dir: None,
            source,
            is_built: false,
        }
    }

    fn program(path: &str) -> Wanted {
        wanted(Source::Program(path.to_owned()))
    }

    #[test]
    fn files_of_nodes_are_found_however_they_are_written() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("bin/sub")).expect("made");
        for file in ["bin/node", "bin/sub/libop.so", "a.py"] {
            fs::write(folder.path().join(file), "x").expect("written");
        }
        let mut in_bin = program("./node");
        in_bin.working_dir = Some("bin".into());
        let library = wanted(Source::Library("bin/sub/op".to_owned()));
        let all = [
            program("bin/../a.py"),
            in_bin,
            library,
            program("python"),
            program("/usr/bin/env"),
        ];
        let found = find(folder.path(), &all).expect("all there");
        assert_eq!(found, [PathBuf::from("a.py"), "bin/node".into(), "bin/sub/libop.so".into()]);
    }

    #[test]
    fn what_a_machine_elsewhere_could_not_find_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in [
            ("../x", "outside of the dataflow's folder"),
            ("bin/../../x", "outside of the dataflow's folder"),
            ("bin/x", "bin/x does not exist"),
            ("camera.py", "camera.py does not exist"),
        ] {
            let failure = find(folder.path(), &[program(path)]).expect_err(path);
            assert!(failure.message.contains(text), "{path}: {}", failure.message);
            assert_eq!(failure.changed, Some(Changed::Nothing));
        }
        let mut absolute = program("x");
        absolute.working_dir = Some("/srv/flow".into());
        let failure = find(folder.path(), &[absolute]).expect_err("absolute");
        assert!(failure.message.contains("`deploy.working_dir: /srv/flow` is absolute"));
    }
}
