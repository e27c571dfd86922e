//! Decodes arbitrary bytes as every message that can arrive from a peer: nothing may panic or take memory beyond its input's bound.
#![no_main]

#[path = "../decode_any.rs"]
mod decode_any;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| decode_any::decode_any(bytes));
