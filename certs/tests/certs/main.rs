//! The crate from outside: an authority on disk, what it issues, who is let in, and real TLS handshakes in memory.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may end at its first surprise")]

mod admission;
mod authority;
mod files;
mod handshake;
mod join;
mod request;
mod signature;
mod support;
mod time;
