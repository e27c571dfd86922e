//! Reads arbitrary text as the token of an invite: nothing may panic, and nothing may be taken for what it is not.
#![no_main]

#[expect(dead_code, reason = "`read_hello` has a target of its own")]
#[path = "../read_untrusted.rs"]
mod read_untrusted;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| read_untrusted::read_token(bytes));
