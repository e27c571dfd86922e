//! The daemon: the agent on each machine. It dials the coordinator and never listens on the network.
//!
//! Work belongs to the daemon and its engine, not to the connection. From the outside in:
//!
//! - `session` stays joined to the coordinator, `handlers` takes its orders, `shipper` carries log lines to it;
//! - `supervisor` is the one loop that owns all runs, `book` its pure account of them;
//! - `engine_keeper` keeps the engine child alive (`engine_child`, `environment`, `processes`), `engine_client` talks with it;
//! - `workdir` and `unpack` bring files, `tail` follows output;
//! - `store` (on its `store_thread`) survives restarts, `records` is what it holds, `state_dir` where it lies.

mod book;
mod clock;
mod engine_child;
mod engine_client;
mod engine_keeper;
mod environment;
mod handlers;
mod processes;
mod records;
mod run;
mod session;
mod shipper;
mod state_dir;
mod store;
mod store_thread;
mod supervisor;
mod tail;
mod unpack;
mod workdir;

pub use run::{DaemonConfig, DaemonError, run};
