//! What is to be said of one command: an entry before it has its number, its time and its hash.

use crate::asker::Asker;
use dora_remote_protocol::{
    audit::{AuditEntry, MAX_AUDIT_DETAIL_BYTES},
    refusal::{Changed, Refusal, RefusalCode},
};
use std::fmt;

/// An entry in the making. Names and ids only: never the value of a variable, never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Draft {
    pub(crate) who: String,
    pub(crate) serial: String,
    pub(crate) from: String,
    pub(crate) verb: String,
    pub(crate) target: String,
    pub(crate) result: String,
    pub(crate) detail: String,
    pub(crate) request_id: String,
}

impl Draft {
    /// Something that somebody asked for and that was done, unless [`Self::result`] says otherwise.
    pub(crate) fn new(asker: &Asker, verb: &'static str, target: impl fmt::Display) -> Self {
        Self {
            who: asker.who.clone(),
            serial: asker.serial.clone(),
            from: asker.from.clone(),
            verb: verb.to_owned(),
            target: cut(target.to_string()),
            result: OK.to_owned(),
            detail: String::new(),
            request_id: asker.request_id.to_string(),
        }
    }

    /// Something that the coordinator did by itself.
    pub(crate) fn by_coordinator(verb: &'static str, target: impl fmt::Display) -> Self {
        Self {
            who: "coordinator".to_owned(),
            serial: String::new(),
            from: String::new(),
            verb: verb.to_owned(),
            target: cut(target.to_string()),
            result: OK.to_owned(),
            detail: String::new(),
            request_id: String::new(),
        }
    }

    /// Says how it ended: a refusal with its code, its message as the detail, and whether anything was changed all the same.
    pub(crate) fn result<T>(mut self, result: &Result<T, Refusal>) -> Self {
        match result {
            Ok(_) => OK.clone_into(&mut self.result),
            Err(refusal) => {
                refusal.code.as_str().clone_into(&mut self.result);
                let changed = match refusal.changed {
                    Changed::Nothing => "",
                    Changed::Partly => " (changed in part)",
                    Changed::Unknown => " (nobody can tell what was changed)",
                };
                self.detail = cut(format!("{}{changed}", refusal.message));
            }
        }
        self
    }

    /// Refused commands that are not told one by one.
    pub(crate) fn not_told(who: &str, count: u64) -> Self {
        let mut draft = Self::by_coordinator("refusals", "");
        who.clone_into(&mut draft.who);
        RefusalCode::LimitReached.as_str().clone_into(&mut draft.result);
        draft.detail = format!("{count} more refused commands that are not told one by one");
        draft
    }

    /// Whether it was done, and not refused.
    pub(crate) fn is_done(&self) -> bool {
        self.result == OK
    }

    /// The entry, without its number and its hash.
    pub(crate) fn entry(self, at_unix_ms: u64) -> AuditEntry {
        AuditEntry {
            seq: 0,
            at_unix_ms,
            who: self.who,
            serial: self.serial,
            from: self.from,
            verb: self.verb,
            target: self.target,
            result: self.result,
            detail: self.detail,
            request_id: self.request_id,
            hash: [0; 32],
        }
    }

    /// Says what else is to be said; longer text is cut to [`MAX_AUDIT_DETAIL_BYTES`].
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = cut(detail.into());
        self
    }
}

/// Cuts a text to [`MAX_AUDIT_DETAIL_BYTES`] at a character's edge and says so at its end.
fn cut(mut text: String) -> String {
    const MARK: &str = "... [cut]";
    if text.len() > MAX_AUDIT_DETAIL_BYTES {
        let mut end = MAX_AUDIT_DETAIL_BYTES - MARK.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(MARK);
    }
    text
}

/// The result of what was done as asked.
const OK: &str = "ok";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_its_code_its_reason_and_what_it_changed() {
        let refused: Result<(), _> = Err(Refusal::new(RefusalCode::Denied, "no").changed(Changed::Partly));
        let draft = Draft::by_coordinator("start", "flow").result(&refused);
        assert_eq!(
            (draft.result.as_str(), draft.detail.as_str()),
            ("denied", "no (changed in part)")
        );
        assert_eq!(Draft::by_coordinator("start", "flow").result(&Ok(())).result, "ok");
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let draft = Draft::by_coordinator("start", "ü".repeat(9_000)).detail("ü".repeat(9_000));
        for text in [draft.target, draft.detail] {
            assert!(text.len() <= MAX_AUDIT_DETAIL_BYTES && text.ends_with("[cut]"));
        }
    }
}
