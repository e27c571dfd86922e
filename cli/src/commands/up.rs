//! `up`: coordinator, daemon and engine on this machine, with an authority of their own, for local development.

use super::Context;
use crate::{
    client::speaker,
    exit::Exit,
    failure::Failure,
    local::{Process, Record, up_dir, up_identity},
    output::{json::SCHEMA, progress},
    places, processes,
};
use dora_remote_certs::{Authority, CertError, Credentials, default_life};
use dora_remote_link::{Address, CloseCode, DialKind, Dialer, Peer};
use dora_remote_protocol::{
    cli_to_coordinator::ListMachines,
    identity::{Identity, Role, TrustDomain},
    limits::{DEFAULT_PORT, QUERY_DEADLINE},
    machine::{EngineStatus, Reach},
    name::Name,
};
use serde::Serialize;
use std::{
    ffi::OsStr,
    fs::{DirBuilder, File},
    io,
    net::{Ipv4Addr, UdpSocket},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Child,
    time::{Duration, SystemTime},
};
use tokio::time::{sleep, timeout};

/// Time for coordinator, daemon and engine to come up.
const UP_DEADLINE: Duration = Duration::from_secs(90);
/// How often they are asked.
const GLANCE: Duration = Duration::from_millis(200);
/// Time for a process to end when another one of them did not come up.
const UNDO_PATIENCE: Duration = Duration::from_secs(15);
/// Name of the machine, and of the person, in this small world.
const MACHINE: &str = "local";
const TRUST_DOMAIN: &str = "local";

/// Where the parts lie.
struct Parts {
    dir: PathBuf,
    authority: PathBuf,
    machine: PathBuf,
    coordinator: PathBuf,
    daemon: PathBuf,
    coordinator_log: PathBuf,
    daemon_log: PathBuf,
}

impl Parts {
    fn of(dir: PathBuf) -> Self {
        Self {
            authority: dir.join("authority"),
            machine: dir.join("machine"),
            coordinator: dir.join("coordinator"),
            daemon: daemon_state(&dir),
            coordinator_log: dir.join("coordinator.log"),
            daemon_log: dir.join("daemon.log"),
            dir,
        }
    }
}

/// The state directory of the daemon of `up`.
pub(super) fn daemon_state(up_dir: &Path) -> PathBuf {
    up_dir.join("daemon")
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    address: &'a str,
    machine: &'a str,
    coordinator_pid: u32,
    daemon_pid: u32,
}

/// Starts what does not run yet, and waits until dataflows can be started.
///
/// # Errors
/// Why a part did not come up; what had been started is ended again.
pub async fn run(context: &Context) -> Result<Exit, Failure> {
    let parts = Parts::of(up_dir(&places::state_dir(&places::process_env)?));
    make_dir(&parts.dir)?;
    let _lock = lock(&parts.dir)?;
    if let Some(record) = Record::read(&parts.dir).filter(|record| record.coordinator.is_alive() && record.daemon.is_alive()) {
        context.printer.note(&format!("runs already at {}", record.address));
        show(context, &record)?;
        return Ok(Exit::Ok);
    }
    end_leftovers(&parts).await?;
    let admin = make_identities(&parts)?;
    let address = free_address()?;
    let mut started = Vec::new();
    let text = || "starting coordinator, daemon and engine".to_owned();
    let coming = bring_up(&parts, &address, &admin, &mut started);
    let record = match progress::showing(&context.printer, text, coming).await {
        Ok(record) => record,
        Err(failure) => {
            undo(started).await;
            return Err(failure);
        }
    };
    context
        .printer
        .note(&format!("coordinator at {} (pid {})", record.address, record.coordinator.pid));
    context.printer.note(&format!(
        "daemon of the machine `{MACHINE}` (pid {}) and its engine",
        record.daemon.pid
    ));
    context.printer.note(&format!(
        "their logs are in {}; `dora-remote down` ends them",
        parts.dir.display()
    ));
    tell_where_verbs_go(context, &parts, &record);
    show(context, &record)?;
    Ok(Exit::Ok)
}

