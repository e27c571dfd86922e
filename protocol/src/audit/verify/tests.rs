use super::*;
use crate::audit::chain::{Chain, GENESIS};
use proptest::prelude::*;

const EPOCH: u64 = 7;

fn entry(what: &str) -> AuditEntry {
    AuditEntry {
        seq: 0,
        at_unix_ms: 5,
        who: "spiffe://lab/operator/ann".to_owned(),
        serial: "0a".to_owned(),
        from: "192.0.2.1:4000".to_owned(),
        verb: "start".to_owned(),
        target: what.to_owned(),
        result: "ok".to_owned(),
        detail: String::new(),
        request_id: String::new(),
        hash: [0; 32],
    }
}

fn chain(from: Chain, length: u64) -> Vec<AuditEntry> {
    let mut chain = from;
    (0..length)
        .map(|number| chain.append(entry(&format!("flow-{number}"))).expect("encodes"))
        .collect()
}

fn start() -> Anchor {
    Anchor {
        first_seq: 1,
        before: GENESIS,
    }
}

fn head(entries: &[AuditEntry], count: u64, epoch: u64) -> WitnessedHead {
    let last = entries.iter().find(|entry| entry.seq == count).expect("an entry");
    WitnessedHead {
        witness: "robot-7".to_owned(),
        head: AuditHead {
            store_epoch: epoch,
            count,
            hash: last.hash,
            at_unix_ms: 9,
        },
    }
}

fn check(entries: &[AuditEntry], heads: Vec<WitnessedHead>) -> Verdict {
    verify(start(), entries, heads, Some(EPOCH))
}

#[test]
fn a_whole_chain_is_proven_as_far_as_it_is_witnessed() {
    let entries = chain(Chain::default(), 30);
    let verdict = check(&entries, vec![head(&entries, 20, EPOCH), head(&entries, 12, EPOCH)]);
    assert!(verdict.is_intact() && verdict.entries == 30, "{verdict:?}");
    assert_eq!((verdict.last_seq, verdict.proven_to), (30, 20));
    let unproven = verdict.cannot_prove();
    assert!(unproven[0].contains("21 to 30"), "{unproven:?}");
    let alone = check(&entries, Vec::new());
    assert!(alone.is_intact() && alone.proven_to == 0);
    assert!(alone.cannot_prove()[0].contains("no daemon confirms"));
}

#[test]
fn the_last_ten_cut_off_are_missed_by_a_witness_and_by_nothing_else() {
    let entries = chain(Chain::default(), 30);
    let cut = &entries[..20];
    assert!(check(cut, Vec::new()).is_intact(), "a chain alone cannot know");
    let verdict = check(cut, vec![head(&entries, 30, EPOCH)]);
    assert!(!verdict.is_intact() && !verdict.may_be_a_restore());
    assert_eq!(verdict.faults.len(), 1);
    assert_eq!(
        verdict.faults[0].to_string(),
        "the end was cut off: robot-7 witnesses 30 entries, and the last one here is 20"
    );
}

#[test]
fn a_tail_that_was_written_anew_is_found_by_a_witness() {
    let entries = chain(Chain::default(), 30);
    let mut forged = entries[..20].to_vec();
    let mut end = Chain::ending(20, entries[19].hash);
    forged.extend((0..15).map(|_| end.append(entry("harmless")).expect("encodes")));
    assert!(check(&forged, Vec::new()).is_intact());
    let verdict = check(&forged, vec![head(&entries, 30, EPOCH)]);
    assert!(matches!(verdict.faults[..], [Fault::Rewritten { life: Life::Present, .. }]));
    assert_eq!(verdict.proven_to, 0);
}

#[test]
fn heads_of_another_life_are_told_apart() {
    let entries = chain(Chain::default(), 30);
    let verdict = check(&entries[..20], vec![head(&entries, 30, EPOCH - 1), head(&entries, 19, EPOCH)]);
    assert!(!verdict.is_intact() && verdict.may_be_a_restore(), "{verdict:?}");
    assert_eq!(verdict.proven_to, 19);
    assert!(verdict.faults[0].to_string().contains("restore"));
    // Without anybody who says which life this is, the youngest head does.
    let mut young = head(&entries, 19, EPOCH);
    young.head.at_unix_ms = 10;
    let verdict = verify(start(), &entries[..20], [young, head(&entries, 30, EPOCH - 1)], None);
    assert!(verdict.may_be_a_restore());
}

