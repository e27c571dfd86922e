//! The language of dora-remote: who speaks, what is said, who may say it, and what is promised.
//!
//! Pure: no I/O, no clock, no runtime. From the ground up:
//!
//! - [`name`], [`identity`], [`ids`], [`version`], [`limits`]: the words;
//! - [`frame`], [`chunk`], [`refusal`], [`request`], [`hello`]: the grammar, as it stands on every stream;
//! - [`dataflow`], [`machine`], [`log_line`], [`packed`], [`invite`]: the nouns;
//! - [`access`], [`audit`], [`backup`]: who may come in, who did what, and how neither is forgotten;
//! - [`cli_to_coordinator`], [`coordinator_to_daemon`], [`daemon_to_coordinator`], [`verbs`]: what is said over QUIC;
//! - [`agent_to_engine`], [`engine_to_agent`]: what is said over the unix socket between a daemon and its engine.

pub mod access;
pub mod agent_to_engine;
pub mod audit;
pub mod backup;
pub mod chunk;
pub mod cli_to_coordinator;
pub mod coordinator_to_daemon;
pub mod daemon_to_coordinator;
pub mod dataflow;
pub mod engine_to_agent;
pub mod frame;
pub mod hello;
pub mod identity;
pub mod ids;
pub mod invite;
pub mod limits;
pub mod log_line;
pub mod machine;
pub mod name;
pub mod packed;
pub mod refusal;
pub mod request;
pub mod verbs;
pub mod version;
