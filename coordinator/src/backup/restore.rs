//! Puts a backup in place of the records of a coordinator that does not run.
//!
//! Everything is checked before anything is replaced. The former files stay beside the new ones, and revocations that the backup does not
//! know are taken over from them. A crash between the renames leaves a mark, with which no coordinator starts until the restore is repeated.

use super::{
    archive::{ArchiveError, ArchiveReader, BackupHeader},
    records::{ACCESS, AUDIT, STORE},
};
use crate::{
    audit::{
        Draft,
        ledger::{AuditFile, Ledger},
    },
    moment::unix_ms,
    registry::{self, AccessFile},
    store::{StoreError, redb::RedbStore},
};
use dora_remote_certs::Utc;
use dora_remote_protocol::{access::Revocation, audit::MAX_AUDIT_ENTRIES};
use redb::{Database, DatabaseError};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use thiserror::Error;

/// What a restore has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// SPIFFE id of the coordinator whose backup it was.
    pub coordinator: String,
    /// Build that made the backup.
    pub build: String,
    /// When the backup was made, in milliseconds since the Unix epoch.
    pub made_unix_ms: u64,
    /// Dataflows that the coordinator knows again.
    pub dataflows: u64,
    /// Machines that it knows again.
    pub machines: u64,
    /// Number of the last entry of the audit, which tells of this restore.
    pub audit_entries: u64,
    /// What is wrong with the audit of the backup, if anything is.
    pub audit_fault: Option<String>,
    /// Open invites that are void now.
    pub voided_invites: u64,
    /// Revocations that the backup did not know and that were taken over from the records that it replaces.
    pub kept_revocations: u64,
    /// Why no revocations could be taken over, if there were records and they could not be read.
    pub unread: Option<String>,
    /// Where the former files are now.
    pub aside: Vec<PathBuf>,
}

/// Puts the backup `archive` in place of the records in `state_dir`, which is made when absent. The coordinator takes itself for restored
/// until somebody accepts it (`coordinator accept-restore`): a new life of its store begins, open invites are void, and lapsed daemons
/// cannot recover. Dataflows are reconciled with the daemons when these come back. Touches files; not for an async task.
///
/// # Errors
/// [`RestoreError`]; nothing was replaced unless it is [`RestoreError::Replace`].
pub fn restore(archive: &Path, state_dir: &Path, now: SystemTime) -> Result<RestoreReport, RestoreError> {
    let disk = |source| RestoreError::Disk {
        path: state_dir.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir)
        .map_err(disk)?;
    let staged = Staging(state_dir);
    let header = staged.unpack(archive)?;
    // Held until the end, so that no coordinator starts on the files that are about to go.
    let _held = hold(state_dir)?;
    let (former, unread) = former_revocations(state_dir);
    let report = staged.check(header, former, unread, now)?;
    let aside = staged.replace(now)?;
    Ok(RestoreReport { aside, ..report })
}

/// Refuses to start on records of which a restore has replaced only a part.
pub(crate) fn refuse_half_restored(state_dir: &Path) -> Result<(), RestoreError> {
    if state_dir.join(MARK).exists() {
        return Err(RestoreError::Unfinished {
            path: state_dir.to_owned(),
        });
    }
    Ok(())
}

