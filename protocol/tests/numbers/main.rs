//! Pinned numbers: the index on the wire of every variant of every enum, and the table of who may ask what.
//!
//! postcard writes an enum as the index of its variant, so reordering or removing a variant silently changes the language.
//! Variants are only ever added at the end; then a line is added here.

#![expect(clippy::expect_used, reason = "helpers of tests stand outside of test functions")]

mod engine;
mod grammar;
mod nouns;
mod verbs;

use dora_remote_protocol::{
    ids::{DataflowId, NodeId},
    refusal::{Refusal, RefusalCode},
};
use serde::Serialize;
use uuid::Uuid;

/// Asserts the index under which a variant travels; all indexes are below 128, so it is the first byte.
#[track_caller]
fn pinned<T: Serialize>(value: &T, index: u8) {
    let bytes = postcard::to_stdvec(value).expect("it can be encoded");
    assert_eq!(bytes[0], index);
}

fn no() -> Refusal {
    Refusal::new(RefusalCode::Denied, "")
}

fn run() -> DataflowId {
    DataflowId(Uuid::nil())
}

fn node() -> NodeId {
    "n".parse().expect("a good node id")
}

fn name() -> dora_remote_protocol::name::Name {
    "m".parse().expect("a good name")
}
