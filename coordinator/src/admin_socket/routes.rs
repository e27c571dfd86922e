//! What may be asked at the admin socket: administration and what it needs, nothing that starts or stops a dataflow.

use super::exchange::{Exchange, ExchangeError};
use crate::{
    asker::Asker,
    handlers::{self, Desk, access, audit, machines, to_the_end},
    out::Out,
};
use dora_remote_protocol::{
    access::{AcceptRestore, CreateInvite, ListIdentities, ListInvites, Revoke, RevokeInvite},
    audit::ListWitnesses,
    backup::ReadBackup,
    cli_to_coordinator::{GetStatus, ListMachines},
    limits::MAX_DEADLINE,
    refusal::{Changed, Refusal, RefusalCode},
    request::{Answer, FeedFrame, Header, Request, Shape, Verb},
    verbs::TABLE,
};
use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

/// The table of handlers.
pub(super) struct Routes(BTreeMap<Verb, Route>);

/// One asking.
struct Asking {
    exchange: Exchange,
    asker: Asker,
    desk: Desk,
    /// Time that the asker gives, at most [`MAX_DEADLINE`]; a feed may be without.
    deadline: Option<Duration>,
    shutdown: CancellationToken,
}

type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;
type Route = Box<dyn Fn(Asking) -> Answering + Send + Sync>;

impl Routes {
    pub(super) fn new() -> Self {
        Self(BTreeMap::new())
            .call(|desk, asker, request: CreateInvite| async move { access::create_invite(&desk, &asker, request).await })
            .call(|desk, asker, request: ListInvites| async move { access::list_invites(&desk, &asker, request).await })
            .call(|desk, asker, request: RevokeInvite| async move { access::revoke_invite(&desk, &asker, request).await })
            .call(|desk, asker, request: Revoke| async move { access::revoke(&desk, &asker, request).await })
            .call(|desk, asker, request: ListIdentities| async move { access::list_identities(&desk, &asker, request).await })
            .call(|desk, asker, request: AcceptRestore| async move { access::accept_restore(&desk, &asker, request).await })
            .call(|desk, asker, _: ListWitnesses| audit::list(desk, asker))
            .call(|desk, asker, _: ListMachines| machines::list(desk, asker))
            .call(|desk, asker, _: GetStatus| handlers::status(desk, asker))
            .feed(audit::read)
            .feed(|desk, asker, _: ReadBackup, out, _| audit::back_up(desk, asker, out))
    }

    /// Reads one request and answers it.
    pub(super) async fn answer(&self, mut exchange: Exchange, who: String, desk: Desk, shutdown: CancellationToken) {
        let header = match exchange.header().await {
            Ok(header) => header,
            Err(error) => {
                tracing::debug!(who, %error, "a connection at the admin socket brought no request");
                return;
            }
        };
        let row = TABLE.iter().find(|row| row.verb == header.verb);
        let Some(route) = self.0.get(&header.verb) else {
            let name = row.map_or_else(|| header.verb.to_string(), |row| row.name.to_owned());
            let refusal = Refusal::new(
                RefusalCode::UnknownVerb,
                format!("`{name}` cannot be asked at the admin socket"),
            )
            .hint("ask over the network, with a certificate");
            tracing::warn!(who, verb = name, request_id = %header.request_id, "refused a command at the admin socket");
            if exchange.skip_body().await.is_ok() {
                exchange.refuse(shape_of(header.verb), refusal).await;
            }
            return;
        };
        tracing::info!(who, verb = row.map(|row| row.name), request_id = %header.request_id, "a command at the admin socket");
        let asking = Asking {
            exchange,
            asker: local(who, &header),
            desk,
            deadline: (header.deadline_ms > 0).then(|| Duration::from_millis(header.deadline_ms.into()).min(MAX_DEADLINE)),
            shutdown,
        };
        route(asking).await;
    }

    fn call<R, F, Fut>(mut self, handler: F) -> Self
    where
        R: Request,
        F: Fn(Desk, Asker, R) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R::Reply, Refusal>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let route: Route = Box::new(move |asking| {
            let handler = Arc::clone(&handler);
            Box::pin(async move { asking.call::<R, _, _>(&*handler).await })
        });
        self.0.insert(R::VERB, route);
        self
    }

    fn feed<R, F, Fut>(mut self, handler: F) -> Self
    where
        R: Request,
        F: Fn(Desk, Asker, R, Out<R::Reply>, CancellationToken) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Refusal>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let route: Route = Box::new(move |asking| {
            let handler = Arc::clone(&handler);
            Box::pin(async move { asking.feed::<R, _, _>(&*handler).await })
        });
        self.0.insert(R::VERB, route);
        self
    }
}

