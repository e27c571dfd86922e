//! Whole commands of the real binary against a real coordinator of it: who may come in, and who may not any more.
#![cfg(feature = "server")]
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../../../tests/src/held_port.rs"]
mod held_port;
mod invites;
mod joining;
mod leftovers;
mod patience;
mod renewing;
mod revoking;
mod world;
