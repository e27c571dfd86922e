//! Coordinator and daemon as services of a machine: what systemd is told while they run, and the units that run them.
//!
//! - [`notify`] speaks with the service manager of a running server;
//! - [`units`] says what the files of a service contain, and [`mod@unit`] how such a file is written;
//! - [`place`] puts them where they belong.

pub mod notify;
pub mod place;
pub mod unit;
pub mod units;
