//! Checks a chain of entries against itself and against the heads that daemons witness, and says what that does not prove.
//!
//! Pure: entries come one by one, so that a long audit need not be in memory. Signatures of heads are checked before, by who has
//! the authority's root.

use super::{AuditEntry, AuditHead, chain::entry_hash};
use std::{collections::BTreeMap, fmt};

/// Where a chain begins: what [`super::AuditItem::Anchor`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Number of the first entry that is kept.
    pub first_seq: u64,
    /// Hash of the entry before it; zero when it is the first of all.
    pub before: [u8; 32],
}

/// A head whose signature was found good, and who keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessedHead {
    /// Name of the machine.
    pub witness: String,
    /// The head.
    pub head: AuditHead,
}

/// Checks a chain at once; see [`Verifier`] for one that is too long for memory.
pub fn verify<'a>(
    anchor: Anchor,
    entries: impl IntoIterator<Item = &'a AuditEntry>,
    witnesses: impl IntoIterator<Item = WitnessedHead>,
    present_epoch: Option<u64>,
) -> Verdict {
    let mut verifier = Verifier::new(anchor, witnesses, present_epoch);
    for entry in entries {
        verifier.entry(entry);
    }
    verifier.finish()
}

/// A check under way.
#[derive(Debug)]
pub struct Verifier {
    anchor: Anchor,
    present_epoch: Option<u64>,
    /// Heads by the number of their entry.
    heads: BTreeMap<u64, Vec<WitnessedHead>>,
    expected: u64,
    before: [u8; 32],
    entries: u64,
    proven_to: u64,
    found: Found,
    expired_heads: u64,
}

impl Verifier {
    /// Begins at the anchor. The heads must have been collected before the entries are read: a head that is younger than the
    /// last entry read would look like a tail that was cut off.
    ///
    /// `present_epoch` says which life of the store this is ([`crate::hello::Welcome::store_epoch`]); when it is not known, the life
    /// of the youngest head counts as the present one.
    pub fn new(anchor: Anchor, witnesses: impl IntoIterator<Item = WitnessedHead>, present_epoch: Option<u64>) -> Self {
        let mut heads: BTreeMap<u64, Vec<WitnessedHead>> = BTreeMap::new();
        for witnessed in witnesses {
            heads.entry(witnessed.head.count).or_default().push(witnessed);
        }
        let youngest = heads.values().flatten().max_by_key(|it| it.head.at_unix_ms);
        let mut this = Self {
            anchor,
            present_epoch: present_epoch.or_else(|| youngest.map(|it| it.head.store_epoch)),
            heads,
            expected: anchor.first_seq,
            before: anchor.before,
            entries: 0,
            proven_to: 0,
            found: Found::default(),
            expired_heads: 0,
        };
        // The anchor stands for the last entry that was given up; nothing older can be looked at.
        let kept = this.heads.split_off(&anchor.first_seq.saturating_sub(1));
        this.expired_heads = this.heads.values().map(|heads| heads.len() as u64).sum();
        this.heads = kept;
        this.compare(anchor.first_seq.saturating_sub(1), anchor.before);
        this
    }

    /// Looks at the next entry, in the order in which they are kept.
    pub fn entry(&mut self, entry: &AuditEntry) {
        self.entries += 1;
        if entry.seq < self.expected {
            self.found.add(Fault::OutOfOrder {
                seq: entry.seq,
                after: self.expected - 1,
            });
            return;
        }
        if entry.seq > self.expected {
            self.found.add(Fault::Missing {
                first: self.expected,
                last: entry.seq - 1,
            });
        } else if entry_hash(&self.before, entry).ok() != Some(entry.hash) {
            self.found.add(Fault::Altered { seq: entry.seq });
        }
        // What follows is judged by what stands here, so that each fault is told once.
        self.before = entry.hash;
        self.expected = entry.seq + 1;
        self.compare(entry.seq, entry.hash);
    }

    /// Says what was found.
    #[must_use]
    pub fn finish(mut self) -> Verdict {
        let last_seq = self.expected - 1;
        for witnessed in std::mem::take(&mut self.heads).into_values().flatten() {
            let life = self.life_of(&witnessed.head);
            self.found.add(Fault::Cut {
                last_seq,
                witnessed,
                life,
            });
        }
        let intact = self.found.faults.iter().all(|fault| !fault.is_of_this_life()) && self.found.more == 0;
        Verdict {
            first_seq: self.anchor.first_seq,
            last_seq,
            entries: self.entries,
            proven_to: if intact { self.proven_to } else { 0 },
            expired_heads: self.expired_heads,
            faults: self.found.faults,
            more_faults: self.found.more,
        }
    }

    /// Compares an entry with the heads that name it.
    fn compare(&mut self, seq: u64, hash: [u8; 32]) {
        for witnessed in self.heads.remove(&seq).unwrap_or_default() {
            if witnessed.head.hash == hash {
                self.proven_to = self.proven_to.max(seq);
            } else {
                let life = self.life_of(&witnessed.head);
                self.found.add(Fault::Rewritten { witnessed, life });
            }
        }
    }

