//! What nodes are expected to print, and how a test says which line is missing, doubled or out of order.

/// Numbers that stand behind `word` in these lines, in their order: `tick 7 at 123` has 7 behind `tick`.
#[must_use]
pub fn numbers(lines: &[String], word: &str) -> Vec<u64> {
    lines
        .iter()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip_while(|found| *found != word);
            words.nth(1)?.trim_end_matches(',').parse().ok()
        })
        .collect()
}

/// Asserts that there are numbers, and that they rise: none doubled, none out of order. For what nodes receive from each other:
/// dora may drop what is sent before the receiver is linked.
///
/// # Panics
/// When there are none, or one does not rise.
#[track_caller]
pub fn assert_rising(what: &str, found: &[u64]) {
    assert!(!found.is_empty(), "{what}: there is none");
    assert!(found.is_sorted_by(|a, b| a < b), "{what}: {found:?}");
}

/// Asserts that numbers are `first`, `first + 1` and so on: none missing, none doubled, none out of order.
///
/// # Panics
/// When there are none, or one is; names the first one.
#[track_caller]
pub fn assert_whole(what: &str, found: &[u64], first: u64) {
    assert!(!found.is_empty(), "{what}: there is none");
    for (wanted, found) in (first..).zip(found) {
        assert_eq!(*found, wanted, "{what}: {found} stands where {wanted} should");
    }
}
