//! What happens to a stream that a peer opens: header, verb, role, certificate; only then a handler sees the body.
//!
//! One task per stream. The same code serves the coordinator and a daemon that takes orders on the connection it dialled.

use crate::{
    answer::{self, Asked, Outcome},
    close::CloseCode,
    context::Context,
    idle::OpenStreams,
    patience::Patience,
    peer::{Peer, Rights, WeakPeer},
    present::BodyBudget,
    router::{Route, Router},
    shutdown::Tasks,
    stream::{FrameReader, Outgoing, StreamError},
};
use dora_remote_certs::{Admission, Admit, Clock, Rejection, admit};
use dora_remote_protocol::{
    identity::Role,
    limits::{MAX_DEADLINE, MAX_HEADER_BYTES},
    refusal::{Refusal, RefusalCode},
    request::{Header, Priority, Shape},
};
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// Everything that serving a stream needs. Clones are handles.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) router: Arc<Router>,
    /// The tasks of the streams.
    pub(crate) handlers: Tasks,
    /// Judges each asker anew; none where the peer is the coordinator that we dialled.
    pub(crate) gatekeeper: Option<Gatekeeper>,
    /// Hears of each command that was refused before a handler saw it.
    pub(crate) on_refusal: OnRefusal,
    pub(crate) patience: Patience,
}

/// Hears of each command that was refused before a handler saw it.
pub(crate) type OnRefusal = Arc<dyn Fn(&Peer, &RefusedCommand) + Send + Sync>;

/// A command that was refused before its handler was called, for the audit.
#[derive(Clone, Debug)]
pub struct RefusedCommand {
    /// Its header.
    pub header: Header,
    /// Name of the verb, if it is known here.
    pub name: Option<&'static str>,
    /// What the asker was told.
    pub refusal: Refusal,
}

impl Service {
    /// Serves every stream that the peer opens, until the connection ends, counts them in `open`, and reads their requests
    /// within the budget `bodies`.
    pub(crate) async fn run(
        &self,
        peer: &WeakPeer,
        connection: &Connection,
        open: &OpenStreams,
        bodies: &BodyBudget,
    ) -> ConnectionError {
        loop {
            let (send, recv) = match connection.accept_bi().await {
                Ok(stream) => stream,
                Err(error) => return error,
            };
            let Some(peer) = peer.upgrade() else {
                // The last handle was dropped, so the connection is closing.
                return connection.closed().await;
            };
            let (service, open, bodies) = (self.clone(), open.enter(), bodies.clone());
            self.handlers.spawn("stream", async move {
                service.stream(peer, send, recv, bodies).await;
                drop(open);
            });
        }
    }

    async fn stream(&self, peer: Peer, send: SendStream, recv: RecvStream, bodies: BodyBudget) {
        let mut incoming = FrameReader::new(recv);
        let mut outgoing = Outgoing::new(send, Priority::Command);
        let header: Header = match timeout(self.patience.header, incoming.read(MAX_HEADER_BYTES)).await {
            Ok(Ok(Some(header))) => header,
            Ok(Err(StreamError::Frame(error))) => {
                tracing::warn!(peer = %peer.identity(), remote = %peer.remote_address(), %error, "refused a broken header");
                let refusal = Refusal::new(RefusalCode::BadRequest, format!("the header breaks the protocol: {error}"));
                answer::refuse(&mut outgoing, refusal, &self.patience).await;
                return;
            }
            Ok(Ok(None) | Err(_)) | Err(_) => {
                tracing::debug!(peer = %peer.identity(), "a stream ended without a header, or none came in time");
                return;
            }
        };
        let route = self.router.route(header.verb);
        match self.check(&peer, &header, route) {
            Ok(route) => {
                let context = self.context(peer, &header, route.shape);
                let asked = Asked {
                    context,
                    incoming,
                    outgoing,
                    patience: self.patience,
                    bodies,
                };
                run(asked, &header, route).await;
            }
            Err(denial) => self.deny(&peer, header, route, denial, outgoing).await,
        }
    }

