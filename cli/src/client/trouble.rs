//! What a failure means for somebody who follows something: whether trying again may help. Pure.

use dora_remote_link::{CallError, CloseCode, CloseReason, DialError};
use dora_remote_protocol::refusal::RefusalCode;

/// Whether the failure of a dial may pass by itself. What stays are certificates and what the two sides cannot agree on.
pub(super) const fn passes(error: &DialError) -> bool {
    match error {
        DialError::Resolve { .. }
        | DialError::Unreachable { .. }
        | DialError::NotAccepting { .. }
        // A network that is not there yet, as after a laptop's sleep.
        | DialError::Local(_) => true,
        DialError::ServerNotTrusted { .. }
        | DialError::WrongServerRole { .. }
        | DialError::ServerExpired { .. }
        | DialError::ServerNotYetValid { .. }
        | DialError::ServerRefused { .. }
        | DialError::OurCertificateExpired { .. }
        | DialError::OurCertificateRefused { .. }
        | DialError::OtherProtocol { .. }
        | DialError::Tls { .. } => false,
    }
}

/// Whether a new connection may help against what ended a request or a feed.
pub(super) const fn is_lost(error: &CallError) -> bool {
    match error {
        CallError::Lost(reason) => is_broken(reason),
        CallError::TimedOut { .. } => true,
        // A coordinator that ends is one that comes back.
        CallError::Refused(refusal) => matches!(refusal.code, RefusalCode::ShuttingDown),
        CallError::HelloRefused(refusal) => matches!(refusal.code, RefusalCode::ShuttingDown | RefusalCode::Busy),
        CallError::PeerRefusedUs { .. } | CallError::NotSent(_) | CallError::Source(_) | CallError::Protocol(_) => false,
    }
}

/// Whether what ended a feed of lines passes on the connection that stands.
pub(super) const fn is_unwell(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Refused(refusal) if matches!(refusal.code, RefusalCode::Busy | RefusalCode::Internal)
    )
}

/// Whether a feed was ended by the end of the certificate of its connection.
pub(super) fn is_lapse(error: &CallError) -> bool {
    match error {
        CallError::Lost(reason) => reason.code() == Some(CloseCode::CertificateLapsed),
        CallError::Refused(refusal) => refusal.code == RefusalCode::CertificateLapsed,
        _ => false,
    }
}

const fn is_broken(reason: &CloseReason) -> bool {
    match reason {
        CloseReason::Silence | CloseReason::PeerRestarted | CloseReason::Transport(_) => true,
        CloseReason::RefusedByPeer { .. } => false,
        CloseReason::ByUs { code, .. } | CloseReason::ByPeer { code, .. } => match code {
            CloseCode::ShuttingDown | CloseCode::Done | CloseCode::Unanswered | CloseCode::TimeOver => true,
            // By us: a feed beside this one has found a new connection first.
            CloseCode::Superseded => matches!(reason, CloseReason::ByUs { .. }),
            CloseCode::Revoked
            | CloseCode::CertificateLapsed
            | CloseCode::Refused
            | CloseCode::ProtocolError
            | CloseCode::Unknown(_) => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dora_remote_protocol::refusal::Refusal;

    #[test]
    fn only_what_lasts_ends_a_follower() {
        let refused = |code| CallError::Refused(Refusal::new(code, "no"));
        let closed = |code| {
            CallError::Lost(CloseReason::ByPeer {
                code,
                reason: String::new(),
            })
        };
        for passing in [
            CallError::Lost(CloseReason::Silence),
            CallError::Lost(CloseReason::PeerRestarted),
            closed(CloseCode::ShuttingDown),
            refused(RefusalCode::ShuttingDown),
        ] {
            assert!(is_lost(&passing), "{passing}");
        }
        for lasting in [
            refused(RefusalCode::NotFound),
            refused(RefusalCode::Denied),
            refused(RefusalCode::CertificateLapsed),
            closed(CloseCode::Revoked),
            closed(CloseCode::CertificateLapsed),
            closed(CloseCode::Superseded),
        ] {
            assert!(!is_lost(&lasting) && !is_unwell(&lasting), "{lasting}");
        }
        assert!(is_unwell(&refused(RefusalCode::Busy)));
    }
}
