//! What the local nodes of a run would start, told by names and places: what the machine's policy judges.
//!
//! Says what is, and forbids nothing. Paths are followed to where they really lead, at this moment.

use super::{
    files::{Found, node_dir},
    program::{Nature, nature},
};
use dora_core::descriptor::ResolvedNode;
use dora_message::{
    descriptor::{CoreNodeKind, Descriptor, EnvValue},
    id::NodeId as DoraNodeId,
};
use dora_remote_protocol::{
    agent_to_engine::RunOrder,
    engine_to_agent::{NodeFacts, OperatorFacts, RunFacts, Starts},
};
use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

/// Gathers the facts of the nodes that were found right.
pub(super) fn gather(
    order: &RunOrder,
    descriptor: &Descriptor,
    nodes: &BTreeMap<DoraNodeId, ResolvedNode>,
    found: &BTreeMap<DoraNodeId, Found>,
) -> RunFacts {
    let facts = found.iter().filter_map(|(id, found)| {
        let node = nodes.get(id)?;
        // The resolved node has the variables of the dataflow among its own.
        let written = descriptor.nodes.iter().find(|written| written.id == *id)?;
        let dir = node_dir(Path::new(&order.run_dir), node);
        let (build, git) = match &node.kind {
            CoreNodeKind::Custom(custom) => (custom.build.is_some(), custom.source.is_git()),
            CoreNodeKind::Runtime(runtime) => {
                let mut operators = runtime.operators.iter();
                (operators.any(|operator| operator.config.build.is_some()), false)
            }
        };
        Some(NodeFacts {
            node: id.as_ref().parse().ok()?,
            starts: starts(found),
            dir: text(&follow(&dir)),
            build,
            git,
            environment: names(written.env.as_ref()),
        })
    });
    RunFacts {
        environment: names(descriptor.env.as_ref()),
        uv: order.uv,
        nodes: facts.collect(),
    }
}

fn starts(found: &Found) -> Starts {
    match found {
        Found::Nothing => Starts::Nothing,
        Found::ShellCommand => Starts::ShellCommand,
        Found::Download => Starts::Download,
        Found::Script(path) => Starts::Python {
            script: text(&follow(path)),
        },
        Found::Program(path) => {
            let real = follow(path);
            let file = text(&real);
            match nature(path, &real) {
                Nature::Program => Starts::Program { file, shell: None },
                Nature::Python => Starts::Python { script: file },
                Nature::Shell(why) => Starts::Program { file, shell: Some(why) },
            }
        }
        Found::Operators(operators) => Starts::Operators(
            operators
                .iter()
                .map(|operator| OperatorFacts {
                    kind: operator.kind,
                    file: operator.file.as_deref().map(|file| text(&follow(file))),
                    conda: operator.conda,
                })
                .collect(),
        ),
    }
}

fn names(environment: Option<&BTreeMap<String, EnvValue>>) -> Vec<String> {
    environment.into_iter().flat_map(BTreeMap::keys).cloned().collect()
}

/// Where an absolute path really leads. What does not exist yet is taken as it is written, since dora makes such directories.
fn follow(path: &Path) -> PathBuf {
    let mut real = PathBuf::new();
    for part in path.components() {
        match part {
            // All links before it are followed by now, so that the parent is the one that the kernel finds.
            Component::ParentDir => {
                real.pop();
            }
            Component::CurDir => {}
            Component::RootDir | Component::Normal(_) | Component::Prefix(_) => {
                real.push(part);
                if let Ok(found) = real.canonicalize() {
                    real = found;
                }
            }
        }
    }
    real
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn paths_are_followed_to_where_the_kernel_would_get() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("there");
        fs::create_dir_all(root.join("a/b")).expect("made");
        fs::write(root.join("a/b/file"), "").expect("written");
        symlink(root.join("a/b"), root.join("link")).expect("made");
        symlink("file", root.join("a/b/again")).expect("made");
        for (path, real) in [
            ("a/b/file", "a/b/file"),
            ("link/again", "a/b/file"),
            ("./link/./file", "a/b/file"),
            // Not `root`, as the letters would have it.
            ("link/..", "a"),
            ("link/../../x", "x"),
            ("new/../../other", "../other"),
            ("link/new/deeper", "a/b/new/deeper"),
        ] {
            let expected = match real.strip_prefix("../") {
                Some(rest) => root.parent().expect("one").join(rest),
                None => root.join(real),
            };
            assert_eq!(follow(&root.join(path)), expected, "{path}");
        }
        assert_eq!(follow(Path::new("/../../..")), Path::new("/"));
    }
}
