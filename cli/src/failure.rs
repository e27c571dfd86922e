//! A failure as a person meets it: what happened, why, whether anything was changed, and what to do next.
//!
//! Made from the errors of the lower crates; printed by [`crate::output`] and nowhere else.

use crate::{exit, exit::Exit, output::OutputError};
use dora_remote_certs::CertError;
use dora_remote_link::{Address, CallError, CloseCode, DialError};
use dora_remote_protocol::refusal::{Changed, Refusal};
use std::error::Error;

/// Why a command ends without success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened: a fragment that fits after `error: `. Empty when there is nothing to say.
    pub message: String,
    /// Why, from the outside in.
    pub causes: Vec<String>,
    /// What to do next, or empty.
    pub hint: String,
    /// What was changed; none for commands that only look.
    pub changed: Option<Changed>,
}

impl Failure {
    /// A failure with nothing but its code and its message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            causes: Vec::new(),
            hint: String::new(),
            changed: None,
        }
    }

    /// A command line that cannot be carried out.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The end of a command that has said all it had to say.
    #[must_use]
    pub fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// The same failure with one more cause.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// The same failure with an error and all that stands behind it as its causes.
    #[must_use]
    pub fn because(mut self, error: &(dyn Error + 'static)) -> Self {
        self.causes.extend(chain(error));
        self
    }

    /// The same failure with a next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same failure, saying what was changed.
    #[must_use]
    pub fn changed(mut self, changed: Changed) -> Self {
        self.changed = Some(changed);
        self
    }

    /// The failure of a dial.
    #[must_use]
    pub fn of_dial(address: &Address, error: &DialError) -> Self {
        let failure = Self::new(
            exit::of_dial(error),
            format!("cannot connect to the coordinator at {address}"),
        )
        .because(error);
        match error {
            DialError::Resolve { .. } => failure.hint("check the name, or give an IP address with `--coordinator-addr`"),
            DialError::Unreachable { .. } => failure.hint(format!(
                "is the coordinator running, and may UDP port {} be reached from here? UDP blocked? some networks let only TCP out",
                address.port
            )),
            DialError::NotAccepting { .. } => failure.hint("try again in a moment"),
            DialError::ServerNotTrusted { .. } => failure.hint(
                "is this the right address, and the right identity for it? name another one with `--identity DIR`",
            ),
            DialError::WrongServerRole { .. } => {
                failure.hint("somebody else answers at that address; do not trust it before you know why")
            }
            DialError::ServerNotYetValid { .. } => failure.hint("the clock of this side may be behind, or the coordinator's ahead"),
            DialError::ServerExpired { .. } => {
                failure.hint("compare the clocks of both sides; if they agree, the coordinator needs a new certificate")
            }
            DialError::ServerRefused { .. } => failure.hint("the coordinator needs a new certificate"),
            DialError::OurCertificateRefused { .. } | DialError::OurCertificateExpired { .. } => failure.hint(NEW_CERTIFICATE),
            DialError::OtherProtocol { .. } => failure.hint("upgrade the older side"),
            DialError::Tls { .. } | DialError::Local(_) => failure,
        }
    }

    /// The failure of a request; `what` is what was wanted, such as ``stop `camera` ``.
    #[must_use]
    pub fn of_call(what: &str, error: &CallError) -> Self {
        let exit = exit::of_call(error);
        let plain = || Self::new(exit, format!("cannot {what}")).because(error);
        match error {
            CallError::Refused(refusal) => Self::of_refusal(refusal),
            CallError::HelloRefused(refusal) => Self::of_refusal(refusal).changed(Changed::Nothing),
            CallError::PeerRefusedUs { .. } => plain().hint(NEW_CERTIFICATE).changed(Changed::Nothing),
            CallError::Lost(reason) if reason.code() == Some(CloseCode::Revoked) => plain().hint(ASK_WHY),
            CallError::Lost(_) if exit == Exit::Certificate => plain().hint(NEW_CERTIFICATE),
            CallError::Lost(_) => plain().hint("try again").changed(Changed::Unknown),
            CallError::TimedOut { .. } => plain().changed(Changed::Unknown),
            CallError::NotSent(_) | CallError::Source(_) => plain().changed(Changed::Nothing),
            CallError::Protocol(_) => plain().hint("the two sides may be of different builds; `dora-remote status` shows both"),
        }
    }

    /// The failure of a refusal, in the words of the peer.
    #[must_use]
    pub fn of_refusal(refusal: &Refusal) -> Self {
        Self::new(exit::of_refusal(refusal), refusal.message.clone())
            .hint(refusal.hint.clone())
            .changed(refusal.changed)
    }

    /// The failure of certificates or their files; `what` is what was wanted, such as `load the identity`.
    #[must_use]
    pub fn of_certificates(what: &str, error: &CertError) -> Self {
        Self::new(exit::of_certificates(error), format!("cannot {what}")).because(error)
    }

    /// Says nothing of changes: for commands that only look.
    #[must_use]
    pub fn looking(mut self) -> Self {
        self.changed = None;
        self
    }

    /// What stands behind `hint:`: the next step and what was changed; empty when there is neither.
    #[must_use]
    pub fn next_step(&self) -> String {
        let changed = match self.changed {
            None => "",
            Some(Changed::Nothing) => "nothing was changed",
            Some(Changed::Partly) => "it was done in part",
            Some(Changed::Unknown) => "whether anything was changed is not known; `dora-remote list` tells",
        };
        match (self.hint.is_empty(), changed.is_empty()) {
            (true, _) => changed.to_owned(),
            (false, true) => self.hint.clone(),
            (false, false) => format!("{}; {changed}", self.hint),
        }
    }
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        match error {
            // The reader has seen enough (`| head`): that is no failure.
            OutputError::Closed => Self::silent(Exit::Ok),
            OutputError::Write(error) => Self::new(Exit::Failed, "cannot write the output").cause(error.to_string()),
        }
    }
}

/// The texts of an error and of all that stands behind it, without repetitions.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts
}

/// What helps against a certificate that is not let in.
const NEW_CERTIFICATE: &str = "`dora-remote certs show` shows your certificate; ask an admin for an invite \
    (`dora-remote invite`), and `dora-remote join` with it";
/// What helps those who were shut out, which is little.
const ASK_WHY: &str = "you were shut out for good; ask an admin why, and for an invite under another name";

#[cfg(test)]
mod tests {
    use super::*;
    use dora_remote_protocol::refusal::RefusalCode;

    #[test]
    fn the_next_step_and_what_was_changed_stand_together() {
        let refusal = Refusal::new(RefusalCode::NameTaken, "a dataflow `a` is running").hint("choose another name");
        let failure = Failure::of_refusal(&refusal);
        assert_eq!(failure.next_step(), "choose another name; nothing was changed");
        assert_eq!(failure.looking().next_step(), "choose another name");
        assert_eq!(Failure::silent(Exit::Ok).next_step(), "");
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        assert_eq!(Failure::from(OutputError::Closed).exit, Exit::Ok);
    }
}
