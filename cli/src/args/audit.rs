//! The flags of `audit`.

use super::Locally;
use crate::output::time::{Moment, parse_moment};
use clap::Args;
use std::path::PathBuf;

/// Show who did what and when.
#[derive(Debug, Args)]
pub struct Audit {
    /// Only what was done since then: a span such as 2h or 30d, or a time such as 2026-03-01T12:00:00Z or 2026-03-01 (UTC)
    #[arg(long, value_name = "TIME|DURATION", value_parser = parse_moment, conflicts_with = "verify")]
    pub since: Option<Moment>,
    /// Only what was done by those whose identity contains this text, ignoring case
    #[arg(long, value_name = "TEXT", conflicts_with = "verify")]
    pub who: Option<String>,
    /// Only this verb, as it stands in the audit
    #[arg(long, value_name = "VERB", conflicts_with = "verify")]
    pub verb: Option<String>,
    /// Go on with entries as they are made
    #[arg(short, long, conflicts_with = "verify")]
    pub follow: bool,
    /// Check the whole chain of entries against itself and against what daemons have witnessed
    #[arg(long)]
    pub verify: bool,
    /// The root certificate to check signatures with, where there is no identity of yours that pins it
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub root: Option<PathBuf>,
    /// Where to ask.
    #[command(flatten)]
    pub locally: Locally,
}
