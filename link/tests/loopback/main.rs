//! Dialler and acceptor against each other: real QUIC over loopback, real certificates, one process, port 0.

#![expect(clippy::expect_used, reason = "a test says what it expects and fails when that is wrong")]

mod calls;
mod endings;
#[path = "../../../tests/src/held_port.rs"]
mod held_port;
mod joining;
mod lives;
mod raw;
mod refusals;
mod round_trips;
mod slowness;
mod sockets;
mod world;
