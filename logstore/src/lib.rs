//! Durable log lines: numbered per dataflow, bounded in bytes, each stored once.
//!
//! - `store`: the database and what is written to it, in one transaction per [`LogStore::append`];
//! - `read`: pages of lines from a cursor, and the cursor of "the last so many";
//! - `block`: how lines stand in a compressed block;
//! - `error`: what can go wrong.
//!
//! Everything blocks on the disk and belongs on a thread that may. Readers see a snapshot and never hold up the writer. Who may
//! read or write, and who waits for new lines, is the business of the programs above.

mod block;
mod error;
mod evict;
mod read;
mod store;

pub use error::LogStoreError;
pub use read::{Filter, Page};
pub use store::{Appended, Caps, LogStore};
