//! Log lines: as a daemon ships them, and as a follower reads them.

use crate::{
    ids::{DataflowId, NodeId},
    name::MachineName,
    packed::Packed,
};
use serde::{Deserialize, Serialize};

/// Where a line comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LogSource {
    /// Output of a node.
    Node(NodeId),
    /// Messages of the machine about the dataflow: its daemon, its engine, dora's spawner.
    Machine,
    /// Output of `build:` commands.
    Build,
}

/// How a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LogStream {
    /// Standard output of a node.
    Stdout,
    /// Standard error of a node.
    Stderr,
    /// Neither: a message.
    Message,
}

/// How much a line matters, where it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LogLevel {
    /// Broken.
    Error,
    /// Look soon.
    Warn,
    /// A state changed.
    Info,
    /// A decision.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The level as people and JSON see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// One line as a daemon ships it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Position behind this line in its source: grows from line to line within an epoch. For node output the bytes of the JSONL
    /// files up to and with this line, counted over rotations; for messages a running number.
    pub offset: u64,
    /// When it was written, in milliseconds since the Unix epoch, by the machine's clock, never later than its arrival there.
    pub at_unix_ms: u64,
    /// How it was written.
    pub stream: LogStream,
    /// How much it matters, where it says so.
    pub level: Option<LogLevel>,
    /// The line without its end, at most [`crate::limits::MAX_LOG_LINE_BYTES`].
    pub text: String,
}

/// Consecutive lines of one source. It travels as [`crate::daemon_to_coordinator::ShipLogs`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogBatch {
    /// Which run.
    pub dataflow: DataflowId,
    /// Which source.
    pub source: LogSource,
    /// Which life of the source: offsets of different epochs do not compare. A later epoch has a larger number.
    pub epoch: u64,
    /// Lines that the machine lost before the first of these, or 0.
    pub lost_before: u64,
    /// The lines, offsets rising.
    pub records: Vec<LogRecord>,
}

/// One line as a follower reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Number within the dataflow, from 1, given by the coordinator in the order of arrival: the cursor of a follower.
    pub seq: u64,
    /// Where it was written.
    pub machine: MachineName,
    /// What wrote it.
    pub source: LogSource,
    /// How it was written.
    pub stream: LogStream,
    /// How much it matters, where it says so.
    pub level: Option<LogLevel>,
    /// See [`LogRecord::at_unix_ms`].
    pub at_unix_ms: u64,
    /// The line without its end.
    pub text: String,
}

/// One item of a feed of log lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogItem {
    /// The next lines, sequence numbers rising: see [`Packed::lines`].
    Lines(Packed),
    /// Lines that no longer exist: evicted here, or lost on the machine.
    Gap {
        /// How many, where that is known.
        lines: u64,
        /// The next line has a sequence number above this one.
        next_after: u64,
    },
    /// All that existed when the feed was opened was sent; what follows is live.
    CaughtUp,
    /// The reader takes lines more slowly than they come. Sent now and then while that is so; the lines themselves follow.
    Lag {
        /// Lines that are stored and were not sent yet, those that the reader did not ask for included.
        lines: u64,
        /// How long ago the next of them was stored, in milliseconds; at least that, where it is no longer known exactly.
        milliseconds: u64,
    },
    /// Up to this number there is nothing more that was asked for: where a reader goes on after a cut.
    Passed {
        /// The next line has a sequence number above this one.
        next_after: u64,
    },
    /// These machines ship lines on demand, and are being asked for what they have; the lines follow.
    Fetching {
        /// Which machines.
        machines: Vec<MachineName>,
    },
    /// A machine that ships lines on demand has not brought all that it has: what follows is an older copy.
    Unfetched {
        /// Which machine.
        machine: MachineName,
        /// Since when it cannot be reached, in milliseconds since the Unix epoch; none when it is connected and brings nothing.
        unreachable_since_unix_ms: Option<u64>,
        /// When the newest line of the copy was written, in milliseconds since the Unix epoch; none when there is no line.
        newest_unix_ms: Option<u64>,
    },
}
