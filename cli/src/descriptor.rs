//! Reads a dataflow's YAML as dora does, checks it before anything is sent, and makes the text that travels.
//!
//! `$NAME` in values under `env:` is expanded here, where the command is typed, and nowhere else: the text that leaves has
//! every `$` of such a value doubled, so that each later reader gets the value as it stands here. Files on disk are looked at
//! in [`crate::local_files`].

use crate::{
    env_vars::Variables,
    exit::Exit,
    failure::Failure,
    local_files::{self, Wanted},
};
use dora_core::descriptor::{
    CoreNodeKind, DYNAMIC_SOURCE, Descriptor, DescriptorExt, Node, ResolvedNode, canonicalize_working_dir,
    validate::check_dataflow_static,
};
use dora_remote_protocol::{
    dataflow::NodeSpec,
    ids::NodeId,
    limits::{MAX_DESCRIPTOR_BYTES, MAX_LABEL_BYTES, MAX_LABELS, MAX_NODES},
    name::{DataflowName, MachineName},
    refusal::Changed,
};
use serde::de::DeserializeOwned;
use std::{
    collections::BTreeMap,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};

/// What the command line says about a dataflow besides its file.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Variables for every node; a node's own `env:` wins over them, they win over the `env:` of the dataflow.
    pub variables: Variables,
    /// Overrides `exit_when_nodes_finish`.
    pub exit_when_nodes_finish: Option<bool>,
    /// The files are on the machine already; nothing is looked for here.
    pub files_on_machine: bool,
}

/// A dataflow that was read and checked.
#[derive(Clone, Debug)]
pub struct Dataflow {
    /// What travels.
    pub text: String,
    /// Every node with what it asks of its machine.
    pub nodes: Vec<NodeSpec>,
    /// The folder of the YAML file, absolute.
    pub folder: PathBuf,
    /// Files that nodes name, relative to the folder: they travel even when git ignores them.
    pub named_files: Vec<PathBuf>,
    /// What the dataflow is called when nobody says otherwise.
    pub default_name: Option<DataflowName>,
    /// What people should know.
    pub notes: Vec<String>,
}

/// Reads, expands and checks the dataflow in `path`.
///
/// # Errors
/// A failure that names the file, and line and column where the YAML itself is wrong. Nothing has been changed or sent.
pub fn read(path: &Path, wishes: &Wishes) -> Result<Dataflow, Failure> {
    let shown = path.display();
    let bytes = fs::read(path).map_err(|error| unreadable(path, &error))?;
    // The outermost text of the report says only that parsing failed.
    let descriptor = Descriptor::parse(bytes).map_err(|report| bad_yaml(path, texts(report.chain().skip(1))))?;
    let folder = canonicalize_working_dir(None, path)
        .map_err(|report| because(format!("cannot find the folder of `{shown}`"), report.chain()))?;
    let mut descriptor = descriptor
        .expand(&folder)
        .map_err(|report| because(format!("cannot expand the modules of `{shown}`"), report.chain()))?;
    refuse_unsupported(&descriptor, path)?;
    let mut notes = merge_variables(&mut descriptor, &wishes.variables)?;
    descriptor.apply_exit_when_nodes_finish(wishes.exit_when_nodes_finish);
    let not_good = || format!("`{shown}` is not a good dataflow");
    check_dataflow_static(&descriptor).map_err(|report| because(not_good(), report.chain()))?;
    let resolved = descriptor
        .resolve_aliases_and_set_defaults()
        .map_err(|report| because(not_good(), report.chain()))?;
    let nodes = resolved.values().map(node_spec).collect::<Result<Vec<_>, Failure>>()?;
    if nodes.is_empty() || nodes.len() > MAX_NODES {
        return Err(bad(format!(
            "`{shown}` has {} nodes, and 1 to {MAX_NODES} are possible",
            nodes.len()
        )));
    }
    let built = nodes_with_build(&descriptor);
    let named_files = if wishes.files_on_machine {
        Vec::new()
    } else {
        local_files::find(&folder, &wanted_files(resolved.values(), &built))?
    };
    if !built.is_empty() {
        notes.push(format!(
            "`build:` of {} is not run yet: what it makes must be there already",
            listed(built.iter().map(ToString::to_string))
        ));
    }
    double_dollars(&mut descriptor)?;
    let text = serde_yaml::to_string(&descriptor)
        .map_err(|error| bad(format!("`{shown}` cannot be written down for its way")).cause(error.to_string()))?;
    if text.len() > MAX_DESCRIPTOR_BYTES {
        return Err(bad(format!(
            "`{shown}` has {} bytes after expansion, and at most {MAX_DESCRIPTOR_BYTES} can be sent",
            text.len()
        )));
    }
    Ok(Dataflow {
        text,
        nodes,
        default_name: default_name(path, &folder),
        folder,
        named_files,
        notes,
    })
}

