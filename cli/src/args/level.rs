//! How much lines must matter to be shown, as `--level` says it. The words and their meaning are dora's.

use clap::ValueEnum;
use dora_remote_protocol::log_line::LogLevel;

/// Least level of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Errors.
    Error,
    /// Warnings and worse.
    Warn,
    /// Infos and worse.
    Info,
    /// Debug messages and worse.
    Debug,
    /// Everything that has a level.
    Trace,
    /// Everything, plain output included.
    Stdout,
}

/// What lines are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Least level of all lines; lines that say no level have none. None for every line.
    pub lines: Option<LogLevel>,
    /// Least level of the messages of machines.
    pub machines: Option<LogLevel>,
}

impl Levels {
    /// What a command line asks for. Where it says nothing, all output of nodes and of builds, and of the messages of machines what
    /// somebody should look at.
    #[must_use]
    pub fn of(level: Option<Level>) -> Self {
        let least = match level {
            None => {
                return Self {
                    lines: None,
                    machines: Some(LogLevel::Warn),
                };
            }
            Some(Level::Stdout) => None,
            Some(Level::Error) => Some(LogLevel::Error),
            Some(Level::Warn) => Some(LogLevel::Warn),
            Some(Level::Info) => Some(LogLevel::Info),
            Some(Level::Debug) => Some(LogLevel::Debug),
            Some(Level::Trace) => Some(LogLevel::Trace),
        };
        Self {
            lines: least,
            machines: least,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_quiet_unless_they_are_asked() {
        let levels = |level| {
            let Levels { lines, machines } = Levels::of(level);
            (lines, machines)
        };
        assert_eq!(levels(None), (None, Some(LogLevel::Warn)));
        assert_eq!(levels(Some(Level::Stdout)), (None, None));
        assert_eq!(levels(Some(Level::Info)), (Some(LogLevel::Info), Some(LogLevel::Info)));
    }
}
