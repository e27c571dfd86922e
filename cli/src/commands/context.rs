//! `context`: coordinators, identities and default machines under names. Works on one file; no coordinator is asked.

use super::Context;
use crate::{
    args::{ContextAdd, ContextUse, Contexts as Verb},
    contexts::{Contexts, Entry},
    exit::Exit,
    failure::Failure,
    output::{
        json::SCHEMA,
        table::Table,
        time::{relative, rfc3339, unix_ms},
    },
    places::{self, process_env},
    target::{self, chosen_context, no_such_context, of_contexts},
};
use dora_remote_certs::Credentials;
use dora_remote_protocol::{
    name::{MachineName, Name},
    refusal::Changed,
};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Carries out one of the verbs.
///
/// # Errors
/// A failure that names the file and says what to do; exit code 3 for a context that does not exist.
pub fn run(context: &Context, verb: &Verb) -> Result<Exit, Failure> {
    let dir = places::config_dir(&process_env)?;
    match verb {
        Verb::List => list(context, &dir),
        Verb::Show(show) => tell(context, &dir, show.name.as_ref()),
        Verb::Use(wanted) => make_current(context, &dir, wanted),
        Verb::Add(wanted) => add(context, &dir, wanted),
        Verb::Rename(names) => rename(context, &dir, &names.from, &names.to),
        Verb::Remove(wanted) => remove(context, &dir, &wanted.name),
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    schema: u32,
    current: Option<&'a Name>,
    contexts: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    schema: u32,
    context: Row<'a>,
    /// Who the certificate in `identity` makes of the asker; null when it cannot be used.
    you: Option<String>,
    certificate_ends: Option<String>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a Name,
    current: bool,
    coordinator: String,
    /// Where the certificate, the key and the root lie.
    identity: PathBuf,
    machine: Option<&'a MachineName>,
    /// What `start` takes where neither its flag nor the folder of the dataflow says it; null when nothing is said here either.
    on_link_loss: Option<String>,
}

impl<'a> Row<'a> {
    fn of(name: &'a Name, entry: &'a Entry, contexts: &Contexts, dir: &Path) -> Self {
        Self {
            name,
            current: contexts.current.as_ref().is_some_and(|current| current.same_as(name)),
            coordinator: entry.coordinator_addr.to_string(),
            identity: entry.identity.clone().unwrap_or_else(|| dir.join("identity")),
            machine: entry.machine.as_ref(),
            on_link_loss: entry.on_link_loss.as_ref().map(ToString::to_string),
        }
    }
}

fn list(context: &Context, dir: &Path) -> Result<Exit, Failure> {
    let (printer, contexts) = (&context.printer, read(dir)?);
    let rows = contexts
        .contexts
        .iter()
        .map(|(name, entry)| Row::of(name, entry, &contexts, dir));
    if printer.is_json() {
        printer.document(&Listed {
            schema: SCHEMA,
            current: contexts.current.as_ref(),
            contexts: rows.collect(),
        })?;
    } else if printer.is_quiet() {
        for row in rows {
            printer.line(row.name.as_str())?;
        }
    } else if contexts.contexts.is_empty() {
        printer.note("no contexts; `dora-remote context add NAME --coordinator-addr HOST[:PORT]` makes one");
    } else {
        let mut table = Table::new(&["", "NAME", "COORDINATOR", "MACHINE", "IDENTITY"]);
        for row in rows {
            table.row(vec![
                if row.current { "*" } else { "" }.to_owned(),
                row.name.to_string(),
                row.coordinator,
                row.machine.map_or_else(String::new, ToString::to_string),
                row.identity.display().to_string(),
            ]);
        }
        printer.table(&table)?;
    }
    Ok(Exit::Ok)
}

fn tell(context: &Context, dir: &Path, named: Option<&Name>) -> Result<Exit, Failure> {
    let (printer, contexts) = (&context.printer, read(dir)?);
    let chosen = chosen_context(&context.given, &process_env)?;
    let name = named.or(chosen.as_ref()).or(contexts.current.as_ref()).ok_or_else(|| {
        Failure::new(Exit::NotFound, "no context is the current one").hint("`dora-remote context use NAME` makes one so")
    })?;
    let (name, entry) = contexts.find(name).ok_or_else(|| no_such_context(name))?;
    let row = Row::of(name, entry, &contexts, dir);
    let credentials = Credentials::load(&row.identity);
    let facts = credentials.as_ref().ok().map(Credentials::certificate);
    if let Err(error) = &credentials {
        printer.warn(&format!("the identity of the context cannot be used: {error}"));
    }
    if printer.is_json() {
        printer.document(&Shown {
            schema: SCHEMA,
            context: row,
            you: facts.map(|facts| facts.identity.to_string()),
            certificate_ends: facts.map(|facts| rfc3339(unix_ms(facts.not_after))),
        })?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["CONTEXT", ""]);
    let mut line = |key: &str, value: String| table.row(vec![key.to_owned(), value]);
    line("name", row.name.to_string());
    line("current", if row.current { "yes" } else { "no" }.to_owned());
    line("coordinator", row.coordinator);
    line("machine", row.machine.map_or_else(|| "none".to_owned(), ToString::to_string));
    line(
        "on link loss",
        row.on_link_loss.unwrap_or_else(|| "keep (nothing said)".to_owned()),
    );
    line("identity", row.identity.display().to_string());
    if let Some(facts) = facts {
        let (ends, now) = (unix_ms(facts.not_after), unix_ms(SystemTime::now()));
        line("you are", facts.identity.to_string());
        line("certificate", format!("ends {}", relative(ends, now)));
    }
    printer.table(&table)?;
    Ok(Exit::Ok)
}

fn make_current(context: &Context, dir: &Path, wanted: &ContextUse) -> Result<Exit, Failure> {
    let Some(name) = &wanted.name else {
        change(dir, |contexts| {
            contexts.current = None;
            Ok(())
        })?;
        context.printer.note("no context is the current one");
        return Ok(Exit::Ok);
    };
    let (name, address) = change(dir, |contexts| {
        let (name, entry) = contexts.find(name).ok_or_else(|| no_such_context(name))?;
        let (name, address) = (name.clone(), entry.coordinator_addr.clone());
        contexts.current = Some(name.clone());
        Ok((name, address))
    })?;
    context
        .printer
        .note(&format!("`{name}` is the current context: coordinator {address}"));
    Ok(Exit::Ok)
}

fn add(context: &Context, dir: &Path, wanted: &ContextAdd) -> Result<Exit, Failure> {
    // Only what was typed counts: a variable that happens to be set is no wish to keep it.
    let coordinator_addr = target::named_address(&context.given, &|_| None)?
        .ok_or_else(|| Failure::usage("a context needs a coordinator").hint("use `--coordinator-addr HOST[:PORT]`"))?;
    let identity = context.given.identity.as_ref().map(std::path::absolute).transpose();
    let identity = identity.map_err(|error| Failure::usage("the identity is no directory").because(&error))?;
    let entry = Entry {
        coordinator_addr,
        identity,
        machine: wanted.machine.clone(),
        on_link_loss: wanted.on_link_loss,
    };
    let became_current = change(dir, |contexts| {
        refuse_taken(contexts, &wanted.name)?;
        contexts.contexts.insert(wanted.name.clone(), entry);
        let is_first = contexts.contexts.len() == 1;
        if is_first {
            contexts.current = Some(wanted.name.clone());
        }
        Ok(is_first)
    })?;
    let name = &wanted.name;
    context.printer.note(&if became_current {
        format!("added `{name}`, which is the current context")
    } else {
        format!("added `{name}`; `dora-remote context use {name}` makes it the current context")
    });
    Ok(Exit::Ok)
}

fn rename(context: &Context, dir: &Path, from: &Name, to: &Name) -> Result<Exit, Failure> {
    let from = change(dir, |contexts| {
        let (found, _) = contexts.find(from).ok_or_else(|| no_such_context(from))?;
        let found = found.clone();
        // Another spelling of the same name is no other context.
        if !found.same_as(to) {
            refuse_taken(contexts, to)?;
        }
        if let Some(entry) = contexts.contexts.remove(&found) {
            contexts.contexts.insert(to.clone(), entry);
        }
        if contexts.current.as_ref().is_some_and(|current| current.same_as(&found)) {
            contexts.current = Some(to.clone());
        }
        Ok(found)
    })?;
    context.printer.note(&format!("`{from}` is now called `{to}`"));
    Ok(Exit::Ok)
}

fn remove(context: &Context, dir: &Path, name: &Name) -> Result<Exit, Failure> {
    let (name, entry, was_current) = change(dir, |contexts| {
        let (found, _) = contexts.find(name).ok_or_else(|| no_such_context(name))?;
        let found = found.clone();
        let entry = contexts.contexts.remove(&found);
        let was_current = contexts.current.as_ref().is_some_and(|current| current.same_as(&found));
        if was_current {
            contexts.current = None;
        }
        Ok((found, entry, was_current))
    })?;
    let printer = &context.printer;
    printer.note(&format!("removed `{name}`"));
    if let Some(identity) = entry.and_then(|entry| entry.identity) {
        printer.note(&format!("its identity stays in {}", identity.display()));
    }
    if was_current {
        printer.note("no context is the current one");
    }
    Ok(Exit::Ok)
}

fn refuse_taken(contexts: &Contexts, name: &Name) -> Result<(), Failure> {
    contexts.find(name).map_or(Ok(()), |(taken, _)| {
        Err(Failure::new(Exit::Failed, format!("there is a context `{taken}` already"))
            .hint("choose another name, or remove that one"))
    })
}

fn read(dir: &Path) -> Result<Contexts, Failure> {
    Contexts::read(dir).map_err(|error| of_contexts(&error))
}

fn change<T>(dir: &Path, change: impl FnOnce(&mut Contexts) -> Result<T, Failure>) -> Result<T, Failure> {
    Contexts::change(dir, change).map_err(|failure: Failure| failure.changed(Changed::Nothing))
}
