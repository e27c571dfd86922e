//! Replays the committed corpus of the fuzz target `decode`, so that what once broke a decoder stays mended.

#![expect(clippy::expect_used, reason = "helpers of tests stand outside of test functions")]

#[path = "../fuzz/decode_any.rs"]
mod decode_any;

use std::path::Path;

#[test]
fn the_corpus_decodes_or_is_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/decode");
    let mut replayed = 0;
    for entry in std::fs::read_dir(&folder).expect("the committed corpus") {
        let path = entry.expect("a directory entry").path();
        let bytes = std::fs::read(&path).expect("a file of the corpus");
        decode_any::decode_any(&bytes);
        replayed += 1;
    }
    assert!(replayed >= 20, "only {replayed} files in {}", folder.display());
}

#[test]
fn every_kind_refuses_lengths_that_promise_more_than_there_is() {
    for kind in 0..=255_u8 {
        decode_any::decode_any(&[kind]);
        for body in [
            &[0xff_u8; 12][..],
            &[0, 0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0x80; 40],
            &[0xff, 0xff, 0xff, 0xff],
        ] {
            let mut bytes = vec![kind];
            bytes.extend_from_slice(body);
            decode_any::decode_any(&bytes);
        }
    }
}
