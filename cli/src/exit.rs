//! The documented exit codes, and which failure ends in which of them.
//!
//! The numbers are a promise to scripts: never reused, never changed. The mappings are exhaustive, so that a new kind of
//! failure in a lower crate does not compile until somebody has decided what it means here.

use dora_remote_certs::CertError;
use dora_remote_link::{CallError, CloseCode, CloseReason, DialError, TlsAlert};
use dora_remote_protocol::refusal::{Changed, Refusal, RefusalCode};
use std::process::ExitCode;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Ok = 0,
    /// It failed, for a reason that has no number of its own.
    Failed = 1,
    /// The command line is wrong; nothing was sent.
    Usage = 2,
    /// The dataflow, machine or thing that was named does not exist.
    NotFound = 3,
    /// The role or the rights of the asker do not allow it.
    Denied = 4,
    /// The coordinator or a machine cannot be reached.
    Unreachable = 5,
    /// A certificate, an identity or a clock is wrong.
    Certificate = 6,
    /// The time that was given is over.
    Timeout = 7,
    /// It was done in part.
    Partly = 8,
    /// The dataflow itself failed.
    DataflowFailed = 9,
    /// The stream ended and lines of it are missing.
    Gap = 10,
    /// A second Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// Every code, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::NotFound,
        Self::Denied,
        Self::Unreachable,
        Self::Certificate,
        Self::Timeout,
        Self::Partly,
        Self::DataflowFailed,
        Self::Gap,
        Self::Interrupted,
    ];

    /// The number that the shell sees.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// What it means, as the help says it.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Usage => "usage: the command line is wrong",
            Self::NotFound => "not found: no such dataflow, machine or file",
            Self::Denied => "denied: the role of the certificate does not allow it",
            Self::Unreachable => "unreachable: the coordinator or a machine does not answer",
            Self::Certificate => "certificate or clock",
            Self::Timeout => "timeout",
            Self::Partly => "partly done",
            Self::DataflowFailed => "the dataflow failed",
            Self::Gap => "the stream ended and lines of it are missing",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// The table as it stands at the end of the help.
pub const TABLE: &str = "\
Exit codes:
    0  ok
    1  failed
    2  usage: the command line is wrong
    3  not found: no such dataflow, machine or file
    4  denied: the role of the certificate does not allow it
    5  unreachable: the coordinator or a machine does not answer
    6  certificate or clock
    7  timeout
    8  partly done
    9  the dataflow failed
   10  the stream ended and lines of it are missing
  130  interrupted";

/// The code of a refusal.
#[must_use]
pub fn of_refusal(refusal: &Refusal) -> Exit {
    if refusal.changed == Changed::Partly {
        return Exit::Partly;
    }
    of_refusal_code(refusal.code)
}

/// The code of a kind of refusal that changed nothing.
#[must_use]
pub const fn of_refusal_code(code: RefusalCode) -> Exit {
    match code {
        RefusalCode::Denied | RefusalCode::ForbiddenByMachine | RefusalCode::InviteVoid => Exit::Denied,
        RefusalCode::NotFound | RefusalCode::UnknownMachine | RefusalCode::NoMachineWithLabels => Exit::NotFound,
        RefusalCode::PlacementAmbiguous => Exit::Usage,
        RefusalCode::SpawnFailed => Exit::DataflowFailed,
        RefusalCode::MachineUnreachable => Exit::Unreachable,
        RefusalCode::DeadlineExceeded => Exit::Timeout,
        RefusalCode::CertificateLapsed => Exit::Certificate,
        RefusalCode::UnknownVerb
        | RefusalCode::BadRequest
        | RefusalCode::VersionMismatch
        | RefusalCode::NameTaken
        | RefusalCode::BadDescriptor
        | RefusalCode::BadBundle
        | RefusalCode::NotPrepared
        | RefusalCode::Busy
        | RefusalCode::ShuttingDown
        | RefusalCode::Superseded
        | RefusalCode::WrongState
        | RefusalCode::Internal
        | RefusalCode::EngineDown
        | RefusalCode::Quarantined
        | RefusalCode::LimitReached
        | RefusalCode::Unknown(_) => Exit::Failed,
    }
}

/// The code of a dial that failed.
#[must_use]
pub const fn of_dial(error: &DialError) -> Exit {
    match error {
        DialError::Resolve { .. } | DialError::Unreachable { .. } | DialError::NotAccepting { .. } => Exit::Unreachable,
        DialError::ServerNotTrusted { .. }
        | DialError::WrongServerRole { .. }
        | DialError::ServerExpired { .. }
        | DialError::ServerNotYetValid { .. }
        | DialError::ServerRefused { .. }
        | DialError::OurCertificateExpired { .. } => Exit::Certificate,
        DialError::OurCertificateRefused { alert, .. } => of_alert(*alert),
        DialError::OtherProtocol { .. } | DialError::Tls { .. } | DialError::Local(_) => Exit::Failed,
    }
}

