//! The text of a systemd unit: sections, settings, and arguments that reach the program as they are meant. `systemd.syntax(7)`.

use std::{ffi::OsStr, fmt::Write, path::PathBuf};

/// A file of a service, below the root of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitFile {
    /// Where it lies, from the root and without a leading slash.
    pub path: PathBuf,
    /// What it contains.
    pub text: String,
}

/// A file of sections and settings while it is written.
#[derive(Clone, Debug, Default)]
pub struct Unit(String);

impl Unit {
    /// A file that opens with these lines of comment.
    #[must_use]
    pub fn new(comment: &[&str]) -> Self {
        Self(comment.iter().fold(String::new(), |text, line| text + "# " + line + "\n"))
    }

    /// Opens a section.
    #[must_use]
    pub fn section(mut self, name: &str) -> Self {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "\n[{name}]\n");
        self
    }

    /// Adds one setting.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        let _ = writeln!(self.0, "{key}={value}");
        self
    }

    /// Adds settings, one after the other.
    #[must_use]
    pub fn all(self, settings: &[(&str, &str)]) -> Self {
        settings.iter().fold(self, |unit, (key, value)| unit.set(key, value))
    }

    /// Adds lines of comment.
    #[must_use]
    pub fn comment(mut self, lines: &[&str]) -> Self {
        for line in lines {
            let _ = writeln!(self.0, "# {line}");
        }
        self
    }

    /// The text.
    #[must_use]
    pub fn text(self) -> String {
        self.0
    }
}

/// A command line as `ExecStart=` wants it.
///
/// # Errors
/// The argument that no unit can hold, as it is no UTF-8 or has a control in it.
pub fn command_line<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<String, String> {
    let quoted: Result<Vec<_>, _> = arguments.into_iter().map(quote).collect();
    Ok(quoted?.join(" "))
}

/// One argument: plain where that is safe, else in double quotes. Specifiers and variables are taken as they are written.
fn quote(argument: &OsStr) -> Result<String, String> {
    let text = argument
        .to_str()
        .filter(|text| !text.contains(char::is_control))
        .ok_or_else(|| format!("a unit cannot hold the argument {argument:?}"))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.,:=+@[]".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' | '$' => quoted.extend([c, c]),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    Ok(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_reach_the_program_as_they_are_meant() {
        let line = |arguments: &[&str]| command_line(arguments.iter().map(OsStr::new));
        assert_eq!(
            line(&["/usr/bin/x", "--labels", "a=b,c=d"]),
            Ok("/usr/bin/x --labels a=b,c=d".to_owned())
        );
        assert_eq!(
            line(&["", "a b", "50%", "$HOME", "\"\\", "a;b"]),
            Ok(r#""" "a b" "50%%" "$$HOME" "\"\\" "a;b""#.to_owned())
        );
        assert!(line(&["a\nExecStartPre=/bin/sh"]).is_err());
    }
}
