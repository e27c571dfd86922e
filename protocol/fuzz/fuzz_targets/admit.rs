//! Judges arbitrary chains of certificates, as the coordinator does in each handshake: nothing may panic, and nothing may be taken for what it is not.
#![no_main]

#[expect(dead_code, reason = "`read_request` has a target of its own")]
#[path = "../judge_certificates.rs"]
mod judge_certificates;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| judge_certificates::judge_chain(bytes));
