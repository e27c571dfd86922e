//! Who is asked by the verbs for admins: a coordinator over the network, or the one of this host through its admin socket.
//!
//! Commands are written once, against [`Asking`]. Which of the two is meant is decided by `choose`.

use crate::{
    admin_socket::{AdminSocket, LocalFeed},
    client::{Session, next_heard},
    commands::Context,
    exit::Exit,
    failure::Failure,
    output::progress,
    places::{self, Env, process_env},
    target,
};
use dora_remote_link::{CallError, DialKind, Feed};
use dora_remote_protocol::{refusal::Changed, request::Request};
use serde::de::DeserializeOwned;
use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Variable that names the admin socket.
pub const SOCKET_VARIABLE: &str = "DORA_REMOTE_ADMIN_SOCKET";
/// State directory of the coordinator that runs as a service, with its admin socket.
const SERVICE_STATE: &str = "/var/lib/dora-remote-coordinator";
/// Name of the socket within a state directory.
const SOCKET: &str = "admin.sock";

/// Somebody who can be asked.
pub enum Asking {
    /// A coordinator over the network.
    Remote(Session),
    /// The coordinator of this host.
    Local(AdminSocket, Context),
}

/// A feed, wherever it comes from.
pub enum Items<I> {
    /// Over the network.
    Remote(Feed<I>, String),
    /// Through the admin socket.
    Local(LocalFeed<I>),
}

/// What a command line means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Choice {
    /// This socket and nothing else.
    Socket(PathBuf),
    /// The coordinator that is named, by whatever names it.
    Network,
    /// Nothing is named: the first of these sockets that may be used.
    AnyOf(Vec<PathBuf>),
}

impl Asking {
    /// Asks and waits for the reply; `what` is what is wanted, such as ``revoke `ann` ``.
    ///
    /// # Errors
    /// What the coordinator refuses, and all that can go wrong on the way.
    pub async fn call<R: Request>(&self, what: &str, request: &R, deadline: Duration) -> Result<R::Reply, Failure> {
        match self {
            Self::Remote(session) => session.call(what, request, deadline).await,
            Self::Local(socket, context) => {
                let waiting = || "waiting for the coordinator".to_owned();
                progress::showing(&context.printer, waiting, socket.call(what, request, deadline)).await
            }
        }
    }

    /// Asks for a feed, which ends with its connection. A refusal comes with the first item.
    ///
    /// # Errors
    /// All that can go wrong on the way.
    pub async fn feed<R: Request>(&self, what: &str, request: &R) -> Result<Items<R::Reply>, Failure> {
        match self {
            Self::Remote(session) => {
                let feed = session.peer().await.feed(request, None).await;
                let feed = feed.map_err(|error| Failure::of_call(what, &error).looking())?;
                Ok(Items::Remote(feed, what.to_owned()))
            }
            Self::Local(socket, _) => Ok(Items::Local(socket.feed(what, request).await.map_err(Failure::looking)?)),
        }
    }

    /// Hands every item of a feed to `take`, over any number of lost connections. `take` moves the cursor in the request, so
    /// that a new connection goes on where the old one broke off. Returns when the feed is whole.
    ///
    /// # Errors
    /// What ends the feed for good, and what `take` says.
    pub async fn follow<R: Request>(
        &self,
        what: &str,
        mut request: R,
        mut take: impl AsyncFnMut(R::Reply, &mut R) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let session = match self {
            Self::Remote(session) => session,
            Self::Local(socket, _) => {
                let mut feed = socket.feed(what, &request).await.map_err(Failure::looking)?;
                while let Some(item) = feed.next().await.map_err(Failure::looking)? {
                    take(item, &mut request).await?;
                }
                return Ok(());
            }
        };
        let mut peer = session.peer().await;
        loop {
            let ended: CallError = match peer.feed(&request, None).await {
                Err(error) => error,
                Ok(mut feed) => loop {
                    match session.next(&peer, &mut feed).await {
                        Ok(None) => return Ok(()),
                        Ok(Some(item)) => take(item, &mut request).await?,
                        Err(error) => break error,
                    }
                },
            };
            if !session.may_return(&peer, &ended).await {
                return Err(Failure::of_call(what, &ended).looking());
            }
            peer = session.reconnect(&peer).await.map_err(Failure::looking)?;
        }
    }

    /// The coordinator's clock in milliseconds since the Unix epoch; on the same host it is ours.
    ///
    /// # Errors
    /// What can go wrong on the way.
    pub async fn now_unix_ms(&self) -> Result<u64, Failure> {
        match self {
            Self::Remote(session) => session.now_unix_ms().await,
            Self::Local(..) => Ok(crate::output::time::unix_ms(SystemTime::now())),
        }
    }

    /// Ends the asking in an orderly way.
    pub async fn close(self) {
        if let Self::Remote(session) = self {
            session.close().await;
        }
    }
}

impl<I: DeserializeOwned> Items<I> {
    /// The next item; `None` at the end of a whole feed and ever after. Cancel safe.
    ///
    /// # Errors
    /// What the coordinator refuses, and all that can go wrong on the way.
    pub async fn next(&mut self) -> Result<Option<I>, Failure> {
        match self {
            Self::Remote(feed, what) => {
                let item = next_heard(feed).await;
                item.map_err(|error| Failure::of_call(what, &error).looking())
            }
            Self::Local(feed) => feed.next().await.map_err(Failure::looking),
        }
    }
}

