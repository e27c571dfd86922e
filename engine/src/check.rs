//! Whether a run can be made here: the descriptor is parsed once, all of it is resolved, the part of this machine is looked at.
//!
//! No process of the run is made and nothing is written. What was found right is kept for the spawn, and what it would start for
//! the policy of the machine.

mod facts;
mod files;
mod program;

use dora_core::descriptor::{Descriptor, DescriptorExt as _, ResolvedNode, validate};
use dora_message::{
    descriptor::{CoreNodeKind, DYNAMIC_SOURCE},
    id::NodeId as DoraNodeId,
};
use dora_remote_protocol::{
    agent_to_engine::RunOrder,
    dataflow::PlacedNode,
    engine_to_agent::{NodeOutput, RunFacts},
    limits::{MAX_DESCRIPTOR_BYTES, MAX_NODES},
    name::MachineName,
    refusal::{Refusal, RefusalCode},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// A run that was found right.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The descriptor, its env values as they are meant.
    pub(crate) descriptor: Descriptor,
    /// All nodes of the dataflow, aliases and defaults resolved.
    pub(crate) nodes: BTreeMap<DoraNodeId, ResolvedNode>,
    /// The nodes of this machine.
    pub(crate) local: BTreeSet<DoraNodeId>,
    /// Where their output will be.
    pub(crate) outputs: Vec<NodeOutput>,
    /// What would be started.
    pub(crate) facts: RunFacts,
}

/// Checks one order. Looks at files and may run `python` and `uv`, so that it belongs on a thread that may block.
///
/// # Errors
/// [`RefusalCode::BadDescriptor`] for what is wrong everywhere, [`RefusalCode::NotPrepared`] for what this machine lacks.
pub(crate) fn check(order: &RunOrder) -> Result<Checked, Refusal> {
    if order.descriptor.len() > MAX_DESCRIPTOR_BYTES || order.nodes.len() > MAX_NODES {
        let message = format!(
            "a descriptor of {} bytes with {} nodes; at most {MAX_DESCRIPTOR_BYTES} and {MAX_NODES} are allowed",
            order.descriptor.len(),
            order.nodes.len()
        );
        return Err(Refusal::new(RefusalCode::BadRequest, message));
    }
    let run_dir = Path::new(&order.run_dir);
    if !run_dir.is_absolute() || !run_dir.is_dir() {
        let message = format!("machine `{}`: directory {} does not exist", order.machine, run_dir.display());
        return Err(Refusal::new(RefusalCode::NotPrepared, message)
            .hint("with `--working-dir`, the directory must be there on every machine of the dataflow"));
    }
    let descriptor = Descriptor::parse(order.descriptor.clone().into_bytes()).map_err(|error| bad(&error))?;
    refuse_sources(&descriptor)?;
    let nodes = descriptor.resolve_aliases_and_set_defaults().map_err(|error| bad(&error))?;
    validate::check_dataflow_static(&descriptor).map_err(|error| bad(&error))?;
    for node in nodes.values() {
        // A value that is out of range makes a dora daemon panic.
        validate::check_node_timing_values(node).map_err(|error| bad(&error))?;
    }
    let local = compare(order, &nodes)?;
    let found = files::check(order, run_dir, local.iter().filter_map(|id| nodes.get(id)))?;
    let facts = facts::gather(order, &descriptor, &nodes, &found);
    let outputs = local.iter().filter_map(|id| output(order, run_dir, nodes.get(id)?)).collect();
    Ok(Checked {
        descriptor,
        nodes,
        local,
        outputs,
        facts,
    })
}

/// Whether a node is started by somebody else.
pub(crate) fn is_dynamic(node: &ResolvedNode) -> bool {
    matches!(&node.kind, CoreNodeKind::Custom(custom) if custom.path == DYNAMIC_SOURCE)
}

/// Sources that need a build or a registry before they can be spawned, and modules, which are expanded where the command is typed.
fn refuse_sources(descriptor: &Descriptor) -> Result<(), Refusal> {
    for node in &descriptor.nodes {
        let (key, next) = if node.hub.is_some() {
            ("hub", "use a `path` to an installed program instead")
        } else if node.git.is_some() {
            ("git", "clone and build it on the machine, and name the program by its `path`")
        } else if node.module.is_some() {
            ("module", "this is a fault of the client, which expands modules")
        } else {
            continue;
        };
        let message = format!("node `{}`: a `{key}:` source cannot be run here", node.id);
        return Err(Refusal::new(RefusalCode::BadDescriptor, message).hint(next));
    }
    Ok(())
}

/// The text and the placement list must speak of the same dataflow. Returns the nodes of this machine.
fn compare(order: &RunOrder, nodes: &BTreeMap<DoraNodeId, ResolvedNode>) -> Result<BTreeSet<DoraNodeId>, Refusal> {
    let listed: BTreeMap<&str, &PlacedNode> = order.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    if listed.len() != order.nodes.len() || listed.len() != nodes.len() {
        return Err(disagree(&format!(
            "the text has {} nodes and the list {}",
            nodes.len(),
            order.nodes.len()
        )));
    }
    let mut local = BTreeSet::new();
    for node in nodes.values() {
        let Some(placed) = listed.get(node.id.as_ref()) else {
            return Err(disagree(&format!("node `{}` is not in the list", node.id)));
        };
        if placed.dynamic != is_dynamic(node) {
            return Err(disagree(&format!("node `{}` is dynamic in one of them only", node.id)));
        }
        let pinned = node.deploy.as_ref().and_then(|deploy| deploy.machine.as_deref());
        if let Some(pinned) = pinned
            && !pinned
                .parse::<MachineName>()
                .is_ok_and(|pinned| pinned.same_as(&placed.machine))
        {
            return Err(disagree(&format!(
                "node `{}` is pinned to `{}` and placed on `{}`",
                node.id,
                pinned.escape_debug(),
                placed.machine
            )));
        }
        if placed.machine.same_as(&order.machine) {
            local.insert(node.id.clone());
        }
    }
    if local.is_empty() {
        let message = format!("no node of the dataflow belongs to machine `{}`", order.machine);
        return Err(Refusal::new(RefusalCode::BadRequest, message));
    }
    Ok(local)
}

fn output(order: &RunOrder, run_dir: &Path, node: &ResolvedNode) -> Option<NodeOutput> {
    let file = files::node_dir(run_dir, node)
        .join("out")
        .join(order.dataflow.to_string())
        .join(format!("log_{}.jsonl", node.id));
    Some(NodeOutput {
        node: node.id.as_ref().parse().ok()?,
        path: (!is_dynamic(node)).then(|| file.to_string_lossy().into_owned()),
    })
}

fn disagree(what: &str) -> Refusal {
    let message = format!("descriptor and placement list disagree: {what}");
    Refusal::new(RefusalCode::BadDescriptor, message)
}

fn bad(error: &eyre::Report) -> Refusal {
    Refusal::new(RefusalCode::BadDescriptor, format!("the descriptor is wrong: {error:#}"))
        .hint("`dora-remote validate` checks a descriptor without starting it")
}

#[cfg(test)]
pub(crate) mod tests;