/// Whoever has a current context, or an address in the environment, would otherwise wonder why nothing arrives here.
fn tell_where_verbs_go(context: &Context, parts: &Parts, record: &Record) {
    if let Ok(target) = context.target()
        && target.address.to_string() != record.address
    {
        context.printer.note(&format!(
            "verbs go to the {target} unless they are given `--coordinator-addr {0} --identity {1}`",
            record.address,
            up_identity(&parts.dir).display()
        ));
    }
}

async fn bring_up(parts: &Parts, address: &Address, admin: &Credentials, started: &mut Vec<Child>) -> Result<Record, Failure> {
    let text = address.to_string();
    let coordinator = start(
        "coordinator",
        &[
            "--listen".as_ref(),
            text.as_ref(),
            "--state".as_ref(),
            parts.coordinator.as_ref(),
            "--authority".as_ref(),
            parts.authority.as_ref(),
        ],
        &parts.coordinator_log,
        started,
    )?;
    // Whoever runs `up` sees the nodes as a part of his own session: they get his environment.
    let daemon = start(
        "daemon",
        &[
            "--coordinator-addr".as_ref(),
            text.as_ref(),
            "--state".as_ref(),
            parts.daemon.as_ref(),
            "--identity".as_ref(),
            parts.machine.as_ref(),
            "--pass-env".as_ref(),
            "*".as_ref(),
        ],
        &parts.daemon_log,
        started,
    )?;
    let record = Record::new(text, coordinator, daemon);
    // Written before they are up, so that `down` finds them whatever happens to this process.
    record
        .write(&parts.dir)
        .map_err(|error| cannot("write down what was started", &error))?;
    let dialer = Dialer::new(admin, speaker(), DialKind::Command)
        .map_err(|error| Failure::new(Exit::Failed, "cannot make a connection").because(&error))?;
    let coming = async {
        let mut peer: Option<Peer> = None;
        loop {
            check_alive(parts, started)?;
            if is_ready(&dialer, address, &mut peer).await {
                break;
            }
            sleep(GLANCE).await;
        }
        if let Some(peer) = peer {
            peer.close_and_flush(CloseCode::Done, "").await;
        }
        Ok(record)
    };
    timeout(UP_DEADLINE, coming).await.map_err(|_| {
        Failure::new(
            Exit::Timeout,
            format!("the engine did not come up within {} s", UP_DEADLINE.as_secs()),
        )
        .hint(format!("the logs in {} say more", parts.dir.display()))
    })?
}

/// Whether the machine is connected and its engine is up.
async fn is_ready(dialer: &Dialer, address: &Address, peer: &mut Option<Peer>) -> bool {
    if peer.as_ref().is_none_or(Peer::is_closed) {
        *peer = dialer.dial(address).await.ok();
    }
    let Some(peer) = peer else { return false };
    let Ok(machines) = peer.call(&ListMachines {}, QUERY_DEADLINE).await else {
        return false;
    };
    machines.iter().any(|machine| {
        machine.name.as_str() == MACHINE
            && machine.reach == Reach::Connected
            && matches!(machine.facts.engine, EngineStatus::Up { .. })
    })
}

fn start(verb: &str, arguments: &[&OsStr], log: &Path, started: &mut Vec<Child>) -> Result<Process, Failure> {
    let line: Vec<&OsStr> = [OsStr::new(verb)].into_iter().chain(arguments.iter().copied()).collect();
    let child = processes::start(&line, log).map_err(|error| cannot(&format!("start the {verb}"), &error))?;
    let process = Process::now(child.id());
    started.push(child);
    process.ok_or_else(|| Failure::new(Exit::Failed, format!("the {verb} ended at once")).cause(processes::end_of_log(log)))
}

