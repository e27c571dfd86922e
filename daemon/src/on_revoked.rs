//! What becomes of running dataflows when this machine is shut out.

use serde::Deserialize;

/// What a daemon does with its runs when its certificate was revoked. In both cases it goes on asking for its coordinator, slowly:
/// somebody may put new credentials in place of the revoked ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRevoked {
    /// They go on.
    #[default]
    Keep,
    /// They are stopped with the default grace.
    Stop,
}