/// The code of a request that got no reply.
#[must_use]
pub fn of_call(error: &CallError) -> Exit {
    match error {
        CallError::Refused(refusal) | CallError::HelloRefused(refusal) => of_refusal(refusal),
        CallError::PeerRefusedUs { alert } => of_alert(*alert),
        CallError::Lost(reason) => of_close(reason),
        CallError::TimedOut { .. } => Exit::Timeout,
        CallError::NotSent(_) | CallError::Source(_) | CallError::Protocol(_) => Exit::Failed,
    }
}

/// The code of a connection that ended under a request.
#[must_use]
pub fn of_close(reason: &CloseReason) -> Exit {
    match reason {
        CloseReason::RefusedByPeer { alert } => of_alert(*alert),
        CloseReason::Silence | CloseReason::PeerRestarted | CloseReason::Transport(_) => Exit::Unreachable,
        CloseReason::ByUs { code, .. } | CloseReason::ByPeer { code, .. } => match code {
            CloseCode::Revoked | CloseCode::CertificateLapsed => Exit::Certificate,
            CloseCode::ShuttingDown | CloseCode::Done | CloseCode::Unanswered | CloseCode::TimeOver => Exit::Unreachable,
            CloseCode::Refused | CloseCode::Superseded | CloseCode::ProtocolError | CloseCode::Unknown(_) => Exit::Failed,
        },
    }
}

/// The code of an alert by which a peer refused our certificate.
const fn of_alert(alert: TlsAlert) -> Exit {
    match alert {
        ACCESS_DENIED => Exit::Denied,
        TlsAlert::NO_APPLICATION_PROTOCOL => Exit::Failed,
        _ => Exit::Certificate,
    }
}

/// The code of a failure with certificates and their files.
#[must_use]
pub const fn of_certificates(_: &CertError) -> Exit {
    Exit::Certificate
}

/// `access_denied` of RFC 8446 section 6.2.
const ACCESS_DENIED: TlsAlert = TlsAlert(49);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_the_help_is_the_table_in_the_code() {
        let lines: Vec<_> = Exit::ALL
            .iter()
            .map(|exit| format!("{:>5}  {}", exit.number(), exit.meaning()))
            .collect();
        assert_eq!(TABLE, format!("Exit codes:\n{}", lines.join("\n")));
    }

    #[test]
    fn refusals_end_in_the_code_that_the_table_promises() {
        let of = |code| of_refusal(&Refusal::new(code, "no"));
        assert_eq!(of(RefusalCode::Denied), Exit::Denied);
        assert_eq!(of(RefusalCode::NotFound), Exit::NotFound);
        assert_eq!(of(RefusalCode::UnknownMachine), Exit::NotFound);
        assert_eq!(of(RefusalCode::NoMachineWithLabels), Exit::NotFound);
        assert_eq!(of(RefusalCode::PlacementAmbiguous), Exit::Usage);
        assert_eq!(of(RefusalCode::SpawnFailed), Exit::DataflowFailed);
        assert_eq!(of(RefusalCode::MachineUnreachable), Exit::Unreachable);
        assert_eq!(of(RefusalCode::DeadlineExceeded), Exit::Timeout);
        assert_eq!(of(RefusalCode::VersionMismatch), Exit::Failed);
        assert_eq!(of(RefusalCode::from(9_999)), Exit::Failed);
    }

    #[test]
    fn what_was_done_in_part_is_told_apart() {
        let refusal = Refusal::new(RefusalCode::MachineUnreachable, "no").changed(Changed::Partly);
        assert_eq!(of_refusal(&refusal), Exit::Partly);
    }

    #[test]
    fn a_certificate_that_the_peer_refuses_is_a_certificate_failure() {
        for alert in [
            TlsAlert::UNKNOWN_CA,
            TlsAlert::CERTIFICATE_EXPIRED,
            TlsAlert::CERTIFICATE_REVOKED,
            TlsAlert(46),
        ] {
            assert_eq!(of_call(&CallError::PeerRefusedUs { alert }), Exit::Certificate);
            assert_eq!(
                of_call(&CallError::Lost(CloseReason::RefusedByPeer { alert })),
                Exit::Certificate
            );
        }
        assert_eq!(of_call(&CallError::PeerRefusedUs { alert: ACCESS_DENIED }), Exit::Denied);
    }

    #[test]
    fn a_lost_connection_is_unreachable_and_a_late_answer_a_timeout() {
        assert_eq!(of_call(&CallError::Lost(CloseReason::Silence)), Exit::Unreachable);
        assert_eq!(of_call(&CallError::Lost(CloseReason::PeerRestarted)), Exit::Unreachable);
        let after = std::time::Duration::from_secs(1);
        assert_eq!(of_call(&CallError::TimedOut { after }), Exit::Timeout);
    }
}
