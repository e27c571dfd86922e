//! Why a connection ends: the QUIC application close codes, and what each of them tells the other side.
//!
//! The numbers are the wire: pinned by a test, never reused.

use crate::alert::TlsAlert;
use quinn::{ConnectionError, VarInt};
use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// What the closing side says about the end of a connection.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum CloseCode {
            $($(#[$doc])* $name,)*
            /// A code of a newer peer.
            Unknown(u64),
        }

        impl CloseCode {
            /// Every code that this build knows.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Short stable text of the code.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* Self::Unknown(_) => "unknown" }
            }

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u64 {
                match self { $(Self::$name => $number,)* Self::Unknown(other) => other }
            }

            /// The code of a number on the wire.
            #[must_use]
            pub const fn of(number: u64) -> Self {
                match number { $($number => Self::$name,)* other => Self::Unknown(other) }
            }
        }
    };
}

codes! {
    /// The closing side has read all it wanted.
    Done = 0, "done";
    /// The hello was refused; the refusal went out on the hello's stream.
    Refused = 1, "refused";
    /// A newer connection of the same identity took over.
    Superseded = 2, "superseded";
    /// The peer's certificate was revoked.
    Revoked = 3, "revoked";
    /// The closing side is ending; dialling again later is right.
    ShuttingDown = 4, "shutting-down";
    /// The peer broke a rule of the protocol.
    ProtocolError = 5, "protocol-error";
    /// The peer's certificate reached its end.
    CertificateLapsed = 6, "certificate-lapsed";
    /// The hello, or its answer, did not come in time.
    Unanswered = 7, "unanswered";
    /// The time of the connection is over: nothing was asked on it for too long, or it was let in for one purpose alone.
    TimeOver = 8, "time-over";
}

impl CloseCode {
    pub(crate) fn var(self) -> VarInt {
        VarInt::from_u64(self.number()).unwrap_or(VarInt::MAX)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(number) => write!(f, "unknown code {number}"),
            known => f.write_str(known.as_str()),
        }
    }
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// This side closed it.
    ByUs {
        /// What was said.
        code: CloseCode,
        /// In words.
        reason: String,
    },
    /// The peer closed it.
    ByPeer {
        /// What it said.
        code: CloseCode,
        /// In words; text of the peer, to be escaped where it is shown.
        reason: String,
    },
    /// The peer judged our certificate and refused it.
    RefusedByPeer {
        /// The TLS alert that it sent.
        alert: TlsAlert,
    },
    /// Nothing was heard for the idle timeout.
    Silence,
    /// The peer does not know the connection any more: it has restarted.
    PeerRestarted,
    /// A rule of QUIC or TLS was broken, here or there.
    Transport(String),
}

impl CloseReason {
    /// The code, if either side closed the connection on purpose.
    #[must_use]
    pub fn code(&self) -> Option<CloseCode> {
        match self {
            Self::ByUs { code, .. } | Self::ByPeer { code, .. } => Some(*code),
            Self::RefusedByPeer { .. } | Self::Silence | Self::PeerRestarted | Self::Transport(_) => None,
        }
    }

    /// Reads quinn's error; `ours` is what this side said if it closed the connection itself.
    pub(crate) fn of(error: &ConnectionError, ours: Option<&(CloseCode, String)>) -> Self {
        match error {
            ConnectionError::LocallyClosed => {
                let (code, reason) = ours.cloned().unwrap_or((CloseCode::Done, String::new()));
                Self::ByUs { code, reason }
            }
            ConnectionError::ApplicationClosed(close) => Self::ByPeer {
                code: CloseCode::of(close.error_code.into_inner()),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            ConnectionError::ConnectionClosed(close) => match TlsAlert::of_quic(close.error_code) {
                Some(alert) => Self::RefusedByPeer { alert },
                None => Self::Transport(error.to_string()),
            },
            ConnectionError::TimedOut => Self::Silence,
            ConnectionError::Reset => Self::PeerRestarted,
            ConnectionError::VersionMismatch | ConnectionError::TransportError(_) | ConnectionError::CidsExhausted => {
                Self::Transport(error.to_string())
            }
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (side, code, reason) = match self {
            Self::ByUs { code, reason } => ("this side", code, reason),
            Self::ByPeer { code, reason } => ("the peer", code, reason),
            Self::RefusedByPeer { alert } => return write!(f, "the peer refused our certificate: {alert}"),
            Self::Silence => return f.write_str("nothing was heard from the peer for too long"),
            Self::PeerRestarted => return f.write_str("the peer has restarted"),
            Self::Transport(text) => return f.write_str(text),
        };
        write!(f, "closed by {side}: {code}")?;
        if !reason.is_empty() {
            write!(f, " ({})", reason.escape_debug())?;
        }
        Ok(())
    }
}

/// Code of a stream that was given up before it was whole (`RESET_STREAM` and `STOP_SENDING`, RFC 9000 sections 19.4 and 19.5).
pub(crate) const STREAM_ABANDONED: VarInt = VarInt::from_u32(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_pinned() {
        let numbers: Vec<_> = CloseCode::ALL.iter().map(|code| (code.number(), code.as_str())).collect();
        assert_eq!(
            numbers,
            [
                (0, "done"),
                (1, "refused"),
                (2, "superseded"),
                (3, "revoked"),
                (4, "shutting-down"),
                (5, "protocol-error"),
                (6, "certificate-lapsed"),
                (7, "unanswered"),
                (8, "time-over"),
            ]
        );
    }

    #[test]
    fn codes_of_newer_peers_are_kept() {
        assert_eq!(CloseCode::of(99), CloseCode::Unknown(99));
        assert_eq!(CloseCode::of(99).number(), 99);
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::of(code.number()), *code);
        }
    }
}