/// A part that ends while it is awaited will not come up.
fn check_alive(parts: &Parts, started: &mut [Child]) -> Result<(), Failure> {
    let logs = [("coordinator", &parts.coordinator_log), ("daemon", &parts.daemon_log)];
    for (child, (name, log)) in started.iter_mut().zip(logs) {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(Failure::new(Exit::Failed, format!("the {name} did not come up ({status})"))
                .cause(processes::end_of_log(log))
                .hint(format!("the whole log is in {}", log.display())));
        }
    }
    Ok(())
}

/// Ends what an earlier `up` has left behind, such as a daemon whose coordinator was killed.
async fn end_leftovers(parts: &Parts) -> Result<(), Failure> {
    if let Some(record) = Record::read(&parts.dir) {
        processes::end("daemon", record.daemon, UNDO_PATIENCE).await?;
        processes::end("coordinator", record.coordinator, UNDO_PATIENCE).await?;
    }
    Ok(())
}

async fn undo(started: Vec<Child>) {
    for mut child in started.into_iter().rev() {
        if let Some(process) = Process::now(child.id()) {
            // What cannot be ended is found by `down`, which has the record.
            let _ = processes::end("process", process, UNDO_PATIENCE).await;
        }
        let _ = child.try_wait();
    }
}

/// Makes the authority unless it is there, and fresh certificates for the machine and for the person.
fn make_identities(parts: &Parts) -> Result<Credentials, Failure> {
    let now = SystemTime::now();
    let failed = |error: &CertError| {
        Failure::of_certificates("make the certificates of this machine", error).hint(format!(
            "`dora-remote down`, remove {}, and try again",
            parts.authority.display()
        ))
    };
    let domain: TrustDomain = TRUST_DOMAIN
        .parse()
        .map_err(|error| Failure::new(Exit::Failed, format!("{error}")))?;
    let authority = match Authority::load(&parts.authority) {
        Err(CertError::Absent { .. }) => Authority::init(&parts.authority, &domain, now),
        loaded => loaded,
    };
    let authority = authority.map_err(|error| failed(&error))?;
    let name: Name = MACHINE
        .parse()
        .map_err(|error| Failure::new(Exit::Failed, format!("{error}")))?;
    let issue = |role, dir: &Path| {
        let identity = Identity {
            trust_domain: authority.trust_domain().clone(),
            role,
            name: name.clone(),
        };
        let credentials = authority
            .issue(&identity, default_life(role), now)
            .map_err(|error| failed(&error))?;
        credentials.save(dir, true).map_err(|error| failed(&error))?;
        Ok(credentials)
    };
    issue(Role::Daemon, &parts.machine)?;
    issue(Role::Admin, &up_identity(&parts.dir))
}

/// The usual port on loopback, or any other one when that is taken.
fn free_address() -> Result<Address, Failure> {
    let bind = |port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port));
    let port = bind(DEFAULT_PORT)
        .or_else(|_| bind(0))
        .and_then(|socket| socket.local_addr())
        .map_err(|error| cannot("open a UDP port on loopback", &error))?
        .port();
    Ok(Address {
        host: Ipv4Addr::LOCALHOST.to_string(),
        port,
    })
}

/// Keeps a second `up` or `down` away while this one works.
pub(super) fn lock(dir: &Path) -> Result<File, Failure> {
    let file = File::create(dir.join("up.lock")).map_err(|error| cannot("lock the state directory of `up`", &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(Failure::new(Exit::Failed, "another `up` or `down` is at work").hint("wait for its end")),
    }
}

fn make_dir(dir: &Path) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| cannot(&format!("make {}", dir.display()), &error))
}

fn show(context: &Context, record: &Record) -> Result<(), Failure> {
    if context.printer.is_json() {
        context.printer.document(&Document {
            schema: SCHEMA,
            address: &record.address,
            machine: MACHINE,
            coordinator_pid: record.coordinator.pid,
            daemon_pid: record.daemon.pid,
        })?;
    }
    Ok(())
}

fn cannot(what: &str, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot {what}")).because(error)
}