/// Opens every database that is there, which fails while a coordinator has it.
fn hold(state_dir: &Path) -> Result<Vec<Database>, RestoreError> {
    let mut held = Vec::new();
    for name in [STORE, ACCESS, AUDIT, "logs.redb"] {
        let path = state_dir.join(name);
        // One that is damaged for other reasons is what a restore is for.
        match Database::builder().set_cache_size(CACHE_BYTES).open(&path) {
            Ok(db) if name != ACCESS => held.push(db),
            Err(DatabaseError::DatabaseAlreadyOpen) => {
                return Err(RestoreError::InUse {
                    path: state_dir.to_owned(),
                });
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(held)
}

/// The revocations of the records that are about to be replaced, or why they cannot be read.
fn former_revocations(state_dir: &Path) -> (Vec<Revocation>, Option<String>) {
    let path = state_dir.join(ACCESS);
    if !path.exists() {
        return (Vec::new(), None);
    }
    match AccessFile::open(&path) {
        Ok((_, stored)) => (stored.revocations, None),
        Err(error) => (Vec::new(), Some(format!("cannot {error}"))),
    }
}

/// Files that are about to replace others, beside them; removed when the restore fails.
struct Staging<'a>(&'a Path);

impl Staging<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.restoring"))
    }

    /// Writes the files of the backup, and sees that it is whole.
    fn unpack(&self, archive: &Path) -> Result<BackupHeader, RestoreError> {
        let bad = |source| RestoreError::Archive {
            path: archive.to_owned(),
            source,
        };
        let source = File::open(archive).map_err(|error| bad(ArchiveError::Read(error)))?;
        let (mut reader, header) = ArchiveReader::open(source).map_err(bad)?;
        let names: Vec<_> = header.files.iter().map(|(name, _)| name.as_str()).collect();
        if names != [ACCESS, STORE, AUDIT] {
            return Err(bad(ArchiveError::NotOne));
        }
        for (name, bytes) in &header.files {
            let path = self.path(name);
            let mut write = || -> Result<(), ArchiveError> {
                let mut file = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&path)
                    .map_err(ArchiveError::Write)?;
                reader.copy(*bytes, &mut file)?;
                file.sync_all().map_err(ArchiveError::Write)
            };
            write().map_err(bad)?;
        }
        reader.finish().map_err(bad)?;
        Ok(header)
    }

    /// Opens every file as the coordinator will, and writes into them that this is a restore.
    fn check(
        &self,
        header: BackupHeader,
        former: Vec<Revocation>,
        unread: Option<String>,
        now: SystemTime,
    ) -> Result<RestoreReport, RestoreError> {
        let now_unix_ms = unix_ms(now);
        let made = Utc(SystemTime::UNIX_EPOCH + Duration::from_millis(header.made_unix_ms));
        let (_, stored) = RedbStore::open(&self.path(STORE))?;
        let why = format!("it was restored from a backup of {made}");
        let access = self.path(ACCESS);
        let known = AccessFile::open(&access)?.1.revocations.len();
        registry::mark_restored(&access, &why, former, now_unix_ms)?;
        let (_, marked) = AccessFile::open(&access)?;
        let kept_revocations = marked.revocations.len().saturating_sub(known) as u64;
        let voided_invites = marked.restored.map_or(0, |restored| restored.voided_invites);
        let (mut audit, opened) = AuditFile::open(&self.path(AUDIT), MAX_AUDIT_ENTRIES)?;
        let mut chain = opened.chain;
        let told = Draft::by_coordinator("restore", format!("the backup of {made}")).detail(format!(
            "made by {} (build {}); {voided_invites} invites are void, {kept_revocations} revocations were kept; entries after this backup are lost here",
            header.coordinator, header.build
        ));
        let entry = chain.append(told.entry(now_unix_ms)).map_err(|source| StoreError::Record {
            what: "the restore in the audit".to_owned(),
            source,
        })?;
        audit.append(&[entry])?;
        audit.settle(now_unix_ms)?;
        Ok(RestoreReport {
            coordinator: header.coordinator,
            build: header.build,
            made_unix_ms: header.made_unix_ms,
            dataflows: stored.dataflows.len() as u64,
            machines: stored.machines.len() as u64,
            audit_entries: chain.last_seq(),
            audit_fault: opened.fault,
            voided_invites,
            kept_revocations,
            unread,
            aside: Vec::new(),
        })
    }

    /// Puts the files in place. The former ones get another name first and are never absent.
    fn replace(&self, now: SystemTime) -> Result<Vec<PathBuf>, RestoreError> {
        let digits = |c: &char| c.is_ascii_digit();
        let time: String = Utc(now).to_string().chars().filter(digits).collect();
        let mut aside = Vec::new();
        let mut replace = || -> io::Result<()> {
            let mark = self.0.join(MARK);
            let mut file = File::create(&mark)?;
            file.write_all(b"a restore has begun here; repeat it\n")?;
            file.sync_all()?;
            File::open(self.0)?.sync_all()?;
            for name in [ACCESS, STORE, AUDIT] {
                let path = self.0.join(name);
                let former = self.0.join(format!("{name}.before-restore-{time}"));
                match fs::hard_link(&path, &former) {
                    Ok(()) => aside.push(former),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
                fs::rename(self.path(name), &path)?;
            }
            File::open(self.0)?.sync_all()?;
            fs::remove_file(&mark)?;
            File::open(self.0)?.sync_all()
        };
        replace().map_err(|source| RestoreError::Replace {
            path: self.0.to_owned(),
            source,
        })?;
        Ok(aside)
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        for name in [ACCESS, STORE, AUDIT] {
            // Those that were put in place are not there any more.
            drop(fs::remove_file(self.path(name)));
        }
    }
}

/// Why a backup was not restored.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The archive is not a whole backup.
    #[error("cannot restore {}: {source}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: ArchiveError,
    },
    /// A coordinator runs on the records.
    #[error("a coordinator is running on {}; end it first", path.display())]
    InUse {
        /// The state directory.
        path: PathBuf,
    },
    /// The state directory cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Disk {
        /// The state directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What the archive holds cannot be read.
    #[error("the backup cannot be used: cannot {0}")]
    Records(#[from] StoreError),
    /// Some of the files may have been replaced: the restore must be repeated.
    #[error("cannot replace the records in {}: {source}; some may have been replaced, so repeat the restore", path.display())]
    Replace {
        /// The state directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A restore was broken off between two files.
    #[error("a restore of {} was broken off; repeat it", path.display())]
    Unfinished {
        /// The state directory.
        path: PathBuf,
    },
}

/// Stands in a state directory while its files are being replaced.
const MARK: &str = "restore-in-progress";
/// Memory for pages of a file that is only held.
const CACHE_BYTES: usize = 1 << 20;
