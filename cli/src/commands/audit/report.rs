//! What a check of the audit has found, for people and for programs.

use crate::{
    exit::Exit,
    failure::Failure,
    output::{Printer, audit::hex, json::SCHEMA, table::Table, time::rfc3339},
};
use dora_remote_protocol::{
    audit::{
        AuditHead,
        verify::{Fault, Verdict},
    },
    name::MachineName,
};
use serde::Serialize;

/// What was found.
#[derive(Debug)]
pub(super) struct Report {
    /// What became of the comparison.
    pub(super) verdict: Verdict,
    /// Hash of the last entry, if there ever was one.
    pub(super) last_hash: Option<[u8; 32]>,
    /// What each connected machine keeps.
    pub(super) witnesses: Vec<Witnessing>,
    /// False where there was no root to check the signatures of heads by.
    pub(super) are_signatures_checked: bool,
}

/// What one machine keeps.
#[derive(Debug)]
pub(super) struct Witnessing {
    /// Which machine.
    pub(super) machine: MachineName,
    /// The heads that count.
    pub(super) heads: Vec<AuditHead>,
    /// Why others do not, or why it did not tell.
    pub(super) problems: Vec<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    intact: bool,
    /// A restore from a backup would explain all that is wrong.
    may_be_a_restore: bool,
    entries: u64,
    first_seq: u64,
    last_seq: u64,
    last_hash: Option<String>,
    /// Everything up to this entry is as a machine has witnessed it; 0 when nothing is.
    witnessed_to: u64,
    signatures_checked: bool,
    witnesses: Vec<WitnessLine<'a>>,
    faults: Vec<String>,
    more_faults: u64,
    not_proven: Vec<String>,
}

#[derive(Serialize)]
struct WitnessLine<'a> {
    machine: &'a MachineName,
    heads: usize,
    /// The last entry that it confirms; 0 when none.
    confirms_to: u64,
    newest: Option<String>,
    problems: &'a [String],
}

impl Report {
    /// Shows it; a chain that is not intact is a failure.
    ///
    /// # Errors
    /// Exit code 1 with what is wrong, the first fault first.
    pub(super) fn show(&self, printer: &Printer) -> Result<Exit, Failure> {
        if printer.is_json() {
            printer.document(&self.document())?;
        } else {
            self.show_people(printer)?;
        }
        if self.verdict.is_intact() {
            Ok(Exit::Ok)
        } else {
            Err(self.failure())
        }
    }

    fn show_people(&self, printer: &Printer) -> Result<(), Failure> {
        printer.line(&self.headline())?;
        let mut table = Table::new(&["WITNESS", "HEADS", "CONFIRMS UP TO", "NEWEST", "PROBLEM"]);
        for witness in &self.witnesses {
            let line = self.line_of(witness);
            table.row(vec![
                line.machine.to_string(),
                line.heads.to_string(),
                match line.confirms_to {
                    0 => "-".to_owned(),
                    entry => format!("entry {entry}"),
                },
                line.newest.unwrap_or_else(|| "-".to_owned()),
                line.problems.join("; "),
            ]);
        }
        if !table.is_empty() {
            printer.table(&table)?;
        }
        printer.line("not proven:")?;
        for sentence in self.not_proven() {
            printer.line(&format!("- {}", printer.foreign(&sentence)))?;
        }
        Ok(())
    }

    fn headline(&self) -> String {
        let verdict = &self.verdict;
        match (verdict.faults.first(), &self.last_hash) {
            (Some(fault), _) => format!("broken: {fault}"),
            (None, None) => "intact: there is no entry yet".to_owned(),
            (None, Some(hash)) => {
                let witnessed = match verdict.proven_to {
                    0 => "; no machine witnesses it".to_owned(),
                    entry => format!("; witnessed up to entry {entry}"),
                };
                format!("intact up to entry {} (hash {}){witnessed}", verdict.last_seq, hex(hash))
            }
        }
    }

    fn failure(&self) -> Failure {
        let verdict = &self.verdict;
        let mut failure = Failure::new(Exit::Failed, "the audit is not what was written");
        for fault in verdict.faults.iter().take(FAULTS_SHOWN) {
            failure = failure.cause(fault.to_string());
        }
        let more = verdict.more_faults + verdict.faults.len().saturating_sub(FAULTS_SHOWN) as u64;
        if more > 0 {
            failure = failure.cause(format!("and {more} more"));
        }
        failure.hint(if verdict.may_be_a_restore() {
            "if the coordinator was restored from a backup, this is what that looks like; if it was not, keep a copy of its state \
             directory before anything else"
        } else {
            "keep a copy of the coordinator's state directory before anything else, and ask who may write there"
        })
    }

