//! `certs`: make an authority, issue certificates, show what certificates say. Works on files alone; no coordinator is asked.

use super::Context;
use crate::{
    args::{Certs, CertsInit, CertsIssue, CertsRenewIssuing, CertsShow},
    exit::Exit,
    failure::Failure,
    output::{
        json::SCHEMA,
        table::Table,
        time::{relative, rfc3339, unix_ms},
    },
    places, target,
};
use dora_remote_certs::{Authority, CertError, CertificateInfo, Credentials, default_life, read_facts};
use dora_remote_protocol::{
    identity::{Identity, Role},
    refusal::Changed,
};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Carries out one of the verbs.
///
/// # Errors
/// A failure that names the file and says what to do, mostly with exit code 6.
pub fn run(context: &Context, certs: &Certs) -> Result<Exit, Failure> {
    match certs {
        Certs::Init(init) => make(context, init),
        Certs::Issue(issue) => give(context, issue),
        Certs::RenewIssuing(renew) => renew_issuing(context, renew),
        Certs::Show(show) => tell(context, show),
    }
}

fn make(context: &Context, init: &CertsInit) -> Result<Exit, Failure> {
    let now = SystemTime::now();
    let out = &init.out;
    let authority = Authority::init(out, &init.trust_domain, now)
        .map_err(|error| Failure::of_certificates(&format!("make an authority in {}", out.display()), &error))?;
    let identity = Identity {
        trust_domain: init.trust_domain.clone(),
        role: Role::Admin,
        name: init.admin.clone(),
    };
    let admin = out.join("admin");
    let credentials = issue(&authority, &identity, default_life(Role::Admin), now, &admin, false)?;
    report(context, &credentials, &admin)?;
    context.printer.note(&format!(
        "made the authority of `{}` in {}; keep root.key offline, it is not needed for issuing",
        init.trust_domain,
        out.display()
    ));
    context.printer.note(&format!(
        "next: `dora-remote certs issue --authority {0} --role coordinator --name main --out coordinator`, or \
         `dora-remote coordinator --authority {0}`",
        out.display()
    ));
    Ok(Exit::Ok)
}

fn renew_issuing(context: &Context, args: &CertsRenewIssuing) -> Result<Exit, Failure> {
    let dir = authority_dir(args.authority.as_ref())?;
    let authority = Authority::renew_issuing(&dir, SystemTime::now()).map_err(|error| {
        Failure::of_certificates(&format!("renew the issuing certificate in {}", dir.display()), &error).changed(Changed::Nothing)
    })?;
    context.printer.note(&format!(
        "the new issuing certificate of `{}` ends at {}; take root.key away again",
        authority.trust_domain(),
        rfc3339(unix_ms(authority.issuing().not_after))
    ));
    Ok(Exit::Ok)
}

fn authority_dir(named: Option<&PathBuf>) -> Result<PathBuf, Failure> {
    match named {
        Some(dir) => Ok(dir.clone()),
        None => Ok(places::config_dir(&places::process_env)?.join("authority")),
    }
}

fn give(context: &Context, args: &CertsIssue) -> Result<Exit, Failure> {
    let dir = authority_dir(args.authority.as_ref())?;
    let authority = Authority::load(&dir).map_err(|error| {
        Failure::of_certificates(&format!("use the authority in {}", dir.display()), &error)
            .hint("name it with `--authority DIR`")
            .changed(Changed::Nothing)
    })?;
    let role = Role::from(args.role);
    let identity = Identity {
        trust_domain: authority.trust_domain().clone(),
        role,
        name: args.name.clone(),
    };
    let life = args.life.unwrap_or_else(|| default_life(role));
    let credentials = issue(&authority, &identity, life, SystemTime::now(), &args.out, args.overwrite)?;
    report(context, &credentials, &args.out)?;
    Ok(Exit::Ok)
}

fn issue(
    authority: &Authority,
    identity: &Identity,
    life: Duration,
    now: SystemTime,
    out: &Path,
    overwrite: bool,
) -> Result<Credentials, Failure> {
    let issued = authority.issue(identity, life, now).and_then(|credentials| {
        credentials.save(out, overwrite)?;
        Ok(credentials)
    });
    issued.map_err(|error| {
        let failure = Failure::of_certificates(&format!("issue a certificate for {identity} into {}", out.display()), &error);
        match error {
            CertError::Exists { .. } => failure
                .hint("name another directory, or replace it with `--overwrite`")
                .changed(Changed::Nothing),
            _ => failure,
        }
    })
}

