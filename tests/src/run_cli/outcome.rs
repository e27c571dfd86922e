//! What came of a command: its exit code, its data, its words.

use serde_json::Value;
use std::time::Duration;

/// What came of one command.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was run, for messages.
    pub command: String,
    /// Exit code; 128 + signal when it was killed.
    pub code: i32,
    /// Data.
    pub stdout: String,
    /// Texts for people.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// Asserts the exit code.
    ///
    /// # Panics
    /// When it is another one; shows everything that is known.
    #[track_caller]
    pub fn exits_with(&self, code: i32) -> &Self {
        assert_eq!(
            self.code, code,
            "`{}` after {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.took, self.stdout, self.stderr
        );
        self
    }

    /// The lines of a feed that was asked for with `--format json`.
    ///
    /// # Panics
    /// When a line is no JSON.
    #[must_use]
    pub fn feed(&self) -> Vec<Value> {
        self.stdout.lines().map(parse_line).collect()
    }

    /// What one node wrote, out of a feed that was asked for with `--format json`.
    #[must_use]
    pub fn output_of(&self, node: &str) -> Vec<String> {
        output_of(&self.feed(), node)
    }

    /// Asserts that stderr has all these texts, ignoring case.
    ///
    /// # Panics
    /// When one is missing.
    #[track_caller]
    pub fn says(&self, texts: &[&str]) -> &Self {
        let stderr = self.stderr.to_lowercase();
        for text in texts {
            assert!(
                stderr.contains(&text.to_lowercase()),
                "`{}` does not say `{text}`:\n{}",
                self.command,
                self.stderr
            );
        }
        self
    }
}

pub(super) fn parse_line(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

pub(super) fn output_of(feed: &[Value], node: &str) -> Vec<String> {
    feed.iter()
        .filter(|line| line["type"] == "log" && line["node"] == node)
        .map(|line| line["text"].as_str().expect("`text`").to_owned())
        .collect()
}
