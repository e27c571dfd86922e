//! Which handler answers which verb. The rules that come before a handler lie in `serve.rs`.

use crate::{
    answer::{self, Asked, Outcome},
    context::Context,
    error::RouterError,
    feed::FeedSink,
    upload::UploadBody,
};
use dora_remote_protocol::{
    identity::RoleSet,
    refusal::Refusal,
    request::{Priority, Request, Shape, Verb},
};
use std::{collections::BTreeMap, fmt, future::Future, pin::Pin, sync::Arc};

/// The table of handlers. Made with one line per verb, then checked by [`Router::build`].
///
/// A handler is dropped at an await when its asker goes away or its time is over; work that must be finished belongs into a
/// task of its own.
#[derive(Default)]
pub struct Router {
    routes: BTreeMap<Verb, Route>,
    fault: Option<RouterError>,
}

impl Router {
    /// A table without handlers, which refuses every verb.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the handler of a call.
    #[must_use]
    pub fn call<R, F, Fut>(self, handler: F) -> Self
    where
        R: Request,
        F: Fn(Context, R) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R::Reply, Refusal>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.add::<R>(Shape::Call, move |asked| {
            let handler = Arc::clone(&handler);
            Box::pin(answer::call::<R, F, Fut>(asked, handler))
        })
    }

    /// Adds the handler of a feed. The feed ends when the handler returns or drops the sink.
    #[must_use]
    pub fn feed<R, F, Fut>(self, handler: F) -> Self
    where
        R: Request,
        F: Fn(Context, R, FeedSink<R::Reply>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Refusal>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.add::<R>(Shape::Feed, move |asked| {
            let handler = Arc::clone(&handler);
            Box::pin(answer::feed::<R, F, Fut>(asked, handler))
        })
    }

    /// Adds the handler of an upload.
    #[must_use]
    pub fn upload<R, F, Fut>(self, handler: F) -> Self
    where
        R: Request,
        F: Fn(Context, R, UploadBody) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R::Reply, Refusal>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.add::<R>(Shape::Upload, move |asked| {
            let handler = Arc::clone(&handler);
            Box::pin(answer::upload::<R, F, Fut>(asked, handler))
        })
    }

    /// Lets peers whose certificate has lapsed ask this one verb as well.
    #[must_use]
    pub fn also_for_lapsed<R: Request>(mut self) -> Self {
        if let Some(route) = self.routes.get_mut(&R::VERB) {
            route.for_lapsed = true;
        }
        self
    }

    /// Lets the holders of invites ask this verb, and nobody else, whatever roles it names. They may ask nothing but such verbs.
    #[must_use]
    pub fn only_for_invited<R: Request>(mut self) -> Self {
        if let Some(route) = self.routes.get_mut(&R::VERB) {
            route.for_invited = true;
        }
        self
    }

    /// Checks the table. An unchecked one works too, and the first of two handlers for a verb answers.
    ///
    /// # Errors
    /// [`RouterError`] when a verb has two handlers or one of the wrong shape.
    pub fn build(self) -> Result<Self, RouterError> {
        match self.fault {
            None => Ok(self),
            Some(fault) => Err(fault),
        }
    }

    /// Every verb that has a handler, in the order of their numbers.
    pub fn verbs(&self) -> impl Iterator<Item = Verb> + '_ {
        self.routes.keys().copied()
    }

    pub(crate) fn route(&self, verb: Verb) -> Option<&Route> {
        self.routes.get(&verb)
    }

    fn add<R: Request>(mut self, shape: Shape, handler: impl Fn(Asked) -> Answering + Send + Sync + 'static) -> Self {
        if R::SHAPE != shape {
            self.fault.get_or_insert(RouterError::WrongShape {
                name: R::NAME,
                registered: match shape {
                    Shape::Call => "call",
                    Shape::Feed => "feed",
                    Shape::Upload => "upload",
                },
            });
        }
        if self.routes.contains_key(&R::VERB) {
            self.fault.get_or_insert(RouterError::Twice {
                verb: R::VERB,
                name: R::NAME,
            });
            return self;
        }
        let route = Route {
            name: R::NAME,
            may_ask: R::MAY_ASK,
            shape,
            priority: R::PRIORITY,
            for_lapsed: false,
            for_invited: false,
            handler: Box::new(handler),
        };
        self.routes.insert(R::VERB, route);
        self
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.routes.values().map(|route| route.name);
        f.debug_list().entries(names).finish()
    }
}

/// One handler, with what must be checked before it is called.
pub(crate) struct Route {
    pub(crate) name: &'static str,
    pub(crate) may_ask: RoleSet,
    pub(crate) shape: Shape,
    pub(crate) priority: Priority,
    pub(crate) for_lapsed: bool,
    pub(crate) for_invited: bool,
    pub(crate) handler: Box<dyn Fn(Asked) -> Answering + Send + Sync>,
}

/// An answer in the making.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Outcome> + Send>>;
