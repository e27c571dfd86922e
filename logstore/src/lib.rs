//! Durable log lines: numbered per dataflow, bounded in bytes, each stored once.
//!
//! - `store`: the database and what is written to it, in one transaction per [`LogStore::append`];
//! - `read`: pages of lines from a cursor;
//! - `tail`: the cursor of "the last so many";
//! - `filter`: which lines a reader wants;
//! - `times`: the times in each block, so that few blocks are read where times are limited;
//! - `evict`: what goes when the store is full;
//! - `block`: how lines stand in a compressed block;
//! - `file`: the open file, opened anew after a failure;
//! - `error`: what can go wrong.
//!
//! Everything blocks on the disk and belongs on a thread that may. Readers see a snapshot and never hold up the writer. Who may
//! read or write, and who waits for new lines, is the business of the programs above.

mod block;
mod error;
mod evict;
mod file;
mod filter;
mod read;
mod store;
mod tail;
mod times;

pub use error::LogStoreError;
pub use filter::{Filter, Since};
pub use read::Page;
pub use store::{Appended, Caps, LogStore};
pub use tail::TailSearch;
