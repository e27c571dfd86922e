//! Entries of the audit as they are shown: columns for people, one object each for programs. Nothing is held back: each chunk
//! is rendered as it comes, in columns that only grow.

use super::{Printer, text::escape, time::rfc3339};
use dora_remote_protocol::audit::AuditEntry;
use serde::Serialize;

/// One entry of the audit, for programs. Fields are added, never renamed or reused.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "entry")]
pub struct Entry<'a> {
    /// Number, from 1, without holes.
    pub seq: u64,
    /// When, by the coordinator's clock.
    pub time: String,
    /// Who: a SPIFFE id, `invite` with its id, `local` with the user's number, or `coordinator`.
    pub who: &'a str,
    /// Serial of the certificate, or empty.
    pub serial: &'a str,
    /// Address it came from, or empty.
    pub from: &'a str,
    /// Name of the verb.
    pub verb: &'a str,
    /// What it was about.
    pub target: &'a str,
    /// `ok`, or the code of the refusal.
    pub result: &'a str,
    /// What else is to be said.
    pub detail: &'a str,
    /// Request id of the command.
    pub request_id: &'a str,
    /// Hash that ties it to the entry before, in hex.
    pub hash: String,
}

impl<'a> From<&'a AuditEntry> for Entry<'a> {
    fn from(entry: &'a AuditEntry) -> Self {
        Self {
            seq: entry.seq,
            time: rfc3339(entry.at_unix_ms),
            who: &entry.who,
            serial: &entry.serial,
            from: &entry.from,
            verb: &entry.verb,
            target: &entry.target,
            result: &entry.result,
            detail: &entry.detail,
            request_id: &entry.request_id,
            hash: hex(&entry.hash),
        }
    }
}

/// Renders entries, however many there are.
#[derive(Clone, Debug)]
pub struct Entries {
    printer: Printer,
    widths: [usize; HEADINGS.len()],
    has_heading: bool,
}

impl Entries {
    /// A renderer that has shown nothing yet.
    #[must_use]
    pub fn new(printer: &Printer) -> Self {
        Self {
            printer: printer.clone(),
            widths: HEADINGS.map(str::len),
            has_heading: false,
        }
    }

    /// Renders some more entries; for people, the heading comes with the first of them.
    pub fn render(&mut self, entries: &[AuditEntry]) -> String {
        let mut out = String::new();
        if self.printer.is_json() {
            for entry in entries {
                // Every field is a string or a number, which JSON can always hold.
                out.push_str(&serde_json::to_string(&Entry::from(entry)).unwrap_or_default());
                out.push('\n');
            }
            return out;
        }
        let rows: Vec<[String; HEADINGS.len()]> = entries.iter().map(cells).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count()).min(MAX_WIDTH);
            }
        }
        if !std::mem::replace(&mut self.has_heading, true) {
            let heading = self.line(&HEADINGS.map(str::to_owned));
            if self.printer.has_colour() {
                out.push_str(&format!("\u{1b}[1m{}\u{1b}[0m\n", heading.trim_end()));
            } else {
                out.push_str(&heading);
            }
        }
        out.extend(rows.iter().map(|row| self.line(row)));
        out
    }

    fn line(&self, row: &[String; HEADINGS.len()]) -> String {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(self.widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 2));
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }
}

fn cells(entry: &AuditEntry) -> [String; HEADINGS.len()] {
    let empty_is_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { escape(text) };
    [
        rfc3339(entry.at_unix_ms),
        empty_is_dash(&entry.who),
        empty_is_dash(&entry.verb),
        empty_is_dash(&entry.target),
        empty_is_dash(&entry.result),
        empty_is_dash(&entry.from),
        empty_is_dash(&entry.request_id),
        escape(&entry.detail),
    ]
}

/// Bytes as lower-case hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const HEADINGS: [&str; 8] = ["TIME", "WHO", "VERB", "TARGET", "RESULT", "FROM", "REQUEST", "DETAIL"];
/// Widest column in characters; longer cells push the rest of their line to the right.
const MAX_WIDTH: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    fn entry(who: &str, detail: &str) -> AuditEntry {
        AuditEntry {
            seq: 7,
            at_unix_ms: 1_000,
            who: who.to_owned(),
            serial: String::new(),
            from: String::new(),
            verb: "stop".to_owned(),
            target: "arm".to_owned(),
            result: "ok".to_owned(),
            detail: detail.to_owned(),
            request_id: "r1".to_owned(),
            hash: [0xab; 32],
        }
    }

    #[test]
    fn columns_grow_and_foreign_text_stays_in_its_cell() {
        let mut entries = Entries::new(&Printer::new(Format::Table, false));
        entries.printer.colour = false;
        let first = entries.render(&[entry("ann", "")]);
        assert_eq!(
            first,
            "TIME                      WHO  VERB  TARGET  RESULT  FROM  REQUEST  DETAIL\n\
             1970-01-01T00:00:01.000Z  ann  stop  arm     ok      -     r1\n"
        );
        let second = entries.render(&[entry("local 0", "a\n\u{1b}[2Jb")]);
        assert_eq!(
            second,
            "1970-01-01T00:00:01.000Z  local 0  stop  arm     ok      -     r1       a\\n\\u{1b}[2Jb\n"
        );
    }

    #[test]
    fn programs_see_every_field() {
        let mut entries = Entries::new(&Printer::new(Format::Json, false));
        let line = entries.render(&[entry("ann", "x")]);
        let wanted = concat!(
            r#"{"type":"entry","seq":7,"time":"1970-01-01T00:00:01.000Z","who":"ann","serial":"","from":"","verb":"stop","#,
            r#""target":"arm","result":"ok","detail":"x","request_id":"r1","hash":"HASH"}"#,
            "\n"
        );
        assert_eq!(line, wanted.replace("HASH", &"ab".repeat(32)));
    }
}
