//! What the daemon remembers of its coordinator: the last good time, the life of its store, and what was witnessed.

use super::{
    Fault, HEADS, KEY_COUNTER, KEY_HEARD, KEY_LAST_GOOD, KEY_REVOCATIONS, KEY_STORE_EPOCH, META, Store, StoreError, decode,
    encode, get, put,
};
use crate::{
    link_loss::HeardRecord,
    witness::{Contradiction, Heads},
};
use dora_remote_protocol::{
    access::{Revocation, RevokeTarget},
    audit::{SignedHead, SignedRevocations},
};
use redb::{ReadableDatabase, ReadableTable};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What one welcome taught.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acquaintance {
    /// Which life of the coordinator's store spoke.
    pub(crate) store_epoch: u64,
    /// Counter of the hello that was welcomed; later ones are higher, also after a restart with a clock that went back.
    pub(crate) counter: u64,
    /// A time that has passed for certain, in milliseconds since the Unix epoch; absent when it need not be written yet.
    pub(crate) last_good_unix_ms: Option<u64>,
}

/// What became of revocations that were to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RevocationsKept {
    /// They are in place of the former ones.
    New,
    /// They are those that were kept already.
    Same,
    /// They lack so many of the former ones, which are kept instead: revocations never end.
    Lacking(usize),
}

/// Revocations as they are kept.
#[derive(Serialize, Deserialize)]
struct KeptRevocations {
    /// The life of the coordinator's store that knows them; none when it is not certain that one does.
    store_epoch: Option<u64>,
    signed: SignedRevocations,
}

impl Store {
    /// The last time that has passed for certain, in milliseconds since the Unix epoch.
    pub(crate) fn last_good(&self) -> Result<Option<u64>, StoreError> {
        self.read(|meta| get(meta, KEY_LAST_GOOD))
    }

    /// When the coordinator was last heard, while some run must not go on without it.
    pub(crate) fn heard(&self) -> Result<Option<HeardRecord>, StoreError> {
        self.read(|meta| get(meta, KEY_HEARD))
    }

    /// Writes down when the coordinator was last heard, or that it matters to no run.
    pub(crate) fn set_heard(&self, record: Option<&HeardRecord>) -> Result<(), StoreError> {
        self.write(|tx| {
            let mut meta = tx.open_table(META)?;
            match record {
                Some(record) => put(&mut meta, KEY_HEARD, record)?,
                None => drop(meta.remove(KEY_HEARD)?),
            }
            Ok(())
        })
    }

    /// Remembers a welcome; gives the life of the coordinator's store that spoke before.
    pub(crate) fn welcomed(&self, acquaintance: &Acquaintance) -> Result<Option<u64>, StoreError> {
        self.write(|tx| {
            let mut meta = tx.open_table(META)?;
            let former = get::<u64>(&meta, KEY_STORE_EPOCH)?;
            put(&mut meta, KEY_STORE_EPOCH, &acquaintance.store_epoch)?;
            let counter = get::<u64>(&meta, KEY_COUNTER)?.unwrap_or(1);
            put(&mut meta, KEY_COUNTER, &counter.max(acquaintance.counter.saturating_add(1)))?;
            if let Some(last_good) = acquaintance.last_good_unix_ms {
                let known = get::<u64>(&meta, KEY_LAST_GOOD)?.unwrap_or(0);
                put(&mut meta, KEY_LAST_GOOD, &known.max(last_good))?;
            }
            Ok(former)
        })
    }

    /// The ends of the audit's chain that are kept.
    pub(crate) fn heads(&self) -> Result<Heads, StoreError> {
        let read = || read_heads(&self.db()?.begin_read()?.open_table(HEADS)?);
        read().map_err(|fault| self.fault(fault))
    }

    /// Keeps one more end; see [`Heads::keep`].
    pub(crate) fn keep_head(&self, head: SignedHead, now_unix_ms: u64) -> Result<Option<Contradiction>, StoreError> {
        let before = self.heads()?;
        let mut after = before.clone();
        let found = after.keep(head, now_unix_ms);
        if after == before {
            return Ok(found);
        }
        self.write(|tx| {
            let mut heads = tx.open_table(HEADS)?;
            for gone in before.0.iter().filter(|kept| !after.0.contains(kept)) {
                heads.remove(gone.number)?;
            }
            for new in after.0.iter().filter(|kept| !before.0.contains(kept)) {
                heads.insert(new.number, encode(new)?.as_slice())?;
            }
            Ok(found)
        })
    }

    /// Keeps revocations in place of the former ones, unless they lack some of those and `is_ours` holds for those: a machine that
    /// was moved to another authority owes the former one nothing.
    pub(crate) fn keep_revocations(
        &self,
        signed: SignedRevocations,
        is_ours: impl Fn(&SignedRevocations) -> bool,
    ) -> Result<RevocationsKept, StoreError> {
        self.write(|tx| {
            let mut meta = tx.open_table(META)?;
            let store_epoch = get::<u64>(&meta, KEY_STORE_EPOCH)?;
            if let Some(mut kept) = get::<KeptRevocations>(&meta, KEY_REVOCATIONS)? {
                let (old, new) = (targets(&kept.signed.revocations), targets(&signed.revocations));
                let lacking = old.difference(&new).count();
                if lacking > 0 && is_ours(&kept.signed) {
                    // Told at the next join in any case: the store has forgotten them without becoming another one.
                    kept.store_epoch = None;
                    put(&mut meta, KEY_REVOCATIONS, &kept)?;
                    return Ok(RevocationsKept::Lacking(lacking));
                }
                if old == new && kept.store_epoch == store_epoch {
                    return Ok(RevocationsKept::Same);
                }
            }
            put(&mut meta, KEY_REVOCATIONS, &KeptRevocations { store_epoch, signed })?;
            Ok(RevocationsKept::New)
        })
    }

