//! Decides what of a folder travels: what git does not ignore, and the files that nodes name.

use super::BundleError;
use crate::local_files::inside;
use ignore::WalkBuilder;
use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// One thing to pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A directory.
    Directory,
    /// A file of so many bytes.
    File {
        /// Its size when it was found.
        bytes: u64,
        /// Whether its owner may run it.
        executable: bool,
    },
    /// A link, with where it leads as it is written.
    Link(PathBuf),
}

/// Everything to pack by its path relative to the folder, parents before what is in them.
pub(super) type Entries = BTreeMap<PathBuf, Entry>;

/// Finds what travels.
pub(super) fn entries(folder: &Path, named: &[PathBuf]) -> Result<Entries, BundleError> {
    let mut entries = Entries::new();
    for found in walker(folder).build() {
        let found = found?;
        let Ok(relative) = found.path().strip_prefix(folder) else {
            continue;
        };
        if relative.as_os_str().is_empty() {
            continue;
        }
        add(folder, relative, &mut entries)?;
    }
    for named in named {
        add_named(folder, named, &mut entries)?;
    }
    // A named file may lie in a directory that was skipped.
    let parents: Vec<PathBuf> = entries
        .keys()
        .flat_map(|path| path.ancestors().skip(1))
        .map(Path::to_owned)
        .collect();
    for parent in parents {
        if !parent.as_os_str().is_empty() {
            entries.entry(parent).or_insert(Entry::Directory);
        }
    }
    Ok(entries)
}

/// Walks as git sees a work tree: its ignore files count, with or without a repository; hidden files are files.
fn walker(folder: &Path) -> WalkBuilder {
    let in_repository = folder.ancestors().any(|ancestor| ancestor.join(".git").exists());
    let mut walker = WalkBuilder::new(folder);
    walker
        .hidden(false)
        .ignore(false)
        .require_git(false)
        // The ignore files above the folder count only as far as a repository reaches.
        .parents(in_repository)
        .follow_links(false)
        .filter_entry(|entry| entry.file_name() != ".git");
    walker
}

/// Adds a file that a node names, and what its links lead to.
fn add_named(folder: &Path, named: &Path, entries: &mut Entries) -> Result<(), BundleError> {
    let mut next = named.to_owned();
    for _ in 0..MAX_LINKS {
        add(folder, &next, entries)?;
        match entries.get(&next) {
            Some(Entry::Link(target)) => {
                let parent = next.parent().unwrap_or_else(|| Path::new(""));
                let Some(target) = inside(&parent.join(target)) else {
                    return Ok(());
                };
                next = target;
            }
            _ => return Ok(()),
        }
    }
    Ok(())
}

fn add(folder: &Path, relative: &Path, entries: &mut Entries) -> Result<(), BundleError> {
    if entries.contains_key(relative) {
        return Ok(());
    }
    let path = folder.join(relative);
    let metadata = fs::symlink_metadata(&path).map_err(|source| BundleError::Read {
        path: path.clone(),
        source,
    })?;
    if let Some(entry) = entry_of(&path, relative, &metadata)? {
        entries.insert(relative.to_owned(), entry);
    }
    Ok(())
}

/// What a path is; nothing for sockets, pipes and devices, which no archive can bring along.
fn entry_of(path: &Path, relative: &Path, metadata: &Metadata) -> Result<Option<Entry>, BundleError> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Ok(Some(Entry::Directory));
    }
    if kind.is_file() {
        return Ok(Some(Entry::File {
            bytes: metadata.len(),
            executable: metadata.permissions().mode() & 0o100 != 0,
        }));
    }
    if !kind.is_symlink() {
        return Ok(None);
    }
    let target = fs::read_link(path).map_err(|source| BundleError::Read {
        path: path.to_owned(),
        source,
    })?;
    let parent = relative.parent().unwrap_or_else(|| Path::new(""));
    if target.is_absolute() || inside(&parent.join(&target)).is_none() {
        return Err(BundleError::LinkOutside {
            path: path.to_owned(),
            target,
        });
    }
    Ok(Some(Entry::Link(target)))
}

/// Links that are followed from a named file (as Linux does, `path_resolution(7)`).
const MAX_LINKS: usize = 40;
