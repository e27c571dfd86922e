//! Replays the committed corpora of the fuzz targets `decode`, `token` and `hello`, so that what once broke a decoder stays mended.

#![expect(clippy::expect_used, reason = "helpers of tests stand outside of test functions")]

#[path = "../fuzz/decode_any.rs"]
mod decode_any;
#[path = "../fuzz/read_untrusted.rs"]
mod read_untrusted;

use std::path::Path;

/// Hands each file of a corpus to its target, and makes sure that there are some.
fn replay(corpus: &str, at_least: usize, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(corpus);
    let mut replayed = 0;
    for entry in std::fs::read_dir(&folder).expect("the committed corpus") {
        let path = entry.expect("a directory entry").path();
        let bytes = std::fs::read(&path).expect("a file of the corpus");
        target(&bytes);
        replayed += 1;
    }
    assert!(replayed >= at_least, "only {replayed} files in {}", folder.display());
}

#[test]
fn the_corpora_decode_or_are_refused() {
    replay("decode", 20, decode_any::decode_any);
    replay("token", 12, read_untrusted::read_token);
    replay("hello", 9, read_untrusted::read_hello);
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