    /// The newest end of the audit's chain, and the revocations unless the life `store_epoch` of the coordinator's store knows them.
    pub(crate) fn testimony(&self, store_epoch: u64) -> Result<(Option<SignedHead>, Option<SignedRevocations>), StoreError> {
        let newest = self.heads()?.newest().cloned();
        let kept = self.read(|meta| get::<KeptRevocations>(meta, KEY_REVOCATIONS))?;
        let foreign = kept.filter(|kept| kept.store_epoch != Some(store_epoch));
        Ok((newest, foreign.map(|kept| kept.signed)))
    }
}

fn read_heads(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<Heads, Fault> {
    let mut heads = Vec::new();
    for row in table.iter()? {
        heads.push(decode(row?.1.value())?);
    }
    Ok(Heads(heads))
}

fn targets(revocations: &[Revocation]) -> BTreeSet<&RevokeTarget> {
    revocations.iter().map(|revocation| &revocation.target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dora_remote_protocol::{audit::AuditHead, identity::Role};
    use std::path::Path;

    fn store(dir: &Path) -> Store {
        Store::open(&dir.join("d.redb")).unwrap()
    }

    fn welcome(store_epoch: u64, counter: u64, last_good_unix_ms: Option<u64>) -> Acquaintance {
        Acquaintance {
            store_epoch,
            counter,
            last_good_unix_ms,
        }
    }

    fn revocations(names: &[&str]) -> SignedRevocations {
        let revocation = |name: &&str| Revocation {
            target: RevokeTarget::Holder {
                role: Some(Role::Daemon),
                name: name.parse().unwrap(),
            },
            at_unix_ms: 1,
            by: String::new(),
            reason: String::new(),
        };
        SignedRevocations {
            revocations: names.iter().map(revocation).collect(),
            chain: Vec::new(),
            signature: Vec::new(),
        }
    }

    #[test]
    fn the_last_good_time_and_the_counter_never_go_back() {
        let dir = tempfile::tempdir().unwrap();
        let opened = store(dir.path());
        assert_eq!(opened.last_good().unwrap(), None);
        assert_eq!(opened.welcomed(&welcome(1, 5_000, Some(70))).unwrap(), None);
        assert_eq!(opened.welcomed(&welcome(1, 4_000, Some(60))).unwrap(), Some(1));
        assert_eq!(opened.welcomed(&welcome(2, 4_001, None)).unwrap(), Some(1));
        drop(opened);
        let opened = store(dir.path());
        assert_eq!(opened.last_good().unwrap(), Some(70));
        assert_eq!(opened.take_counters(1).unwrap(), 5_001);
        assert_eq!(opened.welcomed(&welcome(2, 1, None)).unwrap(), Some(2));
    }

    #[test]
    fn heads_are_those_of_memory_after_each_step() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = store(dir.path());
        let mut expected = Heads::default();
        for (step, count) in [5, 6, 6, 4, 7, 9, 9, 2].into_iter().enumerate() {
            let now = 7_200_000 + step as u64 * 1_500_000;
            let head = SignedHead {
                head: AuditHead {
                    store_epoch: 1,
                    count,
                    hash: [count as u8; 32],
                    at_unix_ms: now,
                },
                chain: Vec::new(),
                signature: Vec::new(),
            };
            assert_eq!(opened.keep_head(head.clone(), now).unwrap(), expected.keep(head, now));
            drop(opened);
            opened = store(dir.path());
            assert_eq!(opened.heads().unwrap(), expected, "step {step}");
        }
    }

    #[test]
    fn revocations_are_only_ever_added_to() {
        let dir = tempfile::tempdir().unwrap();
        let opened = store(dir.path());
        opened.welcomed(&welcome(1, 1, None)).unwrap();
        let keep = |names: &[&str], ours| opened.keep_revocations(revocations(names), |_| ours).unwrap();
        assert_eq!(keep(&["a"], true), RevocationsKept::New);
        assert_eq!(keep(&["a"], true), RevocationsKept::Same);
        assert_eq!(opened.testimony(1).unwrap(), (None, None));
        assert_eq!(opened.testimony(2).unwrap().1, Some(revocations(&["a"])));
        assert_eq!(keep(&["b", "c"], true), RevocationsKept::Lacking(1));
        assert_eq!(
            opened.testimony(1).unwrap().1,
            Some(revocations(&["a"])),
            "it has forgotten them"
        );
        opened.welcomed(&welcome(2, 2, None)).unwrap();
        assert_eq!(keep(&["a", "b"], true), RevocationsKept::New);
        assert_eq!(opened.testimony(2).unwrap(), (None, None));
        assert_eq!(keep(&["z"], false), RevocationsKept::New, "those of a former authority");
    }
}
