//! What a failed handshake means, from what the verifier saw and what the connection ended with.

use crate::{address::Address, alert::TlsAlert, close::CloseReason, error::DialError};
use dora_remote_certs::VerifyError;
use dora_remote_protocol::limits::DIAL_DEADLINE;
use quinn::{ConnectionError, TransportErrorCode};
use std::net::SocketAddr;

/// What a failed handshake means.
pub(crate) fn verdict(address: SocketAddr, error: &ConnectionError, found: Option<VerifyError>) -> DialError {
    if let Some(found) = found {
        return match found {
            VerifyError::UnknownAuthority => DialError::ServerNotTrusted { address },
            VerifyError::Expired { not_after, now } => DialError::ServerExpired { address, not_after, now },
            VerifyError::NotYetValid { not_before, now } => DialError::ServerNotYetValid {
                address,
                not_before,
                now,
            },
            VerifyError::NotACoordinator { found, trust_domain } => DialError::WrongServerRole {
                address,
                found,
                trust_domain,
            },
            VerifyError::Malformed { reason } => DialError::ServerRefused { address, detail: reason },
        };
    }
    match error {
        ConnectionError::ConnectionClosed(close) if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
            DialError::NotAccepting { address }
        }
        ConnectionError::TimedOut => DialError::Unreachable {
            address: Address {
                host: address.ip().to_string(),
                port: address.port(),
            },
            tried: vec![address],
            after: DIAL_DEADLINE,
        },
        other => match CloseReason::of(other, None) {
            CloseReason::RefusedByPeer {
                alert: TlsAlert::NO_APPLICATION_PROTOCOL,
            } => DialError::OtherProtocol { address },
            CloseReason::RefusedByPeer { alert } => DialError::OurCertificateRefused { address, alert },
            reason => DialError::Tls {
                address,
                detail: reason.to_string(),
            },
        },
    }
}
