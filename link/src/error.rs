//! What can go wrong with a connection: setting up, dialling, asking. One enum for each, sorted by what the caller can do.
//!
//! Refusals of a peer are values of the protocol and only carried here.

use crate::{address::Address, alert::TlsAlert, close::CloseReason};
use dora_remote_certs::{CertError, Utc};
use dora_remote_protocol::{
    identity::{Identity, TrustDomain},
    refusal::Refusal,
    request::Verb,
};
use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration, time::SystemTime};
use thiserror::Error;

/// Why an endpoint could not be set up or kept up.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The UDP socket could not be opened.
    #[error("cannot open UDP {address}")]
    Bind {
        /// Where it was to be bound.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The UDP socket is bound and could not be used.
    #[error("cannot use the UDP socket")]
    Socket(#[source] io::Error),
    /// The credentials do not make a TLS configuration.
    #[error("cannot use the credentials")]
    Credentials(#[from] CertError),
    /// The TLS configuration does not suit QUIC.
    #[error("the TLS configuration does not suit QUIC")]
    Tls(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// The file with the secrets of the endpoint cannot be used.
    #[error("cannot use the endpoint secrets in {}: {reason}", path.display())]
    Secrets {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No random numbers are to be had.
    #[error("the system has no random numbers")]
    Random,
    /// A router names a verb twice or in the wrong shape.
    #[error(transparent)]
    Router(#[from] RouterError),
    /// A task has panicked: a bug of this program, which must not go on as if nothing had happened.
    #[error("the task `{task}` has panicked")]
    TaskPanicked {
        /// Its name.
        task: &'static str,
    },
    /// The side is ending or has ended.
    #[error("this side is ending")]
    Ending,
}

/// Why handlers do not make a router.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RouterError {
    /// Two handlers for one verb.
    #[error("{verb} (`{name}`) has two handlers")]
    Twice {
        /// The number.
        verb: Verb,
        /// Name of the second request.
        name: &'static str,
    },
    /// The request has another shape than the method it was registered with.
    #[error("`{name}` was registered as a {registered} and is none")]
    WrongShape {
        /// Name of the request.
        name: &'static str,
        /// Name of the method.
        registered: &'static str,
    },
}

/// Why no connection came about.
#[derive(Clone, Debug, Error)]
pub enum DialError {
    /// The name is unknown or the name service does not answer.
    #[error("cannot find the address of `{host}`: {reason}")]
    Resolve {
        /// What was looked up.
        host: String,
        /// What the name service said.
        reason: String,
    },
    /// Nobody answered.
    #[error("{address} did not answer within {:.1} s{}", after.as_secs_f64(), tried_text(tried))]
    Unreachable {
        /// Whom we wanted.
        address: Address,
        /// The addresses behind the name, in the order in which they were tried.
        tried: Vec<SocketAddr>,
        /// How long we waited.
        after: Duration,
    },
    /// The peer answers and takes no connections now: it is starting, ending or has too much to do.
    #[error("{address} takes no connections now")]
    NotAccepting {
        /// Whom we wanted.
        address: SocketAddr,
    },
    /// The server's certificate comes from another authority than ours.
    #[error("the certificate of the server at {address} comes from an authority that we do not know")]
    ServerNotTrusted {
        /// Who answered.
        address: SocketAddr,
    },
    /// The server holds a certificate of our authority and is no coordinator of our trust domain.
    #[error("the server at {address} is {found}, and a coordinator of {trust_domain} was expected")]
    WrongServerRole {
        /// Who answered.
        address: SocketAddr,
        /// What its certificate says.
        found: Identity,
        /// Our trust domain.
        trust_domain: TrustDomain,
    },
    /// The server's certificate has ended, or our clock is ahead.
    #[error("the certificate of the server at {address} ended at {}, and it is {} here", Utc(*not_after), Utc(*now))]
    ServerExpired {
        /// Who answered.
        address: SocketAddr,
        /// The last second.
        not_after: SystemTime,
        /// Our time.
        now: SystemTime,
    },
    /// The server's certificate has not begun, or our clock is behind.
    #[error("the certificate of the server at {address} begins at {}, and it is {} here", Utc(*not_before), Utc(*now))]
    ServerNotYetValid {
        /// Who answered.
        address: SocketAddr,
        /// The first second.
        not_before: SystemTime,
        /// Our time.
        now: SystemTime,
    },
    /// The server's certificate is broken in another way.
    #[error("the certificate of the server at {address} is refused: {detail}")]
    ServerRefused {
        /// Who answered.
        address: SocketAddr,
        /// What the verifier found.
        detail: String,
    },
    /// The server refused our certificate.
    #[error("the server at {address} refused our certificate: {alert}")]
    OurCertificateRefused {
        /// Who answered.
        address: SocketAddr,
        /// What it said.
        alert: TlsAlert,
    },
    /// Our certificate has ended by our own clock; nothing was sent.
    #[error("our certificate ended at {}, and it is {} now", Utc(*not_after), Utc(*now))]
    OurCertificateExpired {
        /// Its last second.
        not_after: SystemTime,
        /// Our time.
        now: SystemTime,
    },
    /// The two sides share no major version of the protocol.
    #[error("the server at {address} speaks another major version of the protocol")]
    OtherProtocol {
        /// Who answered.
        address: SocketAddr,
    },
    /// The TLS or QUIC handshake failed in another way.
    #[error("the handshake with {address} failed: {detail}")]
    Tls {
        /// Who answered.
        address: SocketAddr,
        /// What happened.
        detail: String,
    },
    /// This side cannot open or use its socket.
    #[error("cannot dial: {0}")]
    Local(#[source] Arc<LinkError>),
}

impl DialError {
    /// How much an outcome tells: with several addresses behind a name, the most telling failure is reported.
    pub(crate) fn weight(&self) -> u8 {
        match self {
            Self::Resolve { .. } | Self::Unreachable { .. } => 0,
            Self::Local(_) => 1,
            Self::NotAccepting { .. } => 2,
            Self::Tls { .. } | Self::OtherProtocol { .. } => 3,
            Self::ServerNotTrusted { .. }
            | Self::WrongServerRole { .. }
            | Self::ServerExpired { .. }
            | Self::ServerNotYetValid { .. }
            | Self::ServerRefused { .. } => 4,
            Self::OurCertificateRefused { .. } | Self::OurCertificateExpired { .. } => 5,
        }
    }
}

impl From<LinkError> for DialError {
    fn from(error: LinkError) -> Self {
        Self::Local(Arc::new(error))
    }
}

/// Why a request got no reply.
#[derive(Clone, Debug, Error)]
pub enum CallError {
    /// The peer said no.
    #[error("{0}")]
    Refused(Refusal),
    /// The peer said no to the hello, so that nothing was looked at.
    #[error("{0}")]
    HelloRefused(Refusal),
    /// The peer refused our certificate. With TLS 1.3 this is learnt only after the connection seemed to stand.
    #[error("the peer refused our certificate: {alert}")]
    PeerRefusedUs {
        /// What it said.
        alert: TlsAlert,
    },
    /// The connection ended first; whether anything was done is not known.
    #[error("the connection was lost: {0}")]
    Lost(CloseReason),
    /// The time is over; whether anything was done is not known.
    #[error("no answer within {:.1} s", after.as_secs_f64())]
    TimedOut {
        /// How long we waited.
        after: Duration,
    },
    /// The request cannot be put into a frame; nothing was sent.
    #[error("the request cannot be sent: {0}")]
    NotSent(String),
    /// What was to be uploaded could not be read.
    #[error("cannot read what is to be sent: {0}")]
    Source(#[source] Arc<io::Error>),
    /// The peer broke a rule of the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
}

impl CallError {
    /// Tells whether the failure is one of the connection, so that asking again on a new one may help.
    #[must_use]
    pub fn is_connection_lost(&self) -> bool {
        match self {
            Self::Lost(_) => true,
            Self::Refused(_)
            | Self::HelloRefused(_)
            | Self::PeerRefusedUs { .. }
            | Self::TimedOut { .. }
            | Self::NotSent(_)
            | Self::Source(_)
            | Self::Protocol(_) => false,
        }
    }
}

fn tried_text(tried: &[SocketAddr]) -> String {
    let listed: Vec<_> = tried.iter().map(ToString::to_string).collect();
    if listed.is_empty() {
        return String::new();
    }
    format!(
        " (tried {}; is the coordinator running, and does UDP get through?)",
        listed.join(", ")
    )
}
