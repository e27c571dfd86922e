//! Where a join puts its identity and its context: found before anything is sent, because an invite can be used only once.

use crate::{
    args::Join,
    contexts::{Contexts, Entry},
    exit::Exit,
    failure::Failure,
    identities::{identity_in, usual_dir},
    places::{self, process_env},
    target::of_contexts,
};
use dora_remote_certs::{CertError, Credentials, LifeLeft, forget_pending, lives_left};
use dora_remote_link::Address;
use dora_remote_protocol::{
    identity::{Identity, Role},
    invite::InviteToken,
    name::Name,
    refusal::Changed,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Name of the file that says by which invite an identity came.
const MARK: &str = "invite";

/// Where everything goes.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    /// Whether the files that are there may be replaced.
    overwrite: bool,
    /// What is there when this very invite was used before.
    joined: Option<Credentials>,
    context: Option<Wish>,
}

/// The context that is to be written.
#[derive(Debug)]
struct Wish {
    config_dir: PathBuf,
    name: Name,
    addresses: Vec<Address>,
    make_current: bool,
}

/// The context that was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) name: Name,
    pub(super) is_current: bool,
    pub(super) coordinator: Address,
}

impl Place {
    /// Finds the places, and refuses to replace what is there without `--overwrite`.
    pub(super) fn find(join: &Join, token: &InviteToken, id: &str) -> Result<Self, Failure> {
        let identity = token.identity();
        let config_dir = places::config_dir(&process_env);
        let dir = match &join.out {
            Some(dir) => dir.clone(),
            None => usual_dir(&config_dir.clone()?, &identity),
        };
        let dir = std::path::absolute(&dir).map_err(|error| {
            Failure::usage(format!("{} is no directory", dir.display()))
                .because(&error)
                .changed(Changed::Nothing)
        })?;
        let found = Credentials::load(&dir).ok();
        let is_same = |found: &Credentials| *found.identity() == identity && is_root(found, token);
        let has_mark = fs::read_to_string(dir.join(MARK)).is_ok_and(|mark| mark.trim() == id);
        let joined = found.clone().filter(|found| has_mark && is_same(found));
        // A certificate that has ended is of no use to anybody, and its successor is what the invite is for.
        let has_ended = |found: &Credentials| matches!(lives_left(found.certificate(), SystemTime::now()), LifeLeft::Ended(_));
        let is_replaced = found.is_some_and(|found| is_same(&found) && has_ended(&found));
        let overwrite = join.overwrite || is_replaced;
        if joined.is_none() && !overwrite && dir.join("identity.crt").exists() {
            return Err(taken(&dir));
        }
        let context = if join.no_context {
            None
        } else {
            let wish = Wish::of(join, token, config_dir?)?;
            if !join.overwrite {
                wish.refuse_taken(&dir, &identity)?;
            }
            Some(wish)
        };
        Ok(Self {
            dir,
            overwrite,
            joined,
            context,
        })
    }

    /// Where the identity goes.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What came of this very invite before.
    pub(super) fn joined(&self) -> Option<Credentials> {
        self.joined.clone()
    }

    /// Saves the identity, and by which invite it came.
    pub(super) fn save(&self, fresh: &Credentials, id: &str) -> Result<(), CertError> {
        fresh.save(&self.dir, self.overwrite)?;
        let path = self.dir.join(MARK);
        fs::write(&path, format!("{id}\n")).map_err(|source| CertError::Write { path, source })
    }

    /// Takes the key of an invite away that cannot be used, and the directory with it when nothing else is in it.
    pub(super) fn leave(&self, id: &str) {
        // What stays is of no use to anybody, and in nobody's way.
        drop(forget_pending(&self.dir, id));
        drop(fs::remove_dir(&self.dir));
    }

    /// Writes the context, if one is wanted. Without an address, the one that stands there is kept, else the token's first.
    pub(super) fn write_context(&self, address: Option<&Address>) -> Result<Option<Written>, Failure> {
        self.context.as_ref().map(|wish| wish.write(&self.dir, address)).transpose()
    }
}

