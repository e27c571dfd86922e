//! Reads arbitrary bytes as a request for a certificate: nothing may panic, and nothing may be taken for what it is not.
#![no_main]

#[expect(dead_code, reason = "`judge_chain` has a target of its own")]
#[path = "../judge_certificates.rs"]
mod judge_certificates;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| judge_certificates::read_request(bytes));
