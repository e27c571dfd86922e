//! Why a peer said no: a number that programs read, a message and a next step that people read.

use crate::limits::MAX_TEXT_BYTES;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// What kind of no it was. The numbers are the wire: never reused, only added to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(from = "u16", into = "u16")]
        pub enum RefusalCode {
            $($(#[$doc])* $name,)*
            /// A code of a newer peer.
            Unknown(u16),
        }

        impl RefusalCode {
            /// Every code that this build knows.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Short stable text of the code, for machine-readable output.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* Self::Unknown(_) => "unknown" }
            }
        }

        impl From<u16> for RefusalCode {
            fn from(number: u16) -> Self {
                match number { $($number => Self::$name,)* other => Self::Unknown(other) }
            }
        }

        impl From<RefusalCode> for u16 {
            fn from(code: RefusalCode) -> Self {
                match code { $(RefusalCode::$name => $number,)* RefusalCode::Unknown(other) => other }
            }
        }
    };
}

codes! {
    /// The asker's role or rights do not allow it.
    Denied = 1, "denied";
    /// No such verb on this side.
    UnknownVerb = 2, "unknown-verb";
    /// The request breaks a rule of the protocol or a bound.
    BadRequest = 3, "bad-request";
    /// The two sides share no protocol version.
    VersionMismatch = 4, "version-mismatch";
    /// The dataflow, machine or thing that was named does not exist.
    NotFound = 5, "not-found";
    /// A dataflow of that name has not ended.
    NameTaken = 6, "name-taken";
    /// The named machine is unknown to the coordinator.
    UnknownMachine = 7, "unknown-machine";
    /// The machine is known and cannot be reached now.
    MachineUnreachable = 8, "machine-unreachable";
    /// No connected machine has the labels that a node asks for.
    NoMachineWithLabels = 9, "no-machine-with-labels";
    /// Some nodes name no machine and several machines could run them.
    PlacementAmbiguous = 10, "placement-ambiguous";
    /// The descriptor is wrong.
    BadDescriptor = 11, "bad-descriptor";
    /// The bundle is missing, damaged, too large or unsafe to unpack.
    BadBundle = 12, "bad-bundle";
    /// A machine cannot run its part: a file is missing, a working directory is absent.
    NotPrepared = 13, "not-prepared";
    /// A machine failed to spawn its nodes.
    SpawnFailed = 14, "spawn-failed";
    /// The time that was given is over; the outcome is unknown unless the message says so.
    DeadlineExceeded = 15, "deadline-exceeded";
    /// A bound of this side is reached; ask again later.
    Busy = 16, "busy";
    /// This side is ending.
    ShuttingDown = 17, "shutting-down";
    /// A newer connection of the same identity took over.
    Superseded = 18, "superseded";
    /// The thing is not in a state that allows the command.
    WrongState = 19, "wrong-state";
    /// A fault of this side; its log has the rest.
    Internal = 20, "internal";
    /// The engine of the machine is not running.
    EngineDown = 21, "engine-down";
    /// The asker's certificate is no longer valid for this.
    CertificateLapsed = 22, "certificate-lapsed";
    /// The invite was used by another key, is over, or was taken back; the message says which.
    InviteVoid = 23, "invite-void";
    /// The machine's own policy forbids it.
    ForbiddenByMachine = 24, "forbidden-by-machine";
    /// Another machine that answers has the same identity.
    Quarantined = 25, "quarantined";
    /// Too often, or too many of them; the message says when it may be tried again.
    LimitReached = 26, "limit-reached";
}

/// What a refused command has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Changed {
    /// Nothing happened: asking again is safe.
    Nothing,
    /// It happened in part; the message says which.
    Partly,
    /// Nobody can tell.
    Unknown,
}

/// A no, in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind of no.
    pub code: RefusalCode,
    /// What happened: a lower-case fragment that fits after "error: ".
    pub message: String,
    /// What to do next, or empty.
    pub hint: String,
    /// What was changed.
    pub changed: Changed,
}

impl Refusal {
    /// A no that changed nothing. Texts beyond [`MAX_TEXT_BYTES`] are cut.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: cut(message.into()),
            hint: String::new(),
            changed: Changed::Nothing,
        }
    }

    /// The same no with a next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = cut(hint.into());
        self
    }

    /// The same no, saying what was changed.
    #[must_use]
    pub fn changed(mut self, changed: Changed) -> Self {
        self.changed = changed;
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// Cuts a text to [`MAX_TEXT_BYTES`] at a character's edge and says so at its end.
#[must_use]
pub fn cut(mut text: String) -> String {
    const MARK: &str = "... [cut]";
    if text.len() > MAX_TEXT_BYTES {
        let mut end = MAX_TEXT_BYTES - MARK.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(MARK);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_its_number_and_new_ones_are_kept() {
        for code in RefusalCode::ALL {
            assert_eq!(RefusalCode::from(u16::from(*code)), *code);
        }
        assert_eq!(u16::from(RefusalCode::from(9_999)), 9_999);
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let refusal = Refusal::new(RefusalCode::Internal, "ü".repeat(MAX_TEXT_BYTES));
        assert!(refusal.message.len() <= MAX_TEXT_BYTES && refusal.message.ends_with("[cut]"));
    }
}
