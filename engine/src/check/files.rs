//! What the nodes of this machine need to be there: programs, scripts, libraries, an interpreter.
//!
//! Every path is looked up as dora's spawner looks it up, before anything is started. All that is missing is said at once; what
//! was found is kept for `facts`.

use super::is_dynamic;
use dora_core::{
    adjust_shared_library_path,
    descriptor::{CustomNode, ResolvedNode, resolve_path, source_is_url},
    get_python_path,
};
use dora_message::{
    descriptor::{CoreNodeKind, OperatorSource, SHELL_SOURCE},
    id::NodeId as DoraNodeId,
};
use dora_remote_protocol::{
    agent_to_engine::RunOrder,
    engine_to_agent::OperatorKind,
    refusal::{Refusal, RefusalCode},
};
use std::{
    collections::BTreeMap,
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

/// What dora's spawner would start for a node.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing: the node is dynamic.
    Nothing,
    /// A shell with a command of the descriptor.
    ShellCommand,
    /// What a URL leads to.
    Download,
    /// A file that is executed.
    Program(PathBuf),
    /// A file that Python runs.
    Script(PathBuf),
    /// The runtime with operators.
    Operators(Vec<Operator>),
}

/// One operator as it was found.
#[derive(Debug)]
pub(super) struct Operator {
    pub(super) kind: OperatorKind,
    /// None for a URL.
    pub(super) file: Option<PathBuf>,
    /// Whether it names a conda environment.
    pub(super) conda: bool,
}

impl Found {
    /// Whether it needs the machine's Python interpreter.
    fn needs_python(&self) -> bool {
        match self {
            Self::Nothing | Self::ShellCommand | Self::Download | Self::Program(_) => false,
            Self::Script(_) => true,
            Self::Operators(operators) => operators
                .iter()
                .any(|operator| operator.kind == OperatorKind::Python && !operator.conda),
        }
    }
}

/// Checks the nodes of this machine.
pub(super) fn check<'a>(
    order: &RunOrder,
    run_dir: &Path,
    nodes: impl Iterator<Item = &'a ResolvedNode>,
) -> Result<BTreeMap<DoraNodeId, Found>, Refusal> {
    let (mut all, mut missing) = (BTreeMap::new(), Vec::new());
    if order.uv && !on_path("uv") {
        missing.push(Missing::new(
            "the program `uv` is not on PATH",
            "install uv there, or start without `--uv`",
        ));
    }
    for node in nodes {
        let found = check_node(run_dir, node).map_err(|error| Missing {
            what: format!("node `{}`: {}", node.id, error.what),
            ..error
        });
        match found {
            Ok(found) => drop(all.insert(node.id.clone(), found)),
            Err(error) => missing.push(error),
        }
    }
    if all.values().any(Found::needs_python) && !order.uv && get_python_path().is_err() {
        missing.push(Missing::new(
            "neither `python` nor `python3` is on PATH",
            "start the daemon with the PATH of the environment that has dora-rs, or install Python there",
        ));
    }
    let Some(hint) = missing.first().map(|first| first.hint) else {
        return Ok(all);
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

fn check_node(run_dir: &Path, node: &ResolvedNode) -> Result<Found, Missing> {
    if is_dynamic(node) {
        return Ok(Found::Nothing);
    }
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
            let operators = runtime.operators.iter();
            let operators = operators.map(|operator| check_operator(&dir, &operator.config.source));
            Ok(Found::Operators(operators.collect::<Result<_, _>>()?))
        }
    }
}

fn check_operator(dir: &Path, source: &OperatorSource) -> Result<Operator, Missing> {
    let (kind, source, path, conda) = match source {
        OperatorSource::Python(python) => {
            let path = PathBuf::from(&python.source);
            (OperatorKind::Python, &python.source, path, python.conda_env.is_some())
        }
        OperatorSource::SharedLibrary(source) => {
            let path = adjust_shared_library_path(Path::new(source))
                .map_err(|error| Missing::new(error.to_string(), "name the library as the dora documentation says"))?;
            (OperatorKind::SharedLibrary, source, path, false)
        }
        OperatorSource::Wasm(source) => (OperatorKind::Wasm, source, PathBuf::from(source), false),
    };
    let path = dir.join(path);
    let is_url = source_is_url(source);
    if !is_url && !path.exists() {
        return Err(Missing::file(&path));
    }
    Ok(Operator {
        kind,
        file: (!is_url).then_some(path),
        conda,
    })
}

fn check_custom(dir: &Path, node: &CustomNode) -> Result<Found, Missing> {
    if node.path == SHELL_SOURCE {
        return if env::var(SHELL_SWITCH).as_deref() == Ok("true") {
            Ok(Found::ShellCommand)
        } else {
            Err(Missing::new(
                "shell nodes are not allowed there",
                "set DORA_ALLOW_SHELL_NODES=true for the daemon of the machine and pass it on to the engine (`--pass-env`)",
            ))
        };
    }
    if source_is_url(&node.path) {
        return Ok(Found::Download);
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
    // Dora decides by the path that it has found.
    let script = path.extension().is_some_and(|extension| extension == "py");
    if !script && !is_executable(&path) {
        return Err(Missing::new(
            format!("file {} is not executable", path.display()),
            "set its executable bit (`chmod +x`) where the dataflow comes from",
        ));
    }
    Ok(if script { Found::Script(path) } else { Found::Program(path) })
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

fn on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| is_executable(&dir.join(program))))
}
