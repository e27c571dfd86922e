//! Whole commands of the real binary against a scripted coordinator: what is asked, what is shown, how it ends.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod coordinator;
mod following;
mod identities;
mod laptop;
mod listing;
mod relay;
mod samples;
mod starting;
mod stopping;
