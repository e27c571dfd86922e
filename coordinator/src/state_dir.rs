//! The state directory of a coordinator: for its owner alone, and what is opened in it before the coordinator starts.

use crate::{
    CoordinatorError,
    audit::AuditHandle,
    backup::{self, records},
    bundles::Bundles,
    config::CoordinatorConfig,
    identity::{self, Own},
    logs::{hub::Hub, room::Room},
    registry::{self, AccessFile},
    store::{StoreError, Stored, keeper::Keeper, redb::RedbStore},
};
use dora_remote_link::EndpointSecrets;
use dora_remote_logstore::{Caps, LogStore, LogStoreError};
use redb::Database;
use std::{
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// Everything that comes from disk.
pub(crate) struct Prepared {
    pub(crate) own: Own,
    pub(crate) access: (AccessFile, registry::Stored),
    pub(crate) secrets: EndpointSecrets,
    pub(crate) stored: Stored,
    pub(crate) keeper: Keeper,
    pub(crate) hub: Hub,
    pub(crate) bundles: Bundles,
    pub(crate) audit: AuditHandle,
    pub(crate) store_file: Arc<Database>,
}

impl Prepared {
    /// Opens all of it, and waits a moment for a former life that still holds the files.
    pub(crate) fn new(config: &CoordinatorConfig) -> Result<Self, CoordinatorError> {
        let dir = config.state_dir.as_path();
        private_folder(dir)?;
        backup::refuse_half_restored(dir)?;
        let own = identity::open(&config.identity, config.lives, config.clock.now())?;
        let secrets = EndpointSecrets::load_or_create(&dir.join("endpoint.secrets"))?;
        let (store, stored) = patiently(
            || RedbStore::open(&dir.join(records::STORE)),
            |error| matches!(error, StoreError::Open { .. }),
        )?;
        let access = patiently(
            || AccessFile::open(&dir.join(records::ACCESS)),
            |error| matches!(error, StoreError::Open { .. }),
        )?;
        let store_file = store.database();
        let caps = Caps {
            total_bytes: config.log_bytes,
            per_dataflow_bytes: config.log_bytes_per_dataflow,
        };
        let logs = patiently(
            || LogStore::open(&dir.join("logs.redb"), caps),
            |error| matches!(error, LogStoreError::Open { .. }),
        )?;
        let (file, chain, damage) = patiently(
            || AuditHandle::open(&dir.join(records::AUDIT)),
            |error| matches!(error, StoreError::Open { .. }),
        )?;
        let audit = AuditHandle::start(file, chain).map_err(CoordinatorError::Thread)?;
        if let Some(damage) = damage {
            audit.refused(damage);
        }
        // The databases are held, so it is nobody else's.
        records::remove_left_copies(dir).map_err(|source| CoordinatorError::Folder {
            path: dir.to_owned(),
            source,
        })?;
        let bundles_dir = dir.join("bundles");
        let bundles = Bundles::open(&bundles_dir, config.bundle_bytes).map_err(|source| CoordinatorError::Folder {
            path: bundles_dir,
            source,
        })?;
        Ok(Self {
            own,
            access,
            secrets,
            stored,
            keeper: Keeper::start(store).map_err(CoordinatorError::Thread)?,
            hub: Hub::start(logs, Room::new(dir.to_owned(), config.free_bytes)).map_err(CoordinatorError::Thread)?,
            bundles,
            audit,
            store_file,
        })
    }
}

/// Tries again for a moment: the former life of this process may still hold its files.
fn patiently<T, E>(mut open: impl FnMut() -> Result<T, E>, is_worth_it: impl Fn(&E) -> bool) -> Result<T, E> {
    let began = Instant::now();
    loop {
        match open() {
            Err(error) if is_worth_it(&error) && began.elapsed() < PATIENCE => thread::sleep(PATIENCE / 60),
            result => return result,
        }
    }
}

fn private_folder(path: &Path) -> Result<(), CoordinatorError> {
    let fault = |source| CoordinatorError::Folder {
        path: path.to_owned(),
        source,
    };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fault)?;
    let mode = fs::metadata(path).map_err(fault)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(CoordinatorError::Open {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

/// How long files may be held by a former life.
const PATIENCE: Duration = Duration::from_secs(3);
