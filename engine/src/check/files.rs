//! What the nodes of this machine need to be there: programs, scripts, libraries, an interpreter.
//!
//! Every path is looked up as dora's spawner looks it up, before anything is started. All that is missing is said at once.

use super::is_dynamic;
use dora_core::{
    adjust_shared_library_path,
    descriptor::{CustomNode, ResolvedNode, resolve_path, source_is_url},
    get_python_path,
};
use dora_message::descriptor::{CoreNodeKind, OperatorSource, SHELL_SOURCE};
use dora_remote_protocol::{
    agent_to_engine::RunOrder,
    refusal::{Refusal, RefusalCode},
};
use std::{
    env,
    fmt::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Variables that dora's spawner expands in the path of a node; no others.
const EXPANDED: &[&str] = &["HOME", "USER", "DORA_WORKSPACE", "CARGO_MANIFEST_DIR", "PWD"];
/// Switch of dora's spawner for `path: shell`.
const SHELL_SWITCH: &str = "DORA_ALLOW_SHELL_NODES";
/// Missing things that are named one by one; more are counted.
const NAMED: usize = 8;

/// Checks the nodes of this machine.
pub(super) fn check<'a>(
    order: &RunOrder,
    run_dir: &Path,
    nodes: impl Iterator<Item = &'a ResolvedNode> + Clone,
) -> Result<(), Refusal> {
    let mut missing = Vec::new();
    if order.uv && !on_path("uv") {
        missing.push(Missing::new(
            "the program `uv` is not on PATH",
            "install uv there, or start without `--uv`",
        ));
    }
    let mut python = false;
    for node in nodes.filter(|node| !is_dynamic(node)) {
        let found = check_node(run_dir, node).map_err(|error| Missing {
            what: format!("node `{}`: {}", node.id, error.what),
            ..error
        });
        match found {
            Ok(needs_python) => python |= needs_python,
            Err(error) => missing.push(error),
        }
    }
    if python && !order.uv && get_python_path().is_err() {
        missing.push(Missing::new(
            "neither `python` nor `python3` is on PATH",
            "start the daemon with the PATH of the environment that has dora-rs, or install Python there",
        ));
    }
    let Some(hint) = missing.first().map(|first| first.hint) else {
        return Ok(());
    };
    let mut message = format!("machine `{}`: ", order.machine);
    for (index, one) in missing.iter().take(NAMED).enumerate() {
        let _ = write!(message, "{}{}", if index == 0 { "" } else { "; " }, one.what);
    }
    if missing.len() > NAMED {
        let _ = write!(message, "; and {} more", missing.len() - NAMED);
    }
    Err(Refusal::new(RefusalCode::NotPrepared, message).hint(hint))
}

/// The directory in which dora runs a node.
pub(super) fn node_dir(run_dir: &Path, node: &ResolvedNode) -> PathBuf {
    let own = node.deploy.as_ref().and_then(|deploy| deploy.working_dir.as_ref());
    own.map_or_else(|| run_dir.to_owned(), |own| run_dir.join(own))
}

#[derive(Debug)]
struct Missing {
    what: String,
    hint: &'static str,
}

impl Missing {
    fn new(what: impl Into<String>, hint: &'static str) -> Self {
        Self { what: what.into(), hint }
    }

    fn file(path: &Path) -> Self {
        Self::new(
            format!("file {} does not exist", path.display()),
            "the dataflow's folder travels along unless it is excluded; built programs must be inside it or on the machine already",
        )
    }
}

/// Tells whether the node needs a Python interpreter.
fn check_node(run_dir: &Path, node: &ResolvedNode) -> Result<bool, Missing> {
    let dir = node_dir(run_dir, node);
    let own = node.deploy.as_ref().and_then(|deploy| deploy.working_dir.as_ref());
    if own.is_some_and(|own| own.is_absolute()) && !dir.is_dir() {
        return Err(Missing::new(
            format!("directory {} (`deploy.working_dir`) does not exist", dir.display()),
            "an absolute `deploy.working_dir` must be there on the machine; a relative one is taken from the dataflow's folder",
        ));
    }
    match &node.kind {
        CoreNodeKind::Custom(custom) => check_custom(&dir, custom),
        CoreNodeKind::Runtime(runtime) => {
            let mut python = false;
            for operator in &runtime.operators {
                let (source, path) = match &operator.config.source {
                    OperatorSource::Python(source) => {
                        python |= source.conda_env.is_none();
                        (&source.source, PathBuf::from(&source.source))
                    }
                    OperatorSource::SharedLibrary(source) => (
                        source,
                        adjust_shared_library_path(Path::new(source)).map_err(|error| {
                            Missing::new(error.to_string(), "name the library as the dora documentation says")
                        })?,
                    ),
                    OperatorSource::Wasm(source) => (source, PathBuf::from(source)),
                };
                if !source_is_url(source) && !dir.join(&path).exists() {
                    return Err(Missing::file(&dir.join(path)));
                }
            }
            Ok(python)
        }
    }
}

fn check_custom(dir: &Path, node: &CustomNode) -> Result<bool, Missing> {
    if node.path == SHELL_SOURCE {
        return if env::var(SHELL_SWITCH).as_deref() == Ok("true") {
            Ok(false)
        } else {
            Err(Missing::new(
                "shell nodes are not allowed there",
                "set DORA_ALLOW_SHELL_NODES=true for the daemon of the machine and pass it on to the engine (`--pass-env`)",
            ))
        };
    }
    if source_is_url(&node.path) {
        return Ok(false);
    }
    let source = shellexpand::env_with_context_no_errors(&node.path, |name| {
        EXPANDED.contains(&name).then(|| env::var(name).ok()).flatten()
    });
    let script = Path::new(source.as_ref())
        .extension()
        .is_some_and(|extension| extension == "py");
    let Ok(path) = resolve_path(&source, dir) else {
        return Err(if script || source.contains('/') {
            Missing::file(&dir.join(source.as_ref()))
        } else {
            Missing::new(
                format!("`{source}` is neither a file in {} nor a program on PATH", dir.display()),
                "install it there, or start the daemon with a PATH that has it",
            )
        });
    };
    if path.is_dir() {
        return Err(Missing::new(
            format!("{} is a directory", path.display()),
            "name the program inside it",
        ));
    }
    if !script && !is_executable(&path) {
        return Err(Missing::new(
            format!("file {} is not executable", path.display()),
            "set its executable bit (`chmod +x`) where the dataflow comes from",
        ));
    }
    Ok(script)
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

fn on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| is_executable(&dir.join(program))))
}
