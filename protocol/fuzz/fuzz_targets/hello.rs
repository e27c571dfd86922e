//! Reads arbitrary bytes as the first frame of a connection: nothing may panic, and nothing may be taken for what it is not.
#![no_main]

#[expect(dead_code, reason = "`read_token` has a target of its own")]
#[path = "../read_untrusted.rs"]
mod read_untrusted;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| read_untrusted::read_hello(bytes));
