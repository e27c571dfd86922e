//! Connections: QUIC with mutual TLS, typed requests on streams, feeds, and the orderly end of it all.
//!
//! The only crate that names quinn. A [`Dialer`] or an [`Acceptor`] makes [`Peer`]s; a peer is asked with [`Peer::call`],
//! [`Peer::feed`] and [`Peer::upload`], and what it asks is answered by a [`Router`] of handlers. Who may ask what is
//! checked here, once, before a body is decoded. Which runtime all of this runs on is the caller's business; one
//! current-thread runtime that does no file I/O is fastest.
//!
//! - [`address`], [`dial`], [`join`], [`accept`], [`endpoint`], [`secrets`]: how a connection comes about;
//! - [`hello`], [`peer`], [`close`]: its first words, its life, its end;
//! - [`call`], [`feed`], [`upload`], [`router`], [`serve`]: what is said on it;
//! - [`patience`], [`shutdown`], [`retry`], [`error`]: how long peers are waited for, ending, trying again, and what can go wrong;
//!   [`Nudges`]: when a reader makes itself heard; [`network`]: when the machine has come to
//!   another network.

pub mod accept;
pub mod address;
mod alert;
mod answer;
pub mod call;
pub mod close;
mod congestion;
mod context;
pub mod dial;
pub mod endpoint;
pub mod error;
mod facade;
pub mod feed;
mod gate;
pub mod hello;
mod idle;
mod intake;
pub mod join;
mod keys;
pub mod network;
mod nudge;
mod overstay;
pub mod patience;
pub mod peer;
mod present;
mod race;
pub mod retry;
pub mod router;
pub mod secrets;
pub mod serve;
pub mod shutdown;
mod sockets;
mod stream;
pub mod upload;
mod verdict;

pub use accept::{AcceptOptions, Acceptor, PeerWatcher};
pub use address::{Address, AddressError};
pub use alert::TlsAlert;
pub use close::{CloseCode, CloseReason};
pub use context::Context;
pub use dial::Dialer;
pub use endpoint::DialKind;
pub use error::{CallError, DialError, LinkError, RouterError};
pub use facade::CredentialsReplacer;
pub use feed::{Feed, FeedSink, Gone, Pulse};
pub use hello::Speaker;
pub use join::JoinDialer;
pub use network::{NetworkChange, NetworkWatch};
pub use nudge::Nudges;
pub use patience::Patience;
pub use peer::{Peer, Rights};
pub use retry::Backoff;
pub use router::Router;
pub use secrets::EndpointSecrets;
pub use serve::RefusedCommand;
pub use shutdown::Tasks;
pub use upload::UploadBody;