/// Merges variables of the command line where dora does: over the dataflow's `env:`, under each node's own.
fn merge_variables(descriptor: &mut Descriptor, variables: &Variables) -> Result<Vec<String>, Failure> {
    let mut notes = Vec::new();
    for (name, value) in variables {
        if reads_as_another_number(value) {
            notes.push(format!(
                "dora reads the value of `{name}` as a number and passes it on in its shortest form"
            ));
        }
        let env = descriptor.env.get_or_insert_with(BTreeMap::new);
        env.insert(name.clone(), literal(value)?);
    }
    Ok(notes)
}

/// dora keeps a value that looks like a number as one: `007` arrives as `7`.
fn reads_as_another_number(value: &str) -> bool {
    let as_integer = value.parse::<i64>().map(|number| number.to_string());
    let as_float = || value.parse::<f64>().map(|number| number.to_string());
    as_integer.or_else(|_| as_float()).is_ok_and(|text| text != value)
}

/// Doubles every `$` in the values that each reader of a descriptor expands: those under `env:`, of the dataflow and of nodes.
fn double_dollars(descriptor: &mut Descriptor) -> Result<(), Failure> {
    let of_nodes = descriptor.nodes.iter_mut().filter_map(|node| node.env.as_mut());
    for value in of_nodes.chain(descriptor.env.as_mut()).flat_map(BTreeMap::values_mut) {
        let text = value.to_string();
        if text.contains('$') {
            *value = literal(&text.replace('$', "$$"))?;
        }
    }
    Ok(())
}

/// Makes an `env:` value whose text is exactly `text`: reading one expands it, so every `$` is doubled for that reading.
fn literal<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_value(serde_json::Value::String(text.replace('$', "$$")))
        .map_err(|_| bad("a value for the environment cannot be written down".to_owned()))
}

fn node_spec(node: &ResolvedNode) -> Result<NodeSpec, Failure> {
    let id: NodeId = node.id.to_string().parse().map_err(|error| bad(format!("{error}")))?;
    let deploy = node.deploy.clone().unwrap_or_default();
    let machine: Option<MachineName> = match deploy.machine {
        None => None,
        Some(machine) => Some(
            machine
                .parse()
                .map_err(|error| bad(format!("`deploy.machine` of node `{id}` is no machine: {error}")))?,
        ),
    };
    let too_long = |text: &String| text.len() > MAX_LABEL_BYTES;
    if deploy.labels.len() > MAX_LABELS || deploy.labels.iter().any(|(key, value)| too_long(key) || too_long(value)) {
        return Err(bad(format!(
            "`deploy.labels` of node `{id}`: at most {MAX_LABELS} labels of at most {MAX_LABEL_BYTES} bytes are possible"
        )));
    }
    let dynamic = matches!(&node.kind, CoreNodeKind::Custom(custom) if custom.path == DYNAMIC_SOURCE);
    Ok(NodeSpec {
        id,
        machine,
        labels: deploy.labels,
        dynamic,
    })
}

/// What every node runs, as far as it may lie in the folder.
fn wanted_files<'a>(nodes: impl Iterator<Item = &'a ResolvedNode>, built: &[String]) -> Vec<Wanted> {
    nodes
        .flat_map(|node| {
            let working_dir = node.deploy.as_ref().and_then(|deploy| deploy.working_dir.clone());
            local_files::sources(&node.kind).into_iter().map(move |source| Wanted {
                node: node.id.to_string(),
                working_dir: working_dir.clone(),
                source,
                is_built: built.contains(&node.id.to_string()),
            })
        })
        .collect()
}

