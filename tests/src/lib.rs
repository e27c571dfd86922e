//! Support of the whole-program tests: nothing here is a test, and nothing here knows how the program works inside.
//!
//! - [`binary`], [`run_cli`]: the program under test, run as people run it;
//! - [`cluster`], [`processes`]: an authority, a coordinator and daemons as real processes, and their end;
//! - [`netns`]: a laptop, a cloud, a home router and a robot behind it, as network namespaces;
//! - [`flows`], [`lines`], [`python`]: dataflows to start, what they print, the interpreter for their nodes;
//! - [`relay`], [`faults`]: a bad network in user space, and a flow with a follower that counts over whatever happens;
//! - [`raw_peer`], [`raw_ask`]: peers that break the rules, or ask whatever they like;
//! - [`patience`]: the one way to wait.

pub mod binary;
pub mod cluster;
pub mod faults;
pub mod flows;
mod held_port;
pub mod lines;
pub mod netns;
pub mod patience;
pub mod processes;
pub mod python;
pub mod raw_ask;
pub mod raw_peer;
pub mod relay;
pub mod run_cli;
pub mod small_disk;