#[derive(Serialize)]
struct Document {
    schema: u32,
    certificates: Vec<Certificate>,
}

#[derive(Serialize)]
struct Certificate {
    file: String,
    kind: &'static str,
    subject: String,
    identity: Option<String>,
    trust_domain: Option<String>,
    serial: String,
    not_before: String,
    not_after: String,
    fingerprint_sha256: String,
}

impl Certificate {
    fn of(file: &Path, info: &CertificateInfo) -> Self {
        Self {
            file: file.display().to_string(),
            kind: info.kind.as_str(),
            subject: info.subject.clone(),
            identity: info.identity.as_ref().map(ToString::to_string),
            trust_domain: info.trust_domain.as_ref().map(ToString::to_string),
            serial: info.serial.clone(),
            not_before: rfc3339(unix_ms(info.not_before)),
            not_after: rfc3339(unix_ms(info.not_after)),
            fingerprint_sha256: info.fingerprint.clone(),
        }
    }
}

/// Tells what was just issued.
fn report(context: &Context, credentials: &Credentials, dir: &Path) -> Result<(), Failure> {
    let facts = credentials.certificate();
    if context.printer.is_json() {
        return show(context, &files_in(dir));
    }
    context.printer.line(&dir.display().to_string())?;
    context.printer.note(&format!(
        "issued {} until {} ({})",
        facts.identity,
        rfc3339(unix_ms(facts.not_after)),
        relative(unix_ms(facts.not_after), unix_ms(SystemTime::now()))
    ));
    Ok(())
}

fn tell(context: &Context, args: &CertsShow) -> Result<Exit, Failure> {
    let path = match &args.path {
        Some(path) => path.clone(),
        None => target::identity(&context.given, &places::process_env)?,
    };
    let files = if path.is_dir() { files_in(&path) } else { vec![path.clone()] };
    if files.is_empty() {
        return Err(
            Failure::new(Exit::Certificate, format!("there are no certificates in {}", path.display()))
                .hint("name a PEM file, or the directory of an identity or an authority"),
        );
    }
    show(context, &files)?;
    Ok(Exit::Ok)
}

/// The files of an identity or of an authority that hold certificates, leaf first.
fn files_in(dir: &Path) -> Vec<PathBuf> {
    let names = ["identity.crt", "issuing.crt", "root.crt"];
    names.iter().map(|name| dir.join(name)).filter(|path| path.exists()).collect()
}

fn show(context: &Context, files: &[PathBuf]) -> Result<(), Failure> {
    let mut found: Vec<(&PathBuf, CertificateInfo)> = Vec::new();
    for file in files {
        let infos = read_facts(file)
            .map_err(|error| Failure::of_certificates(&format!("read certificates from {}", file.display()), &error))?;
        for info in infos {
            // A leaf's file also holds the certificate that issued it.
            if !found.iter().any(|(_, known)| known.fingerprint == info.fingerprint) {
                found.push((file, info));
            }
        }
    }
    if context.printer.is_json() {
        let certificates = found.iter().map(|(file, info)| Certificate::of(file, info)).collect();
        context.printer.document(&Document {
            schema: SCHEMA,
            certificates,
        })?;
        return Ok(());
    }
    let now = unix_ms(SystemTime::now());
    let mut table = Table::new(&["KIND", "IDENTITY", "ENDS", "", "SERIAL", "SHA-256"]);
    for (_, info) in &found {
        let ends = unix_ms(info.not_after);
        let domain = info
            .trust_domain
            .as_ref()
            .map_or_else(|| info.subject.clone(), ToString::to_string);
        table.row(vec![
            info.kind.as_str().to_owned(),
            info.identity.as_ref().map_or(domain, ToString::to_string),
            rfc3339(ends),
            relative(ends, now),
            info.serial.clone(),
            info.fingerprint.clone(),
        ]);
    }
    context.printer.table(&table)?;
    Ok(())
}
