//! One renewal of a person's certificate: a new key, a new certificate, proof that it is let in, and only then the files.
//!
//! Several processes share one identity: a lock beside its files lets one of them renew, and the others take over what it has
//! saved. When and how often to try lies in `client/keeper.rs`.

use crate::{client::speaker, failure::Failure};
use dora_remote_certs::{BACKDATE, CertError, CertificateFacts, Credentials, new_key_and_request};
use dora_remote_link::{Address, CallError, CloseCode, DialError, DialKind, Dialer, LinkError, Peer};
use dora_remote_protocol::{access::Renew, limits::QUERY_DEADLINE};
use std::{
    error::Error,
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use thiserror::Error;
use tokio::task::spawn_blocking;

/// Name of the lock within the directory of an identity.
const LOCK: &str = "renew.lock";

/// What came of an attempt to renew.
#[derive(Debug)]
pub enum Renewed {
    /// The new credentials, proven and saved.
    Issued(Credentials),
    /// Another process had saved these before.
    Adopted(Credentials),
    /// Another process is renewing at this moment.
    Elsewhere,
}

/// Why a certificate was not renewed. The old one is as it was.
#[derive(Debug, Error)]
pub enum RenewalError {
    /// The directory of the identity cannot be written.
    #[error("{} cannot be written", dir.display())]
    NotWritable {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The files cannot be read or written, or what was issued is not good.
    #[error(transparent)]
    Certificates(#[from] CertError),
    /// The coordinator has not issued any.
    #[error("the coordinator has not issued a new one")]
    Refused(#[source] CallError),
    /// The new certificate was not let in, so the old one stays.
    #[error("the new certificate was not let in")]
    NotProven(#[source] CallError),
    /// No second connection came about to try the new certificate.
    #[error("the new certificate could not be tried")]
    NotTried(#[source] DialError),
    /// No connection could be set up with the new certificate.
    #[error("the new certificate makes no connection")]
    Link(#[from] LinkError),
    /// The work was lost: a fault of this program.
    #[error("the renewal was lost")]
    Lost(#[source] tokio::task::JoinError),
}

impl RenewalError {
    /// The whole story in one line.
    #[must_use]
    pub fn story(&self) -> String {
        crate::failure::chain(self as &(dyn Error + 'static)).join(": ")
    }
}

/// When a certificate is to be renewed: after two thirds of its life, and up to a twelfth of it later by `jitter` (0 to 1), so
/// that those that began together do not all come at once.
#[must_use]
pub fn due(facts: &CertificateFacts, jitter: f64) -> SystemTime {
    // Certificates begin before they are made; that hour is no part of the life that their holder sees.
    let made = facts.not_before + BACKDATE;
    let begin = if made < facts.not_after { made } else { facts.not_before };
    let life = facts.not_after.duration_since(begin).unwrap_or_default();
    begin + life.mul_f64(2.0 / 3.0 + jitter.clamp(0.0, 1.0) / 12.0)
}

/// Renews the certificate of `held`, which lies in `dir`, over a connection that stands.
///
/// # Errors
/// See [`RenewalError`]; whatever happens, the files in `dir` are whole, and the old ones unless the new ones are proven.
pub async fn renew(dir: &Path, held: &Credentials, peer: &Peer, address: &Address) -> Result<Renewed, RenewalError> {
    let (lock, on_disk) = {
        let dir = dir.to_owned();
        match blocking(move || lock_and_load(&dir)).await? {
            Some(found) => found,
            None => return Ok(Renewed::Elsewhere),
        }
    };
    if is_newer(&on_disk, held) {
        return Ok(Renewed::Adopted(on_disk));
    }
    let request = new_key_and_request(held.identity())?;
    let wanted = Renew {
        request: request.der().to_vec(),
    };
    let issued = peer.call(&wanted, QUERY_DEADLINE).await.map_err(RenewalError::Refused)?;
    let chain = issued.chain.into_iter().map(Into::into).collect();
    let fresh = request.into_credentials(chain, held.root().clone())?;
    prove(&fresh, address).await?;
    let saved = fresh.clone();
    let dir = dir.to_owned();
    blocking(move || {
        saved.save(&dir, true)?;
        drop(lock);
        Ok(())
    })
    .await?;
    Ok(Renewed::Issued(fresh))
}

/// The credentials in `dir`, when they follow those that are held.
#[must_use]
pub fn successor(dir: &Path, held: &Credentials) -> Option<Credentials> {
    Credentials::load(dir).ok().filter(|found| is_newer(found, held))
}

/// Shows the coordinator the new certificate before anything is replaced.
async fn prove(fresh: &Credentials, address: &Address) -> Result<(), RenewalError> {
    let dialer = Dialer::new(fresh, speaker(), DialKind::Command)?;
    let peer = dialer.dial(address).await.map_err(RenewalError::NotTried)?;
    let welcome = peer.welcome().await;
    peer.close_and_flush(CloseCode::Done, "").await;
    welcome.map(drop).map_err(RenewalError::NotProven)
}

fn is_newer(found: &Credentials, held: &Credentials) -> bool {
    found.identity() == held.identity()
        && found.root() == held.root()
        && found.certificate().not_after > held.certificate().not_after
}

/// Takes the lock and reads what is there by then; none when another process has the lock.
fn lock_and_load(dir: &Path) -> Result<Option<(File, Credentials)>, RenewalError> {
    let not_writable = |source| RenewalError::NotWritable {
        dir: dir.to_owned(),
        source,
    };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(dir.join(LOCK)).map_err(not_writable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(not_writable(error)),
    }
    let credentials = Credentials::load(dir)?;
    Ok(Some((file, credentials)))
}

/// Work with files does not belong on the thread of the connection.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, RenewalError> + Send + 'static) -> Result<T, RenewalError> {
    spawn_blocking(work).await.map_err(RenewalError::Lost)?
}

/// What to say when a certificate was not renewed, `left` before its end.
#[must_use]
pub fn warning(error: &RenewalError, left: Duration) -> String {
    let left = crate::output::time::span(left);
    let advice = match error {
        RenewalError::NotWritable { .. } => "give each process an identity that it may write, or a certificate that lives longer",
        _ => "should it end, ask an admin for an invite and `dora-remote join` again",
    };
    format!(
        "your certificate ends in {left} and was not renewed: {}; {advice}",
        error.story()
    )
}

impl From<RenewalError> for Failure {
    fn from(error: RenewalError) -> Self {
        Self::new(crate::exit::Exit::Certificate, "cannot renew the certificate").because(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dora_remote_certs::Authority;

    const HOUR: Duration = Duration::from_secs(3600);

    fn issued(dir: &Path, life: Duration, now: SystemTime) -> Credentials {
        let authority = dir.join("authority");
        let domain = "lab".parse().expect("good");
        let authority = Authority::load(&authority)
            .or_else(|_| Authority::init(&authority, &domain, now))
            .expect("an authority");
        let identity = "spiffe://lab/viewer/ann".parse().expect("good");
        authority.issue(&identity, life, now).expect("issued")
    }

    #[test]
    fn two_thirds_are_counted_from_when_it_was_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let now = SystemTime::UNIX_EPOCH + HOUR * 24 * 365 * 50;
        let facts = issued(dir.path(), HOUR * 3, now).certificate().clone();
        assert_eq!(due(&facts, 0.0), now + HOUR * 2);
        assert_eq!(due(&facts, 1.0), now + HOUR * 2 + HOUR / 4);
        let short = issued(dir.path(), Duration::from_secs(30), now).certificate().clone();
        assert_eq!(due(&short, 0.0), now + Duration::from_secs(20));
    }

    #[test]
    fn one_process_renews_and_the_next_one_takes_over_what_it_saved() {
        let dir = tempfile::tempdir().expect("a directory");
        let now = SystemTime::now();
        let (old, new) = (issued(dir.path(), HOUR, now), issued(dir.path(), HOUR * 2, now));
        let home = dir.path().join("ann");
        old.save(&home, false).expect("saved");
        assert!(successor(&home, &old).is_none());
        let held = lock_and_load(&home).expect("good").expect("free");
        assert!(lock_and_load(&home).expect("good").is_none(), "another process has it");
        new.save(&home, true).expect("saved");
        drop(held);
        let (_, found) = lock_and_load(&home).expect("good").expect("free again");
        assert!(is_newer(&found, &old) && !is_newer(&found, &new) && !is_newer(&old, &new));
        assert!(successor(&home, &old).is_some());
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_told_with_what_helps() {
        let dir = tempfile::tempdir().expect("a directory");
        // Root may write everywhere, but not into a directory as if it were a file.
        std::fs::create_dir(dir.path().join(LOCK)).expect("made");
        let error = lock_and_load(dir.path()).expect_err("not writable");
        assert!(matches!(error, RenewalError::NotWritable { .. }));
        let text = warning(&error, HOUR);
        assert!(
            text.contains("ends in 1h and was not renewed") && text.contains("may write"),
            "{text}"
        );
    }
}
