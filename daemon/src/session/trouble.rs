//! What a failure means for the next try: whether waiting alone cures it, and whether this machine was shut out. Pure.

use dora_remote_link::{CallError, CloseCode, CloseReason, DialError, TlsAlert};
use dora_remote_protocol::refusal::RefusalCode;
use std::mem;

/// What kind of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It may be over at the next try.
    Passing,
    /// It stays until somebody helps: trying again soon is in vain.
    Lasting,
    /// It stays until somebody helps, because the coordinator has shut this machine out.
    ShutOut,
}

/// The alert `access_denied` (RFC 8446 section 6.2).
const ACCESS_DENIED: TlsAlert = TlsAlert(49);

impl Trouble {
    /// Of a dial that failed.
    pub(super) fn of_dial(error: &DialError) -> Self {
        match error {
            DialError::OurCertificateRefused { alert, .. } => Self::of_alert(*alert),
            DialError::ServerNotTrusted { .. }
            | DialError::WrongServerRole { .. }
            | DialError::ServerExpired { .. }
            | DialError::ServerNotYetValid { .. }
            | DialError::ServerRefused { .. }
            | DialError::OurCertificateExpired { .. }
            | DialError::OtherProtocol { .. } => Self::Lasting,
            DialError::Resolve { .. }
            | DialError::Unreachable { .. }
            | DialError::NotAccepting { .. }
            | DialError::Tls { .. }
            | DialError::Local(_) => Self::Passing,
        }
    }

    /// Of a hello or a request that failed.
    pub(super) fn of_call(error: &CallError) -> Self {
        match error {
            CallError::PeerRefusedUs { alert } => Self::of_alert(*alert),
            CallError::HelloRefused(refusal) | CallError::Refused(refusal) => match refusal.code {
                RefusalCode::Denied
                | RefusalCode::VersionMismatch
                | RefusalCode::CertificateLapsed
                | RefusalCode::UnknownVerb
                | RefusalCode::Quarantined
                | RefusalCode::LimitReached => Self::Lasting,
                _ => Self::Passing,
            },
            CallError::Lost(reason) => Self::of_close(reason),
            CallError::TimedOut { .. } | CallError::NotSent(_) | CallError::Source(_) | CallError::Protocol(_) => Self::Passing,
        }
    }

    /// Of a connection that ended.
    pub(super) fn of_close(reason: &CloseReason) -> Self {
        match reason {
            CloseReason::RefusedByPeer { alert } => Self::of_alert(*alert),
            CloseReason::ByPeer { code, .. } => match code {
                CloseCode::Revoked => Self::ShutOut,
                CloseCode::CertificateLapsed | CloseCode::Refused => Self::Lasting,
                _ => Self::Passing,
            },
            CloseReason::ByUs { .. } | CloseReason::Silence | CloseReason::PeerRestarted | CloseReason::Transport(_) => {
                Self::Passing
            }
        }
    }

    /// Whether trying again soon is in vain.
    pub(super) fn is_lasting(self) -> bool {
        self != Self::Passing
    }

    fn of_alert(alert: TlsAlert) -> Self {
        if alert == TlsAlert::CERTIFICATE_REVOKED || alert == ACCESS_DENIED {
            Self::ShutOut
        } else {
            Self::Lasting
        }
    }
}

/// What a failed dial is told by: its text may hold times, which differ from try to try.
pub(super) fn key_of_dial(error: &DialError) -> String {
    match error {
        DialError::OurCertificateRefused { alert, .. } => format!("alert {}", alert.0),
        other => format!("dial {:?}", mem::discriminant(other)),
    }
}

/// What the coordinator advises about a request that it refused.
pub(super) fn hint_of_call(error: &CallError) -> Option<&str> {
    match error {
        CallError::HelloRefused(refusal) | CallError::Refused(refusal) => {
            Some(refusal.hint.as_str()).filter(|hint| !hint.is_empty())
        }
        _ => None,
    }
}

/// What a failed request is told by.
pub(super) fn key_of_call(error: &CallError) -> String {
    match error {
        CallError::PeerRefusedUs { alert } => format!("alert {}", alert.0),
        CallError::HelloRefused(refusal) | CallError::Refused(refusal) => format!("refusal {}", u16::from(refusal.code)),
        other => format!("call {:?}", mem::discriminant(other)),
    }
}
