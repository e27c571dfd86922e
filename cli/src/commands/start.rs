//! `start`: read and check, pack, bring the files, start, and follow unless detached.

use super::{
    Context, attach,
    launch::{Placed, Teller},
    upload,
};
use crate::{
    args::{Levels, Start},
    bundle::{self, Bundle, Limits},
    client::{Session, load_identity},
    descriptor::{self, Dataflow, Wishes},
    env_vars,
    exit::Exit,
    failure::Failure,
    link_loss,
    output::{
        json::{self, SCHEMA},
        progress,
    },
    places,
};
use dora_remote_link::DialKind;
use dora_remote_protocol::{
    cli_to_coordinator::StartDataflow,
    dataflow::{DataflowSpec, Files, NameWish},
    ids::{DataflowId, RequestId},
    name::DataflowName,
    refusal::Changed,
};
use serde::Serialize;
use tokio::task::spawn_blocking;
use uuid::Uuid;

/// Starts a dataflow.
///
/// # Errors
/// What is wrong with the dataflow, its folder or the command line, before anything was sent; then what the coordinator says.
pub async fn run(context: &Context, mut start: Start) -> Result<Exit, Failure> {
    let dataflow = read(&start)?;
    // Read in any case: a mistake in it is told also where the flag wins.
    let beside = link_loss::beside(&dataflow.folder)?;
    for note in &dataflow.notes {
        context.printer.note(&format!("note: {note}"));
    }
    // Whom to ask is decided before the folder is packed: a mistake on the command line is told at once.
    let target = context.target()?;
    load_identity(&target)?;
    start.machine = start.machine.or(target.machine);
    start.on_link_loss = start.on_link_loss.or(beside).or(target.on_link_loss);
    let bundle = match &start.working_dir {
        Some(_) => None,
        None => Some(pack(context, &dataflow).await?),
    };
    let kind = if start.detach { DialKind::Command } else { DialKind::Follow };
    let starting = async |session: &Session| launch(context, session, start, dataflow, bundle).await;
    context.in_session(kind, starting).await
}

async fn launch(
    context: &Context,
    session: &Session,
    start: Start,
    dataflow: Dataflow,
    bundle: Option<Bundle>,
) -> Result<Exit, Failure> {
    let reference = bundle.as_ref().map(|bundle| bundle.reference);
    if let Some(bundle) = bundle {
        upload::run(session, bundle, &context.printer).await?;
    }
    let files = match (reference, start.working_dir) {
        (Some(reference), _) => Files::Bundle(reference),
        (None, directory) => Files::OnMachine(directory.unwrap_or_default()),
    };
    let wishes = attach::Wishes {
        levels: Levels::of(start.level),
        strict: start.strict,
    };
    let request = StartDataflow {
        start_id: RequestId(Uuid::new_v4()),
        spec: DataflowSpec {
            name: wish(start.name, dataflow.default_name)?,
            descriptor: dataflow.text,
            nodes: dataflow.nodes,
            default_machine: start.machine,
            files,
            uv: start.uv,
            link_loss: start.on_link_loss.unwrap_or_default(),
        },
    };
    if start.detach {
        detached(context, session, &request).await
    } else {
        attach::run(session, &request, wishes, &context.printer).await
    }
}

fn read(start: &Start) -> Result<Dataflow, Failure> {
    let variables = env_vars::collect(&start.env_file, &start.env, &places::process_env).map_err(|error| {
        Failure::usage("cannot use the variables for the nodes")
            .because(&error)
            .changed(Changed::Nothing)
    })?;
    let wishes = Wishes {
        variables,
        exit_when_nodes_finish: start.exit_when_nodes_finish,
        files_on_machine: start.working_dir.is_some(),
    };
    descriptor::read(&start.path, &wishes)
}

async fn pack(context: &Context, dataflow: &Dataflow) -> Result<Bundle, Failure> {
    let (folder, named) = (dataflow.folder.clone(), dataflow.named_files.clone());
    let packing = spawn_blocking(move || bundle::pack(&folder, &named, Limits::BUNDLE));
    let text = || format!("packing {}", dataflow.folder.display());
    let failed =
        || Failure::new(Exit::Failed, format!("cannot pack the folder {}", dataflow.folder.display())).changed(Changed::Nothing);
    match progress::showing(&context.printer, text, packing).await {
        Ok(Ok(bundle)) => Ok(bundle),
        Ok(Err(error)) => Err(failed().because(&error).hint(error.hint())),
        Err(error) => Err(failed().because(&error)),
    }
}

fn wish(name: Option<DataflowName>, default: Option<DataflowName>) -> Result<NameWish, Failure> {
    if let Some(name) = name {
        return Ok(NameWish::Exactly(name));
    }
    let default = default.map_or_else(|| "dataflow".parse(), Ok);
    default.map(NameWish::Like).map_err(|error| {
        Failure::usage("the dataflow has no name")
            .because(&error)
            .hint("use `--name NAME`")
    })
}

#[derive(Serialize)]
struct Started<'a> {
    schema: u32,
    id: DataflowId,
    name: &'a DataflowName,
    nodes: Vec<json::Placed<'a>>,
}

async fn detached(context: &Context, session: &Session, request: &StartDataflow) -> Result<Exit, Failure> {
    let printer = &context.printer;
    let mut teller = Teller::new(printer, false);
    let placed = teller.placed();
    let ended = teller.launch(session, request).await?;
    let Some(placed): Option<Placed> = placed.borrow().clone() else {
        return Err(Failure::new(Exit::Failed, "the coordinator did not say where the nodes run"));
    };
    if printer.is_json() {
        printer.document(&Started {
            schema: SCHEMA,
            id: placed.id,
            name: &placed.name,
            nodes: placed.nodes.iter().map(Into::into).collect(),
        })?;
    } else {
        printer.line(&placed.id.to_string())?;
    }
    let mut machines: Vec<_> = placed.nodes.iter().map(|node| node.machine.as_str()).collect();
    machines.sort_unstable();
    machines.dedup();
    printer.note(&format!("started {} on {}", placed.name, machines.join(", ")));
    // A dataflow may be so short that it has ended when its start is told.
    let Some(result) = ended else { return Ok(Exit::Ok) };
    super::outcome::tell(printer, &placed.name, &result);
    Ok(super::outcome::exit(&result))
}
