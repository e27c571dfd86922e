//! The UDP sockets of a dialler: the one that it dials from, and former ones that still carry a connection.
//!
//! A socket that is dead or deaf must never leave a dialler dead. What the stack does by itself, and what is left to do here
//! (quinn 0.11, quinn-udp 0.5, Linux):
//!
//! - A datagram that cannot be sent counts as one that was lost. A firewall that forbids it (`EPERM`), a network that is gone
//!   (`ENETUNREACH`): once a minute and socket there is a warning of the target `quinn_udp`, else all of it is silence.
//! - After `EIO` or `EINVAL` a socket no longer lets the kernel cut up large pieces (GSO); after `EINVAL` it marks no more IPv4
//!   datagrams for ECN, and sends the one again. What a driver loses without an error is not noticed; see
//!   [`PathOptions`](crate::endpoint::PathOptions).
//! - An error on receiving is skipped. Only when the runtime on which the socket was opened ends, or another error comes out of its
//!   reactor, does the task that reads it end. All its connections end then, and it takes no further ones, for ever.
//!
//! So a socket whose task has ended is replaced by the next dial, and so is one from which several dials in a row have reached nobody:
//! whatever is wrong with its port, in this machine or in a NAT that holds on to a dead way as long as something passes, another
//! port does not have it. The former socket is not taken from its connections (as [`Sockets::rebind`] would do): they may be well
//! or about to come back, a handshake cannot change its address, and not every firewall lets a connection do so.

