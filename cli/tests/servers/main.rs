//! What takes care of servers, by the real program: services, the audit, backups.
#![cfg(feature = "server")]
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod audit;
mod backup;
#[path = "../../../tests/src/held_port.rs"]
mod held_port;
mod home;
mod services;
mod site;
mod threat_model;