#[test]
fn a_chain_may_begin_at_an_anchor() {
    let entries = chain(Chain::default(), 30);
    let anchor = Anchor {
        first_seq: 11,
        before: entries[9].hash,
    };
    let heads = [head(&entries, 5, EPOCH), head(&entries, 10, EPOCH), head(&entries, 25, EPOCH)];
    let verdict = verify(anchor, &entries[10..], heads, Some(EPOCH));
    assert!(verdict.is_intact(), "{verdict:?}");
    assert_eq!((verdict.expired_heads, verdict.proven_to), (1, 25));
    assert!(verdict.cannot_prove()[0].contains("1 to 10"));
    let other = Anchor {
        before: [1; 32],
        ..anchor
    };
    let verdict = verify(other, &entries[10..], [head(&entries, 10, EPOCH)], Some(EPOCH));
    assert!(
        matches!(verdict.faults[..], [Fault::Rewritten { .. }, Fault::Altered { seq: 11 }]),
        "{verdict:?}"
    );
}

/// What a forger may change of an entry.
fn alter(entry: &mut AuditEntry, field: usize, hash: u8) {
    let texts = [
        &mut entry.who,
        &mut entry.serial,
        &mut entry.from,
        &mut entry.verb,
        &mut entry.target,
        &mut entry.result,
        &mut entry.detail,
        &mut entry.request_id,
    ];
    match field {
        0..8 => texts.into_iter().nth(field).expect("a field").push('x'),
        8 => entry.at_unix_ms += 1,
        _ => entry.hash[usize::from(hash % 32)] ^= 1,
    }
}

proptest! {
    #[test]
    fn an_altered_entry_is_found(length in 2_u64..40, at in any::<prop::sample::Index>(), field in 0_usize..10, hash in any::<u8>()) {
        let mut entries = chain(Chain::default(), length);
        let at = at.index(entries.len());
        alter(&mut entries[at], field, hash);
        let verdict = check(&entries, Vec::new());
        prop_assert!(!verdict.is_intact());
        let seq = at as u64 + 1;
        let altered = Fault::Altered { seq };
        prop_assert!(verdict.faults.contains(&altered), "{:?}", verdict);
    }

    #[test]
    fn a_removed_entry_is_found(length in 2_u64..40, at in any::<prop::sample::Index>()) {
        let mut entries = chain(Chain::default(), length);
        let last = entries.pop().expect("an entry");
        let at = at.index(entries.len());
        let seq = entries.remove(at).seq;
        entries.push(last);
        let verdict = check(&entries, Vec::new());
        prop_assert_eq!(verdict.faults, vec![Fault::Missing { first: seq, last: seq }]);
    }

    #[test]
    fn entries_in_another_order_are_found(length in 2_u64..40, one in any::<prop::sample::Index>(), other in any::<prop::sample::Index>()) {
        let mut entries = chain(Chain::default(), length);
        let (one, other) = (one.index(entries.len()), other.index(entries.len()));
        prop_assume!(one != other);
        entries.swap(one, other);
        prop_assert!(!check(&entries, Vec::new()).is_intact());
        // Nor does it help to give them the numbers of their new places.
        for (entry, seq) in entries.iter_mut().zip(1..) {
            entry.seq = seq;
        }
        prop_assert!(!check(&entries, Vec::new()).is_intact());
    }

    #[test]
    fn any_cut_tail_is_found_by_a_younger_witness(length in 1_u64..40, cut in 1_u64..40) {
        let entries = chain(Chain::default(), length);
        let cut = cut.min(length);
        let kept = &entries[..usize::try_from(length - cut).expect("small")];
        let verdict = check(kept, vec![head(&entries, length, EPOCH)]);
        prop_assert!(matches!(verdict.faults[..], [Fault::Cut { .. }]), "{:?}", verdict);
    }

    #[test]
    fn a_whole_chain_is_never_doubted(length in 0_u64..40, first in 0_u64..40, witnessed in 0_u64..40) {
        let entries = chain(Chain::default(), length);
        let first = first.min(length);
        let before = if first == 0 { GENESIS } else { entries[usize::try_from(first).expect("small") - 1].hash };
        let anchor = Anchor { first_seq: first + 1, before };
        let heads: Vec<_> = (1..=witnessed.min(length)).map(|count| head(&entries, count, EPOCH)).collect();
        let verdict = verify(anchor, &entries[usize::try_from(first).expect("small")..], heads, Some(EPOCH));
        prop_assert!(verdict.is_intact(), "{:?}", verdict);
    }
}
