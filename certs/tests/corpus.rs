//! Replays the committed corpora of the fuzz targets `request` and `admit`, so that what once passed a judge wrongly is refused.

#![expect(clippy::expect_used, reason = "helpers of tests stand outside of test functions")]

#[path = "../../protocol/fuzz/judge_certificates.rs"]
mod judge_certificates;

use std::path::Path;

/// Hands each file of a corpus to its target, whole and with each of its bytes changed, and makes sure that there are some.
fn replay(corpus: &str, at_least: usize, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../protocol/fuzz/corpus")
        .join(corpus);
    let mut replayed = 0;
    for entry in std::fs::read_dir(&folder).expect("the committed corpus") {
        let path = entry.expect("a directory entry").path();
        let mut bytes = std::fs::read(&path).expect("a file of the corpus");
        target(&bytes);
        for at in 0..bytes.len() {
            bytes[at] ^= 0x10;
            target(&bytes);
            bytes[at] ^= 0x10;
        }
        replayed += 1;
    }
    assert!(replayed >= at_least, "only {replayed} files in {}", folder.display());
}

#[test]
fn requests_are_read_or_refused() {
    replay("request", 8, judge_certificates::read_request);
}

#[test]
fn nobody_is_admitted_who_should_not_be() {
    replay("admit", 14, judge_certificates::judge_chain);
}
