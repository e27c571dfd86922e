//! `coordinator install` and `daemon install`: the files of the services, shown or written, and what is to be done next.

use super::Context;
use crate::{
    args::{CoordinatorInstall, DaemonInstall, Install, ShipLogs},
    exit::Exit,
    failure::Failure,
    output::{Format, json::SCHEMA},
    service::{
        place::place,
        unit::UnitFile,
        units::{self, COORDINATOR, CoordinatorWishes, DAEMON, DaemonWishes, Service},
    },
};
use dora_remote_protocol::refusal::Changed;
use serde::Serialize;
use std::{
    env,
    ffi::OsString,
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// Shows or writes the files of the coordinator's service.
///
/// # Errors
/// A failure when a value cannot stand in a unit, or a file cannot be written.
pub fn coordinator(context: &Context, wishes: &CoordinatorInstall) -> Result<Exit, Failure> {
    let program = program(&wishes.install)?;
    let mut arguments = Arguments::default();
    if let Some(domain) = &wishes.trust_domain {
        arguments.flag("--trust-domain", domain.as_str());
    }
    for address in &wishes.advertise {
        arguments.flag("--advertise", address);
    }
    if let Some(address) = wishes.listen {
        if address.port() < FIRST_PORT_FOR_ALL && address.port() != 0 {
            return Err(Failure::usage(format!(
                "port {} is for root alone, and the service has no rights of root",
                address.port()
            ))
            .hint(format!("use a port from {FIRST_PORT_FOR_ALL} on"))
            .changed(Changed::Nothing));
        }
        arguments.flag("--listen", address.to_string());
    }
    if let Some(file) = &wishes.config {
        arguments.flag("--config", absolute("--config", file)?);
    }
    let files = units::coordinator(&CoordinatorWishes {
        program: program.clone(),
        arguments: arguments.0,
    });
    let next = [
        format!(
            "systemd-sysusers {0}.conf && systemd-tmpfiles --create {0}.conf",
            COORDINATOR.unit
        ),
        format!("systemctl daemon-reload && systemctl enable --now {}", COORDINATOR.unit),
        format!("{} invite --role admin --name NAME", program.display()),
    ];
    finish(context, &wishes.install, &COORDINATOR, &program, files, &next)
}

/// Shows or writes the files of the daemon's service.
///
/// # Errors
/// A failure when a value cannot stand in a unit, or a file cannot be written.
pub fn daemon(context: &Context, wishes: &DaemonInstall) -> Result<Exit, Failure> {
    let program = program(&wishes.install)?;
    let mut arguments = Arguments::default();
    if let Some(policy) = &wishes.policy {
        arguments.flag("--policy", absolute("--policy", policy)?);
    }
    for (key, value) in &wishes.machine.labels {
        if key.contains(',') || value.contains(',') {
            return Err(
                Failure::usage(format!("the label `{}` has a comma in it", key.escape_debug())).changed(Changed::Nothing),
            );
        }
        arguments.flag("--labels", format!("{key}={value}"));
    }
    for pattern in &wishes.machine.pass_env {
        arguments.flag("--pass-env", pattern);
    }
    for file in &wishes.machine.env_file {
        arguments.flag("--env-file", absolute("--env-file", file)?);
    }
    if wishes.machine.logs == ShipLogs::OnDemand {
        arguments.flag("--logs", "on-demand");
    }
    let files = units::daemon(&DaemonWishes {
        program: program.clone(),
        arguments: arguments.0,
        groups: wishes.group.clone(),
    });
    let next = [
        format!("systemd-sysusers {0}.conf && systemd-tmpfiles --create {0}.conf", DAEMON.unit),
        format!("sudo -H -u {} {} join TOKEN", DAEMON.user, program.display()),
        format!("systemctl daemon-reload && systemctl enable --now {}", DAEMON.unit),
    ];
    finish(context, &wishes.install, &DAEMON, &program, files, &next)
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    files: Vec<File<'a>>,
    next: &'a [String],
}

#[derive(Serialize)]
struct File<'a> {
    path: String,
    text: &'a str,
}

fn finish(
    context: &Context,
    install: &Install,
    service: &Service,
    program: &Path,
    files: Result<Vec<UnitFile>, String>,
    next: &[String],
) -> Result<Exit, Failure> {
    let files = files.map_err(|reason| Failure::usage(reason).changed(Changed::Nothing))?;
    let printer = &context.printer;
    if HIDDEN.iter().any(|dir| program.starts_with(dir)) {
        printer.warn(&format!(
            "the service cannot see {}: home directories are hidden from it; install the program elsewhere, or name it with `--program`",
            program.display()
        ));
    }
    let root = install.root.as_deref().unwrap_or_else(|| Path::new("/"));
    let paths: Vec<PathBuf> = files.iter().map(|file| root.join(&file.path)).collect();
    if !install.print {
        place(root, &files).map_err(|error| {
            let failure = Failure::new(Exit::Failed, format!("cannot install {}", service.unit)).because(&error);
            match error.source.kind() {
                ErrorKind::PermissionDenied => failure.hint("this needs root; `--print` shows the files and writes nothing"),
                _ => failure,
            }
        })?;
    }
    if printer.format() == Format::Json {
        let files = paths.iter().zip(&files).map(|(path, file)| File {
            path: path.display().to_string(),
            text: &file.text,
        });
        printer.document(&Document {
            schema: SCHEMA,
            files: files.collect(),
            next,
        })?;
        return Ok(Exit::Ok);
    }
    for (path, file) in paths.iter().zip(&files) {
        if install.print {
            printer.line(&format!("# {}\n{}", path.display(), file.text))?;
        } else {
            printer.line(&path.display().to_string())?;
        }
    }
    let steps = next.iter().map(|step| format!("\n  {step}")).collect::<String>();
    printer.note(&format!("next, as root:{steps}"));
    Ok(Exit::Ok)
}

/// Flags with their values.
#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn flag(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.extend([name.into(), value.into()]);
    }
}

/// The program that the service runs.
fn program(install: &Install) -> Result<PathBuf, Failure> {
    match &install.program {
        Some(program) => absolute("--program", program),
        None => env::current_exe().map_err(|error| Failure::new(Exit::Failed, "cannot find this program").because(&error)),
    }
}

/// A service has no working directory that a relative path could mean.
fn absolute(flag: &str, path: &Path) -> Result<PathBuf, Failure> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    Err(Failure::usage(format!(
        "`{flag}` names {}, and a service needs the whole path",
        path.display()
    ))
    .changed(Changed::Nothing))
}

/// What `ProtectHome=` hides.
const HIDDEN: [&str; 3] = ["/home", "/root", "/run/user"];
/// Ports below are for processes with a capability. `ip(7)`.
const FIRST_PORT_FOR_ALL: u16 = 1024;