impl Context {
    /// Does `work` with the coordinator that is meant: through the admin socket that is named by the command line or
    /// `DORA_REMOTE_ADMIN_SOCKET`, else over the network, else, where no coordinator is named at all, through the admin socket
    /// of the coordinator on this host.
    ///
    /// # Errors
    /// A failure when no coordinator is named and none on this host may be asked; those of the way, and those of `work`.
    pub async fn asking<T>(
        &self,
        socket: Option<&Path>,
        kind: DialKind,
        work: impl AsyncFnOnce(&Asking) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let asking = self.find_asking(socket, kind).await?;
        let done = work(&asking).await;
        asking.close().await;
        done
    }

    async fn find_asking(&self, socket: Option<&Path>, kind: DialKind) -> Result<Asking, Failure> {
        let is_named = self.given.address.is_some() || self.given.context.is_some();
        let socket = match choose(socket, is_named, &process_env)? {
            Choice::Socket(path) => AdminSocket::at(path),
            Choice::Network => return self.remote(kind).await,
            Choice::AnyOf(paths) => {
                let is_named = target::resolve_if_named(&self.given, &process_env)?.is_some();
                if is_named {
                    return self.remote(kind).await;
                }
                let left_over = paths.iter().find(|path| path.exists()).cloned();
                match (first_usable(paths).await, left_over) {
                    (Some(socket), _) => socket,
                    (None, Some(path)) => return Err(not_running(&path)),
                    (None, None) => return self.remote(kind).await,
                }
            }
        };
        self.printer.aside(&format!(
            "coordinator of this host (admin socket {})",
            socket.path().display()
        ));
        Ok(Asking::Local(socket, self.clone()))
    }

    async fn remote(&self, kind: DialKind) -> Result<Asking, Failure> {
        let target = self.target()?;
        self.announce(&target);
        Ok(Asking::Remote(Session::open(&target, kind, &self.printer).await?))
    }
}

/// Decides what is meant; `is_named` says whether the command line names a coordinator or a context.
fn choose(socket: Option<&Path>, is_named: bool, env: Env<'_>) -> Result<Choice, Failure> {
    match socket {
        Some(_) if is_named => Err(Failure::usage(
            "the command line names an admin socket and a coordinator over the network; leave one of them out",
        )),
        Some(path) => Ok(Choice::Socket(path.to_owned())),
        // What is typed wins over what happens to be set.
        None if is_named => Ok(Choice::Network),
        None => Ok(match env(SOCKET_VARIABLE) {
            Some(path) => Choice::Socket(path.into()),
            None => Choice::AnyOf(usual_sockets(env)),
        }),
    }
}

/// Where the coordinator of this host keeps its socket: one that this user runs, and one that runs as a service.
fn usual_sockets(env: Env<'_>) -> Vec<PathBuf> {
    let own = places::state_dir(env).ok().map(|dir| dir.join("coordinator"));
    own.into_iter()
        .chain([PathBuf::from(SERVICE_STATE)])
        .map(|dir| dir.join(SOCKET))
        .collect()
}

/// Nobody is named, and the coordinator of this host has left its socket behind.
fn not_running(socket: &Path) -> Failure {
    Failure::new(Exit::Unreachable, "the coordinator of this host does not run")
        .cause(format!("nobody answers at {}", socket.display()))
        .hint("start it again, or name another one with `--coordinator-addr HOST[:PORT]`")
        .changed(Changed::Nothing)
}

async fn first_usable(paths: Vec<PathBuf>) -> Option<AdminSocket> {
    for socket in paths.into_iter().map(AdminSocket::at) {
        if socket.may_be_used().await {
            return Some(socket);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    #[test]
    fn what_is_typed_wins_and_two_words_for_two_coordinators_are_refused() {
        let env = |name: &str| (name == SOCKET_VARIABLE).then(|| OsString::from("/run/a.sock"));
        let typed = Path::new("/run/b.sock");
        assert_eq!(choose(Some(typed), false, &env), Ok(Choice::Socket(typed.to_owned())));
        assert_eq!(choose(None, true, &env), Ok(Choice::Network));
        assert_eq!(choose(None, false, &env), Ok(Choice::Socket("/run/a.sock".into())));
        assert_eq!(
            choose(Some(typed), true, &env).expect_err("two of them").exit,
            crate::exit::Exit::Usage
        );
    }

    #[test]
    fn without_any_word_the_usual_places_are_looked_at() {
        let env = |name: &str| (name == "HOME").then(|| OsString::from("/home/ann"));
        let usual = [
            "/home/ann/.local/state/dora-remote/coordinator/admin.sock",
            "/var/lib/dora-remote-coordinator/admin.sock",
        ];
        assert_eq!(choose(None, false, &env), Ok(Choice::AnyOf(usual.map(PathBuf::from).into())));
        assert_eq!(choose(None, false, &|_| None), Ok(Choice::AnyOf(vec![usual[1].into()])));
    }
}