impl Wish {
    fn of(join: &Join, token: &InviteToken, config_dir: PathBuf) -> Result<Self, Failure> {
        let addresses: Result<Vec<Address>, _> = token.addresses().iter().map(|text| text.parse()).collect();
        Ok(Self {
            config_dir,
            name: join.context_name.clone().unwrap_or_else(|| usual_name(token)),
            addresses: addresses.map_err(|error| Failure::usage("the token holds an address that is none").because(&error))?,
            make_current: join.make_current,
        })
    }

    /// A context of that name may stay only when it is for the same identity at the same coordinator.
    fn refuse_taken(&self, dir: &Path, identity: &Identity) -> Result<(), Failure> {
        let contexts = Contexts::read(&self.config_dir).map_err(|error| of_contexts(&error).changed(Changed::Nothing))?;
        let Some((name, entry)) = contexts.find(&self.name) else {
            return Ok(());
        };
        let its_dir = entry.identity.clone().unwrap_or_else(|| self.config_dir.join("identity"));
        let is_same_holder = its_dir == dir || identity_in(&its_dir).as_ref() == Some(identity);
        if is_same_holder && self.addresses.contains(&entry.coordinator_addr) {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Failed,
            format!(
                "there is a context `{name}` already, for coordinator {} with the identity in {}",
                entry.coordinator_addr,
                its_dir.display()
            ),
        )
        .hint("choose another name with `--context-name NAME`, or replace it with `--overwrite`")
        .changed(Changed::Nothing))
    }

    fn write(&self, dir: &Path, address: Option<&Address>) -> Result<Written, Failure> {
        Contexts::change(&self.config_dir, |contexts| {
            let known = contexts.find(&self.name).map(|(name, entry)| (name.clone(), entry.clone()));
            let kept = known.as_ref().map(|(_, entry)| &entry.coordinator_addr);
            let kept = kept.filter(|kept| self.addresses.contains(kept));
            let coordinator = address.or(kept).or_else(|| self.addresses.first()).cloned();
            let coordinator = coordinator.ok_or_else(|| Failure::usage("the token holds no address"))?;
            let name = known.as_ref().map_or_else(|| self.name.clone(), |(name, _)| name.clone());
            let entry = Entry {
                coordinator_addr: coordinator.clone(),
                identity: Some(dir.to_owned()),
                machine: known.as_ref().and_then(|(_, entry)| entry.machine.clone()),
                on_link_loss: known.and_then(|(_, entry)| entry.on_link_loss),
            };
            contexts.contexts.insert(name.clone(), entry);
            if self.make_current || contexts.current.is_none() {
                contexts.current = Some(name.clone());
            }
            Ok(Written {
                is_current: contexts.current.as_ref().is_some_and(|current| current.same_as(&name)),
                name,
                coordinator,
            })
        })
    }
}

/// People have one context for each trust domain, machines one for themselves.
fn usual_name(token: &InviteToken) -> Name {
    let own = token.name().clone();
    match token.role() {
        Role::Daemon => own,
        // A trust domain may be longer than a name and begin with other characters.
        Role::Admin | Role::Operator | Role::Viewer | Role::Coordinator => token.trust_domain().as_str().parse().unwrap_or(own),
    }
}

fn is_root(found: &Credentials, token: &InviteToken) -> bool {
    dora_remote_certs::sha256(found.root()) == *token.root_hash()
}

fn taken(dir: &Path) -> Failure {
    let whose = identity_in(dir).map_or_else(|| "an identity".to_owned(), |identity| format!("the identity {identity}"));
    Failure::new(Exit::Failed, format!("there is {whose} in {} already", dir.display()))
        .hint("name another directory with `--out DIR`, or replace it with `--overwrite`")
        .changed(Changed::Nothing)
}

#[cfg(test)]
mod tests;
