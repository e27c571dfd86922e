//! One try to reach the coordinator, up to a hello that was answered.

use super::{
    keys::CredentialsError,
    trouble::{self, Trouble},
};
use dora_remote_link::{Address, CallError, CloseCode, DialError, Dialer, Peer, Router};
use dora_remote_protocol::hello::Welcome;
use std::sync::Arc;
use thiserror::Error;
use tokio::time::Instant;
use tracing::debug;

/// A connection whose hello was answered.
pub(super) struct Way {
    /// The connection.
    pub(super) peer: Peer,
    /// What the coordinator said of itself.
    pub(super) welcome: Welcome,
    /// When it said so.
    pub(super) at: Instant,
    /// What dialled it.
    pub(super) dialer: Arc<Dialer>,
}

/// Why one try failed.
#[derive(Debug, Error)]
pub(super) enum WayError {
    /// No connection came about.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Its hello came to nothing.
    #[error(transparent)]
    Hello(CallError),
    /// There is nothing to dial with.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

impl Way {
    /// Dials, and waits for the answer to the hello.
    pub(super) async fn open(dialer: Arc<Dialer>, address: &Address, router: Router) -> Result<Self, WayError> {
        let peer = dialer.dial_with_router(address, router).await?;
        match peer.welcome().await {
            Ok(welcome) => {
                debug!(?welcome, "the coordinator answered the hello");
                Ok(Self {
                    peer,
                    welcome,
                    at: Instant::now(),
                    dialer,
                })
            }
            Err(error) => {
                peer.close(CloseCode::Unanswered, "");
                Err(WayError::Hello(error))
            }
        }
    }
}

impl WayError {
    /// What it means for the next try.
    pub(super) fn trouble(&self) -> Trouble {
        match self {
            Self::Dial(error) => Trouble::of_dial(error),
            Self::Hello(error) => Trouble::of_call(error),
            Self::Credentials(_) => Trouble::Lasting,
        }
    }
    /// What it is told by.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Dial(error) => trouble::key_of_dial(error),
            Self::Hello(error) => trouble::key_of_call(error),
            Self::Credentials(error) => error.to_string(),
        }
    }
}
