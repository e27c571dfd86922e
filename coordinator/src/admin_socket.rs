//! The admin socket: a unix socket in the state directory, through which the user of the coordinator, and root, administer it on its host
//! without a certificate. It is the way in when no certificate is good any more.
//!
//! One request per connection, in the frames of a QUIC stream. The kernel says whose process is at the other end.

mod exchange;
mod routes;

use crate::{audit::Draft, handlers::Desk};
use dora_remote_protocol::refusal::{Refusal, RefusalCode};
use exchange::Exchange;
use routes::Routes;
use std::{
    fs::{self, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use thiserror::Error;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A socket that listens. Its file is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Who runs the coordinator, and may ask.
    owner: u32,
}

impl AdminSocket {
    /// Listens in a state directory that nobody else uses: a socket that lies there was left by a coordinator that was killed.
    pub(crate) fn bind(state_dir: &Path) -> Result<Self, AdminSocketError> {
        let path = state_dir.join(FILE);
        if path.as_os_str().as_bytes().len() > MAX_PATH_BYTES {
            return Err(AdminSocketError::TooLong { path });
        }
        let fault = |source| AdminSocketError::Unusable {
            path: path.clone(),
            source,
        };
        match fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_socket() => fs::remove_file(&path).map_err(fault)?,
            Ok(_) => return Err(AdminSocketError::Foreign { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fault(error)),
        }
        let listener = UnixListener::bind(&path).map_err(fault)?;
        // Until then the mode of the directory keeps others out.
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(fault)?;
        let owner = fs::symlink_metadata(&path).map_err(fault)?.uid();
        Ok(Self { listener, path, owner })
    }

    /// Answers until `shutdown`, then gives what is under way a moment to end.
    pub(crate) async fn run(self, desk: Desk, shutdown: CancellationToken) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let excess = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let routes = Arc::new(Routes::new());
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Most likely there are no file descriptors left: they come back.
                    tracing::error!(%error, "cannot accept at the admin socket");
                    sleep(AGAIN_AFTER).await;
                    continue;
                }
            };
            let (desk, routes, token) = (desk.clone(), Arc::clone(&routes), shutdown.clone());
            let owner = self.owner;
            if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                tasks.spawn(async move {
                    let _place = place;
                    serve(stream, owner, desk, &routes, token).await;
                });
            } else if let Ok(place) = Arc::clone(&excess).try_acquire_owned() {
                tracing::warn!("too many commands at the admin socket; one is refused");
                tasks.spawn(async move {
                    let _place = place;
                    turn_away(stream).await;
                });
            } else {
                tracing::warn!("far too many connections at the admin socket; one is closed");
            }
        }
        tasks.close();
        if timeout(GRACE, tasks.wait()).await.is_err() {
            tracing::warn!("commands at the admin socket did not end in time");
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the admin socket");
        }
    }
}

/// Sees who asks, and answers.
async fn serve(stream: UnixStream, owner: u32, desk: Desk, routes: &Routes, shutdown: CancellationToken) {
    let uid = match stream.peer_cred() {
        Ok(peer) => peer.uid(),
        Err(error) => {
            tracing::warn!(%error, "cannot tell who is at the admin socket");
            return;
        }
    };
    let mut exchange = Exchange::new(stream);
    if uid != owner && uid != ROOT {
        let message = format!("the admin socket is for the user {owner} and for root, not for the user {uid}");
        let refused: Result<(), _> = Err(Refusal::new(RefusalCode::Denied, message));
        tracing::warn!(uid, owner, "refused a user at the admin socket");
        let mut draft = Draft::by_coordinator("admin-socket", "the admin socket").result(&refused);
        draft.who = local(uid);
        desk.audit.refused(draft);
        if let (Err(refusal), Ok(header)) = (refused, exchange.header().await)
            && exchange.skip_body().await.is_ok()
        {
            exchange.refuse(routes::shape_of(header.verb), refusal).await;
        }
        return;
    }
    routes.answer(exchange, local(uid), desk, shutdown).await;
}

/// Tells one that there is no place for its command.
async fn turn_away(stream: UnixStream) {
    let mut exchange = Exchange::new(stream);
    let Ok(header) = exchange.header().await else { return };
    if exchange.skip_body().await.is_ok() {
        let refusal =
            Refusal::new(RefusalCode::Busy, "too many commands at the admin socket at once").hint("try again in a moment");
        exchange.refuse(routes::shape_of(header.verb), refusal).await;
    }
}

/// How a user of this host is called in the log, the audit and the records.
fn local(uid: u32) -> String {
    format!("local uid {uid}")
}

/// Why there is no admin socket.
#[derive(Debug, Error)]
pub enum AdminSocketError {
    /// The path of the state directory is too long for a socket in it.
    #[error(
        "the path of the admin socket, {}, is longer than {MAX_PATH_BYTES} bytes, which is all that the system allows; choose a state \
         directory with a shorter path",
        path.display()
    )]
    TooLong {
        /// Where it would lie.
        path: PathBuf,
    },
    /// Something else lies where the socket belongs.
    #[error("{} is not a socket; move it away, it is where the admin socket belongs", path.display())]
    Foreign {
        /// Where it would lie.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot make the admin socket {}: {source}", path.display())]
    Unusable {
        /// Where it would lie.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Name of the socket in the state directory.
const FILE: &str = "admin.sock";
/// Longest path of a unix socket: 108 bytes with the zero at its end (unix(7)).
const MAX_PATH_BYTES: usize = 107;
/// Connections at once. As many more are told that there is no place, and those beyond are closed.
const MAX_CONNECTIONS: usize = 16;
/// The user who may do everything on a host.
const ROOT: u32 = 0;
/// Wait before the socket is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Time for commands to end when the coordinator does.
const GRACE: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let first = AdminSocket::bind(dir.path()).unwrap();
        // As if it had been killed.
        std::mem::forget(first);
        let again = AdminSocket::bind(dir.path()).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        drop(again);
        assert!(!path.exists());
        fs::write(&path, "mine").unwrap();
        assert!(matches!(AdminSocket::bind(dir.path()), Err(AdminSocketError::Foreign { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(100));
        fs::create_dir(&deep).unwrap();
        let error = AdminSocket::bind(&deep).unwrap_err().to_string();
        assert!(error.contains("107 bytes") && error.contains("shorter"), "{error}");
    }
}