    fn document(&self) -> Document<'_> {
        let verdict = &self.verdict;
        Document {
            schema: SCHEMA,
            intact: verdict.is_intact(),
            may_be_a_restore: verdict.may_be_a_restore(),
            entries: verdict.entries,
            first_seq: verdict.first_seq,
            last_seq: verdict.last_seq,
            last_hash: self.last_hash.as_ref().map(|hash| hex(hash)),
            witnessed_to: verdict.proven_to,
            signatures_checked: self.are_signatures_checked,
            witnesses: self.witnesses.iter().map(|witness| self.line_of(witness)).collect(),
            faults: verdict.faults.iter().map(ToString::to_string).collect(),
            more_faults: verdict.more_faults,
            not_proven: self.not_proven(),
        }
    }

    fn line_of<'a>(&'a self, witness: &'a Witnessing) -> WitnessLine<'a> {
        let kept = self.verdict.first_seq.saturating_sub(1)..=self.verdict.last_seq;
        let confirmed = witness
            .heads
            .iter()
            .filter(|head| kept.contains(&head.count) && !self.contradicts(witness, head));
        WitnessLine {
            machine: &witness.machine,
            heads: witness.heads.len(),
            confirms_to: confirmed.map(|head| head.count).max().unwrap_or(0),
            newest: witness.heads.iter().map(|head| head.at_unix_ms).max().map(rfc3339),
            problems: &witness.problems,
        }
    }

    /// Whether that head is one that the chain does not agree with.
    fn contradicts(&self, witness: &Witnessing, head: &AuditHead) -> bool {
        self.verdict.faults.iter().any(|fault| match fault {
            Fault::Rewritten { witnessed, .. } | Fault::Cut { witnessed, .. } => {
                witnessed.head == *head && witnessed.witness == witness.machine.as_str()
            }
            Fault::Altered { .. } | Fault::Missing { .. } | Fault::OutOfOrder { .. } => false,
        })
    }

    fn not_proven(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        if !self.are_signatures_checked && self.witnesses.iter().any(|witness| !witness.heads.is_empty()) {
            sentences.push(
                "the signatures of what machines witness were not checked: name the authority's root with `--root FILE`, or ask \
                 over the network with an identity of yours"
                    .to_owned(),
            );
        }
        sentences.extend(self.verdict.cannot_prove());
        sentences
    }
}

/// Faults that a failure tells one by one; the document for programs has more.
const FAULTS_SHOWN: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use dora_remote_protocol::audit::verify::{Life, WitnessedHead};

    fn head(count: u64) -> AuditHead {
        AuditHead {
            store_epoch: 1,
            count,
            hash: [1; 32],
            at_unix_ms: 1_000,
        }
    }

    fn report(faults: Vec<Fault>) -> Report {
        Report {
            verdict: Verdict {
                first_seq: 1,
                last_seq: 9,
                entries: 9,
                proven_to: if faults.is_empty() { 7 } else { 0 },
                expired_heads: 0,
                faults,
                more_faults: 0,
            },
            last_hash: Some([0xcd; 32]),
            witnesses: vec![Witnessing {
                machine: "arm".parse().expect("a name"),
                heads: vec![head(5), head(7), head(12)],
                problems: Vec::new(),
            }],
            are_signatures_checked: true,
        }
    }

    fn cut(life: Life) -> Fault {
        let witness = "arm".to_owned();
        Fault::Cut {
            last_seq: 9,
            witnessed: WitnessedHead { witness, head: head(12) },
            life,
        }
    }

    #[test]
    fn an_intact_chain_says_how_far_and_who_confirms_it() {
        let mut report = report(Vec::new());
        report.witnesses[0].heads.pop();
        let text = report.headline();
        assert!(text.starts_with("intact up to entry 9 (hash cdcd"), "{text}");
        assert!(text.ends_with("; witnessed up to entry 7"), "{text}");
        assert_eq!(report.document().witnesses[0].confirms_to, 7);
        assert!(report.not_proven()[0].contains("8 to 9"), "{:?}", report.not_proven());
        report.are_signatures_checked = false;
        assert!(report.not_proven()[0].contains("--root FILE"), "{:?}", report.not_proven());
    }

    #[test]
    fn a_broken_chain_is_a_failure_that_names_the_first_fault() {
        let report = report(vec![Fault::Altered { seq: 3 }, cut(Life::Present)]);
        assert_eq!(report.headline(), format!("broken: {}", Fault::Altered { seq: 3 }));
        let failure = report.failure();
        assert_eq!(failure.exit, Exit::Failed);
        assert!(failure.causes[0].contains("entry 3 was altered"), "{failure:?}");
        assert!(failure.causes[1].contains("arm witnesses 12 entries"), "{failure:?}");
        let confirmed = report.document().witnesses[0].confirms_to;
        assert_eq!(confirmed, 7, "the head at 12 confirms nothing");
    }

    #[test]
    fn what_a_restore_explains_is_told_as_such_and_is_no_success() {
        let report = report(vec![cut(Life::Other)]);
        assert!(!report.document().intact && report.document().may_be_a_restore);
        let failure = report.failure();
        assert!(failure.hint.contains("restored from a backup"), "{failure:?}");
    }
}
