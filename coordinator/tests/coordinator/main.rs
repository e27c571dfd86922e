//! A whole coordinator over real QUIC, with scripted daemons: it is killed and comes back, machines go and come back.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests may stop at what must not happen")]

mod access;
mod auditing;
mod clones;
mod following;
mod joining;
mod lapsing;
mod local;
mod parts;
mod restoring;
mod returning;
mod revoking;
mod scopes;
mod starting;
mod support;
mod witness;