    /// The rules before a handler, in their order.
    fn check<'a>(&self, peer: &Peer, header: &Header, route: Option<&'a Route>) -> Result<&'a Route, Denial> {
        if self.handlers.token().is_cancelled() {
            let refusal = Refusal::new(RefusalCode::ShuttingDown, "this side is ending").hint("try again in a moment");
            return Err(refusal.into());
        }
        let Some(route) = route else {
            let refusal = Refusal::new(RefusalCode::UnknownVerb, format!("{} is not known here", header.verb))
                .hint("the other side is of another version; upgrade the older one");
            return Err(refusal.into());
        };
        let rights = match &self.gatekeeper {
            Some(gatekeeper) => gatekeeper.judge(peer)?,
            None => Rights::Full,
        };
        // What the rights are for comes before the role: an invite has none yet.
        match (rights, route.for_invited) {
            (Rights::JoinOnly(_), true) => return Ok(route),
            (Rights::JoinOnly(_), false) => {
                let message = format!("an invite allows nothing but joining, not `{}`", route.name);
                let refusal =
                    Refusal::new(RefusalCode::Denied, message).hint("join first, and ask with the identity that you get");
                return Err(refusal.into());
            }
            (Rights::Full | Rights::RenewOnly, true) => {
                let message = format!(
                    "`{}` is for the holder of an invite alone, and this is {}",
                    route.name,
                    peer.identity()
                );
                let refusal = Refusal::new(RefusalCode::Denied, message)
                    .hint("use the token of an invite; the identity that you have was not changed");
                return Err(refusal.into());
            }
            (Rights::Full | Rights::RenewOnly, false) => {}
        }
        let role = peer.identity().role;
        if !route.may_ask.contains(role) {
            let refusal = Refusal::new(
                RefusalCode::Denied,
                format!("the role `{role}` may not ask `{}`; {} may", route.name, route.may_ask),
            )
            .hint("ask an admin, or use credentials of another role");
            return Err(refusal.into());
        }
        if rights == Rights::RenewOnly && !route.for_lapsed {
            return Err(lapsed(false));
        }
        Ok(route)
    }

    async fn deny(&self, peer: &Peer, header: Header, route: Option<&Route>, denial: Denial, mut outgoing: Outgoing) {
        let Denial { refusal, close } = denial;
        let refused = RefusedCommand {
            header,
            name: route.map(|route| route.name),
            refusal,
        };
        if refused.refusal.code != RefusalCode::ShuttingDown {
            tracing::warn!(
                peer = %peer.identity(),
                serial = peer.certificate().serial,
                remote = %peer.remote_address(),
                verb = refused.header.verb.0,
                name = refused.name,
                request_id = %refused.header.request_id,
                reason = %refused.refusal,
                "refused a command"
            );
        }
        (self.on_refusal)(peer, &refused);
        answer::refuse(&mut outgoing, refused.refusal, &self.patience).await;
        if let Some(code) = close {
            peer.close(code, code.as_str());
        }
    }

    fn context(&self, peer: Peer, header: &Header, shape: Shape) -> Context {
        let time = match (header.deadline_ms, shape) {
            (0, Shape::Feed) => None,
            (0, Shape::Call | Shape::Upload) => Some(MAX_DEADLINE),
            (milliseconds, _) => Some(Duration::from_millis(milliseconds.into()).min(MAX_DEADLINE)),
        };
        Context {
            peer,
            request_id: header.request_id,
            deadline: time.map(|time| Instant::now() + time),
            shutdown: self.handlers.token().clone(),
        }
    }
}

async fn run(asked: Asked, header: &Header, route: &Route) {
    let began = Instant::now();
    let peer = asked.context.peer.clone();
    // Counts only for what is written from here on, which is all of it.
    asked.outgoing.set_priority(route.priority);
    let outcome = (route.handler)(asked).await;
    let took = began.elapsed();
    let request_id = header.request_id;
    match outcome {
        Outcome::Replied => {
            tracing::debug!(peer = %peer.identity(), name = route.name, %request_id, ?took, "answered a command");
        }
        Outcome::Refused(code) => {
            let code = code.as_str();
            tracing::debug!(peer = %peer.identity(), name = route.name, %request_id, ?took, code, "a handler said no");
        }
        Outcome::Abandoned => {
            tracing::debug!(peer = %peer.identity(), name = route.name, %request_id, ?took, "the asker went away");
        }
        Outcome::Stalled => {
            tracing::warn!(peer = %peer.identity(), name = route.name, %request_id, ?took, "the asker has stopped reading");
            // A person's program that paused comes back and goes on where it was; a machine's other streams are worth more.
            if !matches!(peer.identity().role, Role::Daemon | Role::Coordinator) {
                peer.close(CloseCode::TimeOver, "nothing was read for too long");
            }
        }
    }
}

/// Judges a peer again on each of its streams, so that a revocation or an end of life needs no new connection to count.
#[derive(Clone)]
pub(crate) struct Gatekeeper {
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Gatekeeper {
    fn judge(&self, peer: &Peer) -> Result<Rights, Denial> {
        let now = self.clock.now();
        let shown_until = peer.certificate().not_after;
        // A peer that was issued a new certificate on this connection is judged as if the one that it showed had not ended.
        let renewed = *peer.certificate_end().borrow() > now;
        let at = if renewed { now.min(shown_until) } else { now };
        match (admit(peer.chain(), at, &self.admission.snapshot()), peer.rights()) {
            (Admit::JoinOnly(key, _), Rights::JoinOnly(shown)) if key == shown => Ok(Rights::JoinOnly(key)),
            (_, Rights::JoinOnly(_)) => Err(Denial {
                refusal: Refusal::new(RefusalCode::InviteVoid, "the invite is not known any more").hint("ask for a new one"),
                close: Some(CloseCode::Refused),
            }),
            // Who came to renew comes anew with what it was given: its life as a peer begins with that.
            (Admit::Full(_), rights) => Ok(rights),
            (Admit::RenewOnly(_), _) => Ok(Rights::RenewOnly),
            (Admit::No(Rejection::Expired { .. }), _) => Err(lapsed(true)),
            (Admit::No(Rejection::Revoked { .. }), _) => Err(Denial {
                refusal: Refusal::new(RefusalCode::Denied, "the certificate was revoked").hint("ask an admin"),
                close: Some(CloseCode::Revoked),
            }),
            (Admit::JoinOnly(..) | Admit::No(_), _) => Err(Denial {
                refusal: Refusal::new(RefusalCode::Denied, "the certificate is not accepted any more").hint("ask an admin"),
                close: Some(CloseCode::Refused),
            }),
        }
    }
}

/// A no before the handler, and whether the connection ends with it.
struct Denial {
    refusal: Refusal,
    close: Option<CloseCode>,
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, close: None }
    }
}

fn lapsed(close: bool) -> Denial {
    Denial {
        refusal: Refusal::new(RefusalCode::CertificateLapsed, "the certificate has ended").hint("renew it"),
        close: close.then_some(CloseCode::CertificateLapsed),
    }
}