use crate::{
    close::CloseCode,
    endpoint::{self, DialKind},
    error::{DialError, LinkError},
};
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use std::{
    mem,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// The sockets of one dialler. Opens none before the first dial.
pub(crate) struct Sockets {
    kind: DialKind,
    state: Mutex<State>,
}

/// A socket, held while a dial is under way.
#[derive(Clone)]
pub(crate) struct Socket(Arc<Endpoint>);

#[derive(Default)]
struct State {
    present: Option<Socket>,
    /// Dials in a row that have reached nobody from the present one.
    unanswered: u32,
    /// Former ones that are in use.
    former: Vec<Socket>,
    is_closed: bool,
}

impl Sockets {
    pub(crate) fn new(kind: DialKind) -> Self {
        Self {
            kind,
            state: Mutex::default(),
        }
    }

    /// The socket for the next dial: a fresh one where the present one is dead, or has reached nobody for a while.
    ///
    /// # Errors
    /// [`LinkError::Ending`] after [`Self::close`]; else when there was no socket yet, or a dead one, and none is to be had.
    pub(crate) fn for_dial(&self) -> Result<Socket, LinkError> {
        let mut state = self.state();
        if state.is_closed {
            return Err(LinkError::Ending);
        }
        state.tidy();
        let is_deaf = state.unanswered >= DEAF_AFTER && state.former.len() < MAX_FORMER;
        match (&state.present, is_deaf) {
            (Some(present), false) => Ok(present.clone()),
            (Some(present), true) => match self.open() {
                Ok(fresh) => Ok(state.begin(fresh)),
                Err(error) => {
                    tracing::debug!(%error, "a socket that reaches nobody cannot be replaced now");
                    Ok(present.clone())
                }
            },
            (None, _) => Ok(state.begin(self.open()?)),
        }
    }

    /// Notes how a dial from `socket` ended. Dials that had begun before the present socket was opened say nothing of it.
    pub(crate) fn note<T>(&self, socket: &Socket, outcome: &Result<T, DialError>) {
        let mut state = self.state();
        if !state
            .present
            .as_ref()
            .is_some_and(|present| Arc::ptr_eq(&present.0, &socket.0))
        {
            return;
        }
        match outcome {
            Err(DialError::Unreachable { .. }) => state.unanswered += 1,
            // Nothing was sent.
            Err(DialError::Resolve { .. } | DialError::Local(_) | DialError::OurCertificateExpired { .. }) => {}
            // Somebody has answered, with whatever.
            Ok(_) | Err(_) => state.unanswered = 0,
        }
    }

    /// Moves all connections to other ports.
    ///
    /// # Errors
    /// When no socket is to be had; the old one is kept then.
    pub(crate) fn rebind(&self) -> Result<(), LinkError> {
        let mut state = self.state();
        if state.is_closed {
            return Ok(());
        }
        state.tidy();
        for Socket(endpoint) in state.all() {
            let fresh = endpoint::dialling_socket(self.kind)?;
            endpoint.rebind(fresh).map_err(LinkError::Socket)?;
        }
        state.unanswered = 0;
        Ok(())
    }

    /// Closes all connections, for good.
    pub(crate) fn close(&self, code: CloseCode) {
        let mut state = self.state();
        state.is_closed = true;
        for Socket(endpoint) in state.all() {
            endpoint.close(code.var(), b"");
        }
    }

    /// Waits until the last packets of all connections that were closed have left.
    pub(crate) async fn wait_idle(&self) {
        let all: Vec<_> = self.state().all().cloned().collect();
        for Socket(endpoint) in all {
            endpoint.wait_idle().await;
        }
    }

    fn open(&self) -> Result<Socket, LinkError> {
        let socket = endpoint::dialling_socket(self.kind)?;
        let endpoint =
            Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime)).map_err(LinkError::Socket)?;
        Ok(Socket(Arc::new(endpoint)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Socket {
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.0
    }

    /// Whether all its connections have ended and no further one begins, as it is dead or its dialler has ended.
    pub(crate) fn has_stopped(&self) -> bool {
        // Nobody connects to a socket that dials: the only answer there can be is that there will be none.
        let accepted = pin!(self.0.accept()).poll(&mut Context::from_waker(Waker::noop()));
        matches!(accepted, Poll::Ready(None))
    }

    fn is_in_use(&self) -> bool {
        // One holder is the list; another one is a dial that may still look up its name.
        !self.has_stopped() && (self.0.open_connections() > 0 || Arc::strong_count(&self.0) > 1)
    }
}

impl State {
    fn begin(&mut self, fresh: Socket) -> Socket {
        let unanswered = mem::take(&mut self.unanswered);
        tracing::debug!(address = ?fresh.0.local_addr(), unanswered, "a fresh UDP socket to dial from");
        self.former.extend(self.present.replace(fresh.clone()));
        fresh
    }

    /// Forgets what is dead, and former sockets that are no longer in use.
    fn tidy(&mut self) {
        self.former.retain(Socket::is_in_use);
        if self.present.as_ref().is_some_and(Socket::has_stopped) {
            tracing::warn!("the UDP socket is dead; another one is opened");
            self.present = None;
        }
    }

    fn all(&self) -> impl Iterator<Item = &Socket> {
        self.present.iter().chain(&self.former)
    }
}

/// Dials in a row that reach nobody before the next one gets a fresh socket.
const DEAF_AFTER: u32 = 3;
/// Former sockets with connections; while there are so many, the present one is kept whether it reaches somebody or not. A search goes
/// through one in eight seconds, and a connection that is silent holds its own for a minute.
const MAX_FORMER: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn unreachable() -> Result<(), DialError> {
        let address = "192.0.2.1:7".parse().expect("good");
        let after = Duration::from_secs(5);
        Err(DialError::Unreachable {
            address,
            tried: Vec::new(),
            after,
        })
    }

    fn same(one: &Socket, other: &Socket) -> bool {
        Arc::ptr_eq(&one.0, &other.0)
    }

    #[tokio::test]
    async fn only_dials_in_a_row_that_reach_nobody_from_the_present_socket_count() {
        let sockets = Sockets::new(DialKind::Daemon);
        let first = sockets.for_dial().expect("a socket");
        let refused = Err::<(), _>(DialError::NotAccepting {
            address: "192.0.2.1:7".parse().expect("good"),
        });
        let unresolved = Err::<(), _>(DialError::Resolve {
            host: "h".to_owned(),
            reason: "a test".to_owned(),
        });
        for outcome in [unreachable(), unreachable(), refused, unreachable(), unreachable(), Ok(())] {
            sockets.note(&first, &outcome);
        }
        for outcome in [unreachable(), unresolved, unreachable()] {
            sockets.note(&first, &outcome);
        }
        assert!(same(&first, &sockets.for_dial().expect("a socket")));
        sockets.note(&first, &unreachable());
        let second = sockets.for_dial().expect("a socket");
        assert!(!same(&first, &second));
        for _ in 0..DEAF_AFTER {
            sockets.note(&first, &unreachable());
        }
        assert!(same(&second, &sockets.for_dial().expect("a socket")));
    }

    #[tokio::test]
    async fn former_sockets_are_kept_while_a_dial_holds_them_and_there_are_not_too_many() {
        let sockets = Sockets::new(DialKind::Daemon);
        let next = || {
            let socket = sockets.for_dial().expect("a socket");
            for _ in 0..DEAF_AFTER {
                sockets.note(&socket, &unreachable());
            }
            socket
        };
        for _ in 0..2 * MAX_FORMER {
            drop(next());
        }
        assert!(sockets.state().former.len() <= 1, "nobody holds them");
        let held: Vec<_> = (0..2 * MAX_FORMER).map(|_| next()).collect();
        assert_eq!(sockets.state().former.len(), MAX_FORMER);
        assert!(same(&held[MAX_FORMER + 1], &held[2 * MAX_FORMER - 1]), "the last one is kept");
        drop(held);
        drop(next());
        assert_eq!(sockets.state().former.len(), 1);
    }

    #[tokio::test]
    async fn after_the_end_there_are_no_more_sockets() {
        let sockets = Sockets::new(DialKind::Command);
        let socket = sockets.for_dial().expect("a socket");
        assert!(!socket.has_stopped());
        sockets.close(CloseCode::Done);
        assert!(socket.has_stopped());
        assert!(matches!(sockets.for_dial(), Err(LinkError::Ending)));
        sockets.rebind().expect("nothing to do");
        sockets.wait_idle().await;
    }
}