fn nodes_with_build(descriptor: &Descriptor) -> Vec<String> {
    let has_build = |node: &Node| {
        let of_operator = node.operator.as_ref().is_some_and(|operator| operator.config.build.is_some());
        let of_operators = node
            .operators
            .as_ref()
            .is_some_and(|runtime| runtime.operators.iter().any(|operator| operator.config.build.is_some()));
        node.build.is_some() || of_operator || of_operators
    };
    descriptor
        .nodes
        .iter()
        .filter(|node| has_build(node))
        .map(|node| node.id.to_string())
        .collect()
}

fn refuse_unsupported(descriptor: &Descriptor, path: &Path) -> Result<(), Failure> {
    for node in &descriptor.nodes {
        let (key, next) = if node.hub.is_some() {
            ("hub", "name the node by `path:` instead")
        } else if node.git.is_some() {
            (
                "git",
                "clone the repository into the dataflow's folder, or onto the machine and use `--working-dir DIR`",
            )
        } else {
            continue;
        };
        return Err(bad(format!(
            "node `{}` of `{}` comes from `{key}:`, which this version does not fetch yet",
            node.id,
            path.display()
        ))
        .hint(next));
    }
    Ok(())
}

/// The file's name without its end; for the usual `dataflow.yml` the name of its folder.
fn default_name(path: &Path, folder: &Path) -> Option<DataflowName> {
    let stem = path.file_stem()?.to_string_lossy();
    let folder = folder.file_name().map(|name| name.to_string_lossy());
    let usual = stem.eq_ignore_ascii_case("dataflow");
    let candidates = if usual {
        [folder.as_deref(), Some(&*stem)]
    } else {
        [Some(&*stem), None]
    };
    candidates.into_iter().flatten().find_map(as_name)
}

fn as_name(text: &str) -> Option<DataflowName> {
    let usable: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                c
            } else {
                '-'
            }
        })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        // Room for the number that the coordinator puts behind a name that is taken.
        .take(56)
        .collect();
    usable.parse().ok()
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let exit = if error.kind() == io::ErrorKind::NotFound {
        Exit::NotFound
    } else {
        Exit::Failed
    };
    Failure::new(exit, format!("cannot read the dataflow `{}`", path.display()))
        .cause(error.to_string())
        .hint("name the YAML file that describes the dataflow")
        .changed(Changed::Nothing)
}

fn bad_yaml(path: &Path, causes: Vec<String>) -> Failure {
    let place = causes.iter().find_map(|cause| place_in(cause)).unwrap_or_default();
    let about_env = causes
        .iter()
        .any(|cause| cause.contains("EnvValue") || cause.contains("environment variable"));
    let mut failure = bad(format!("`{}{place}` is not a good dataflow", path.display()));
    failure.causes = causes;
    if about_env {
        return failure.hint(
            "a value under `env:` names a variable that is not set here; write `${NAME:-default}` for a default, `$$` for a plain `$`",
        );
    }
    failure
}

/// `:LINE:COLUMN` from the `at line LINE column COLUMN` of the YAML reader.
fn place_in(text: &str) -> Option<String> {
    let behind = &text[text.rfind("at line ")? + "at line ".len()..];
    let (line, behind) = behind.split_once(" column ")?;
    let column: String = behind.chars().take_while(char::is_ascii_digit).collect();
    (!column.is_empty() && line.bytes().all(|b| b.is_ascii_digit())).then(|| format!(":{line}:{column}"))
}

fn because<'a>(message: String, chain: impl Iterator<Item = &'a (dyn Error + 'static)>) -> Failure {
    let mut failure = bad(message);
    failure.causes = texts(chain);
    failure
}

fn texts<'a>(chain: impl Iterator<Item = &'a (dyn Error + 'static)>) -> Vec<String> {
    chain.map(ToString::to_string).collect()
}

fn bad(message: String) -> Failure {
    Failure::new(Exit::Failed, message).changed(Changed::Nothing)
}

/// `a`, `b` and `c`, in backticks.
pub(crate) fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests;
