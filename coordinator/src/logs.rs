//! Log lines: taken in by one thread, read by many followers. None of it passes the brain's queue, so that logs never delay control.

pub(crate) mod demand;
pub(crate) mod follow;
pub(crate) mod hub;
mod pace;
pub(crate) mod room;
