//! A real engine with real Python nodes: what happens between an agent's orders and the processes on the machine.

#![expect(clippy::expect_used, reason = "tests")]

mod agents;
mod flows;
mod running;
mod stopping;
mod support;

/// Not a test by itself: the other tests start this binary as an engine.
#[test]
fn engine_child() {
    support::act_as_engine();
}
