//! Dataflows: their records, their lives, where their nodes go, and the table of them all. Pure: no I/O and no clock.

pub(crate) mod machine;
pub(crate) mod placement;
pub(crate) mod record;
pub(crate) mod sight;
pub(crate) mod table;

#[cfg(test)]
pub(crate) mod samples;
