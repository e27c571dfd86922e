//! The daemon: the agent on each machine. It dials the coordinator and never listens on the network.
//!
//! Work belongs to the daemon and its engine, not to the connection. From the outside in:
//!
//! - `run` wires the parts, `standing` tells how they stand;
//! - `session` stays joined to the coordinator and keeps its certificate alive, `handlers` takes its orders, `witness` remembers
//!   what it was seen to say, `shipper` carries log lines to it;
//! - `supervisor` is the one loop that owns all runs, `book` its pure account of them, `link_loss` tells it of silence;
//! - `policy` is what the machine's owner lets others start on it;
//! - `engine_keeper` keeps the engine child alive (`engine_child`, `environment`, `processes`, `strays`), `engine_client` talks with it;
//! - `workdir` and `unpack` bring files, `tail` follows output, `demand` says whether anybody wants it;
//! - `store` (on its `store_thread`) survives restarts, `records` is what it holds, `state_dir` where it lies.

mod book;
mod clock;
mod demand;
mod disk;
mod engine_child;
mod engine_client;
mod engine_keeper;
mod engine_standing;
mod environment;
mod handlers;
mod link_loss;
mod on_revoked;
mod policy;
mod processes;
mod records;
mod run;
mod seat;
mod session;
mod shipper;
mod standing;
mod state_dir;
mod store;
mod store_thread;
mod strays;
mod supervisor;
mod tail;
mod unpack;
mod witness;
mod workdir;

pub use disk::DiskCaps;
pub use on_revoked::OnRevoked;
pub use policy::{Policy, PolicyError};
pub use run::{DaemonConfig, DaemonError, run, run_and_tell};
pub use standing::Standing;
