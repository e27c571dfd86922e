//! The credentials in use, on disk and in memory, and the dialler made of them. They are replaced as a whole, and only by
//! credentials of the same machine.

use dora_remote_certs::{CertError, Credentials, FloorClock};
use dora_remote_link::{DialKind, Dialer, LinkError, Speaker};
use dora_remote_protocol::{
    identity::{Identity, Role},
    name::MachineName,
};
use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use thiserror::Error;
use tokio::task::spawn_blocking;
use tracing::info;

/// Name of the file that shows whether the directory can be written.
const PROBE: &str = ".writable.tmp";

/// The credentials in use.
pub(crate) struct Keys {
    dir: PathBuf,
    speaker: Speaker,
    clock: Arc<FloorClock>,
    present: Mutex<Present>,
    /// Held while the files are written; goes along with the thread that does it.
    saving: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone)]
struct Present {
    credentials: Credentials,
    dialer: Arc<Dialer>,
}

/// Why the credentials of a machine cannot be used.
#[derive(Debug, Error)]
pub(crate) enum CredentialsError {
    /// They cannot be read.
    #[error("the credentials in {dir} cannot be used: {source}", dir = dir.display())]
    Load {
        /// Where they should be.
        dir: PathBuf,
        /// Why.
        source: CertError,
    },
    /// They are somebody else's.
    #[error("the credentials in {dir} are those of {found}, and a daemon needs some with the role `daemon`", dir = dir.display())]
    WrongRole {
        /// Where they are.
        dir: PathBuf,
        /// Whose they are.
        found: Identity,
    },
    /// They came while the daemon ran, and are those of another machine.
    #[error("the credentials in {dir} are now those of {found}, and this daemon runs as `{ours}`; restart it", dir = dir.display())]
    OtherMachine {
        /// Where they are.
        dir: PathBuf,
        /// Whose they are.
        found: Identity,
        /// Under which name this daemon runs.
        ours: MachineName,
    },
    /// They make no TLS configuration.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Loads the credentials of a machine.
///
/// # Errors
/// [`CredentialsError`].
pub(crate) fn load_credentials(dir: &Path) -> Result<Credentials, CredentialsError> {
    let credentials = Credentials::load(dir).map_err(|source| CredentialsError::Load {
        dir: dir.to_owned(),
        source,
    })?;
    let found = credentials.identity();
    if found.role != Role::Daemon {
        return Err(CredentialsError::WrongRole {
            dir: dir.to_owned(),
            found: found.clone(),
        });
    }
    Ok(credentials)
}

impl Keys {
    /// Credentials that were loaded from `dir`. Hellos count from `counter` on; certificates are judged by `clock`.
    ///
    /// # Errors
    /// [`LinkError`] when they make no TLS configuration.
    pub(crate) fn new(
        dir: PathBuf,
        credentials: Credentials,
        speaker: Speaker,
        clock: Arc<FloorClock>,
        counter: u64,
    ) -> Result<Self, LinkError> {
        let dialer = Arc::new(Dialer::with_clock(
            &credentials,
            speaker.clone(),
            DialKind::Daemon,
            clock.clone(),
        )?);
        dialer.raise_counter(counter);
        Ok(Self {
            dir,
            speaker,
            clock,
            present: Mutex::new(Present { credentials, dialer }),
            saving: Arc::default(),
        })
    }

    /// The credentials in use.
    pub(crate) fn credentials(&self) -> Credentials {
        self.present().credentials
    }

    /// The clock by which certificates are judged.
    pub(crate) fn clock(&self) -> &FloorClock {
        &self.clock
    }

    /// What this side says of itself.
    pub(super) fn speaker(&self) -> &Speaker {
        &self.speaker
    }

    /// Where the credentials lie.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What dials with the credentials in use.
    pub(super) fn dialer(&self) -> Arc<Dialer> {
        self.present().dialer
    }

    /// What dials with other credentials. Its hellos count on from the present ones.
    pub(super) fn dialer_for(&self, credentials: &Credentials) -> Result<Arc<Dialer>, LinkError> {
        let dialer = Dialer::with_clock(credentials, self.speaker.clone(), DialKind::Daemon, self.clock.clone())?;
        dialer.raise_counter(self.dialer().counter());
        Ok(Arc::new(dialer))
    }

    /// Keeps hellos counting upwards after another dialler has said some.
    pub(super) fn count_on_from(&self, dialer: &Dialer) {
        self.dialer().raise_counter(dialer.counter());
    }

    /// Uses other credentials from the next dial on. Connections that stand are not touched.
    pub(super) fn adopt(&self, credentials: Credentials, dialer: Arc<Dialer>) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        dialer.raise_counter(present.dialer.counter());
        *present = Present { credentials, dialer };
    }

    /// Takes what somebody has put on disk in place of the credentials in use; false when they are the same.
    ///
    /// # Errors
    /// [`CredentialsError`]; nothing has changed then.
    pub(super) async fn reload(&self) -> Result<bool, CredentialsError> {
        let dir = self.dir.clone();
        let found = in_thread(move || Ok(load_credentials(&dir)))
            .await
            .map_err(|source| CredentialsError::Load {
                dir: self.dir.clone(),
                source: CertError::Read {
                    path: self.dir.clone(),
                    source,
                },
            })??;
        let present = self.credentials();
        if found.certificate() == present.certificate() {
            return Ok(false);
        }
        if !found.identity().name.same_as(&present.identity().name) {
            return Err(CredentialsError::OtherMachine {
                dir: self.dir.clone(),
                found: found.identity().clone(),
                ours: present.identity().name.clone(),
            });
        }
        let dialer = self.dialer_for(&found)?;
        info!(serial = found.certificate().serial, dir = %self.dir.display(), "other credentials were put in place; they are used from now on");
        self.adopt(found, dialer);
        Ok(true)
    }

    /// Finds out whether new credentials could be saved, before any are asked for.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) async fn check_writable(&self) -> io::Result<()> {
        let path = self.dir.join(PROBE);
        in_thread(move || {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            fs::remove_file(&path)
        })
        .await
    }

    /// Writes credentials in place of those on disk, all or nothing. Once it has begun it is carried out even when nobody waits
    /// for it any more.
    ///
    /// # Errors
    /// [`CertError`]; the former ones can still be loaded then.
    pub(super) async fn save(&self, credentials: &Credentials) -> Result<(), CertError> {
        let (dir, credentials) = (self.dir.clone(), credentials.clone());
        let held = Arc::clone(&self.saving).lock_owned().await;
        let saved = in_thread(move || {
            let _held = held;
            Ok(credentials.save(&dir, true))
        });
        saved.await.map_err(|source| CertError::Write {
            path: self.dir.clone(),
            source,
        })?
    }

    fn present(&self) -> Present {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Runs something that waits for a disk off the network's thread.
async fn in_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