    fn life_of(&self, head: &AuditHead) -> Life {
        if self.present_epoch == Some(head.store_epoch) {
            Life::Present
        } else {
            Life::Other
        }
    }
}

/// Whether a head was witnessed in this life of the coordinator's store. A restore from a backup begins a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// In this one.
    Present,
    /// In another one.
    Other,
}

/// Something that is wrong with a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The entry does not follow from the one before it: one of the two was altered.
    Altered {
        /// Number of the entry.
        seq: u64,
    },
    /// Entries are missing.
    Missing {
        /// Number of the first one.
        first: u64,
        /// Number of the last one.
        last: u64,
    },
    /// The entry stands in a wrong place.
    OutOfOrder {
        /// Number of the entry.
        seq: u64,
        /// Number of the entry behind which it stands.
        after: u64,
    },
    /// A daemon witnesses another entry under this number: everything from some entry before it on was written anew.
    Rewritten {
        /// What it witnesses.
        witnessed: WitnessedHead,
        /// In which life.
        life: Life,
    },
    /// A daemon witnesses an entry that is not there: the end was cut off.
    Cut {
        /// Number of the last entry that is there.
        last_seq: u64,
        /// What it witnesses.
        witnessed: WitnessedHead,
        /// In which life.
        life: Life,
    },
}

impl Fault {
    /// False for what a restore from a backup explains, if there was one: that is for people to know.
    #[must_use]
    pub const fn is_of_this_life(&self) -> bool {
        !matches!(
            self,
            Self::Rewritten { life: Life::Other, .. } | Self::Cut { life: Life::Other, .. }
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const RESTORE: &str = "; it was witnessed in another life of the store, so a restore from a backup may be the reason";
        let explained = if self.is_of_this_life() { "" } else { RESTORE };
        match self {
            Self::Altered { seq } => write!(f, "entry {seq} was altered, or the one before it: it does not follow from it"),
            Self::Missing { first, last } if first == last => write!(f, "entry {first} is missing"),
            Self::Missing { first, last } => write!(f, "the entries {first} to {last} are missing"),
            Self::OutOfOrder { seq, after } => write!(f, "entry {seq} stands behind entry {after}"),
            Self::Rewritten { witnessed, .. } => write!(
                f,
                "entry {} is not the one that {} witnesses{explained}",
                witnessed.head.count, witnessed.witness
            ),
            Self::Cut { last_seq, witnessed, .. } => write!(
                f,
                "the end was cut off: {} witnesses {} entries, and the last one here is {last_seq}{explained}",
                witnessed.witness, witnessed.head.count
            ),
        }
    }
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Number of the first entry that is kept.
    pub first_seq: u64,
    /// Number of the last entry; one below the first when there is none.
    pub last_seq: u64,
    /// Entries that were looked at.
    pub entries: u64,
    /// Everything up to this entry is as a daemon has witnessed it; 0 when nothing is.
    pub proven_to: u64,
    /// Heads that name entries which are not kept any more.
    pub expired_heads: u64,
    /// What is wrong, in the order in which it was found; at most [`MAX_FAULTS`].
    pub faults: Vec<Fault>,
    /// Further faults.
    pub more_faults: u64,
}

impl Verdict {
    /// Whether nothing was found to be wrong. What a restore explains counts as wrong too.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.faults.is_empty() && self.more_faults == 0
    }

    /// Whether all that is wrong can be explained by a restore from a backup, and something is.
    #[must_use]
    pub fn may_be_a_restore(&self) -> bool {
        !self.is_intact() && self.more_faults == 0 && self.faults.iter().all(|fault| !fault.is_of_this_life())
    }

    /// What this check cannot prove, as sentences for people.
    #[must_use]
    pub fn cannot_prove(&self) -> Vec<String> {
        let mut unproven = Vec::new();
        if self.first_seq > 1 {
            let last = self.first_seq - 1;
            unproven.push(format!(
                "entries 1 to {last} are not kept any more, so nothing is known of what they said"
            ));
        }
        if self.proven_to == 0 {
            unproven.push(
                "no daemon confirms this chain: who rules the coordinator's disk could have cut off its end or written it anew"
                    .to_owned(),
            );
        } else if self.proven_to < self.last_seq {
            unproven.push(format!(
                "entries {} to {} are younger than what daemons witness: further ones behind them may be missing",
                self.proven_to + 1,
                self.last_seq
            ));
        } else {
            unproven.push(format!(
                "entries behind {} that no daemon was told of could have been cut off; daemons are told within a minute",
                self.last_seq
            ));
        }
        unproven.push(
            "an entry that the coordinator never wrote cannot be missed; and a witness counts only as long as its machine and the \
             coordinator are not in the same hands"
                .to_owned(),
        );
        unproven
    }
}

#[derive(Debug, Default)]
struct Found {
    faults: Vec<Fault>,
    more: u64,
}

impl Found {
    fn add(&mut self, fault: Fault) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault);
        } else {
            self.more += 1;
        }
    }
}

/// Most faults that are told one by one.
pub const MAX_FAULTS: usize = 100;

#[cfg(test)]
mod tests;