impl Asking {
    async fn call<R, F, Fut>(mut self, handler: &F)
    where
        R: Request,
        F: Fn(Desk, Asker, R) -> Fut,
        Fut: Future<Output = Result<R::Reply, Refusal>> + Send + 'static,
    {
        let request = match self.exchange.body::<R>().await {
            Ok(request) => request,
            Err(error) => return self.bad_request(Shape::Call, &error).await,
        };
        // What was begun is done to its end, whether or not its asker still waits.
        let work = to_the_end(handler(self.desk.clone(), self.asker.clone(), request));
        let answer = match timeout(self.deadline.unwrap_or(MAX_DEADLINE), work).await {
            Ok(Ok(reply)) => Answer::Reply(reply),
            Ok(Err(refusal)) => Answer::Refusal(refusal),
            Err(_) => Answer::Refusal(too_late()),
        };
        if let Err(error) = self.exchange.write(&answer).await {
            tracing::warn!(who = self.asker.who, verb = R::NAME, %error, "an answer at the admin socket was not heard");
            if matches!(error, ExchangeError::Frame(_)) {
                let refusal = Refusal::new(RefusalCode::Internal, "the reply is too large").changed(Changed::Unknown);
                self.exchange.refuse(Some(Shape::Call), refusal).await;
            }
        }
    }

    async fn feed<R, F, Fut>(mut self, handler: &F)
    where
        R: Request,
        F: Fn(Desk, Asker, R, Out<R::Reply>, CancellationToken) -> Fut,
        Fut: Future<Output = Result<(), Refusal>> + Send + 'static,
    {
        let request = match self.exchange.body::<R>().await {
            Ok(request) => request,
            Err(error) => return self.bad_request(Shape::Feed, &error).await,
        };
        let (queue, mut items) = mpsc::channel(FEED_QUEUE);
        let work = handler(self.desk, self.asker, request, Out::Local(queue), self.shutdown);
        let mut work = std::pin::pin!(timeout(self.deadline.unwrap_or(Duration::MAX), work));
        let mut idle = interval(FEED_IDLE);
        idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        idle.reset();
        let mut ended = None;
        while ended.is_none() || !items.is_empty() {
            let frame = tokio::select! {
                biased;
                Some(item) = items.recv() => FeedFrame::Item(item),
                result = &mut work, if ended.is_none() => {
                    ended = Some(result.unwrap_or_else(|_| Err(too_late())));
                    continue;
                }
                () = self.exchange.gone() => return,
                _ = idle.tick() => FeedFrame::Idle,
            };
            if self.exchange.write(&frame).await.is_err() {
                return;
            }
            idle.reset();
        }
        let last = match ended {
            Some(Ok(())) | None => FeedFrame::<R::Reply>::End,
            Some(Err(refusal)) => FeedFrame::Refusal(refusal),
        };
        // Whoever is gone does not need it.
        drop(self.exchange.write(&last).await);
    }

    async fn bad_request(&mut self, shape: Shape, error: &ExchangeError) {
        tracing::warn!(who = self.asker.who, %error, "refused a broken request at the admin socket");
        let refusal = Refusal::new(RefusalCode::BadRequest, error.to_string());
        self.exchange.refuse(Some(shape), refusal).await;
    }
}

/// In what shape the answer to a verb is waited for, if it is known.
pub(super) fn shape_of(verb: Verb) -> Option<Shape> {
    TABLE.iter().find(|row| row.verb == verb).map(|row| row.shape)
}

/// A user of this host, who is an admin.
fn local(who: String, header: &Header) -> Asker {
    Asker {
        who,
        identity: None,
        serial: String::new(),
        from: String::new(),
        request_id: header.request_id,
    }
}

fn too_late() -> Refusal {
    Refusal::new(
        RefusalCode::DeadlineExceeded,
        "the command was not done in the time that was given",
    )
    .hint("ask for the state before asking again")
    .changed(Changed::Unknown)
}

/// Items that wait for the socket; more make the handler wait.
const FEED_QUEUE: usize = 8;
/// Interval of signs of life on a feed that has nothing to say.
const FEED_IDLE: Duration = Duration::from_secs(2);
