//! A whole daemon against a scripted coordinator and a scripted engine: real QUIC over loopback, real processes, no dora.

#![expect(clippy::expect_used, reason = "a test says what it expects and fails when that is wrong")]

mod clocks;
mod copies;
mod fake_coordinator;
mod fake_engine;
mod files;
#[path = "../../../tests/src/held_port.rs"]
mod held_port;
mod life;
mod link_loss;
mod log;
mod policy;
mod relay;
mod renewal;
mod shut_out;
mod silence;
mod trust;
mod upgrade;
mod witness;
mod world;
