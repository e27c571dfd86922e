//! Environment variables for the nodes from the command line: `--env K=V`, `--env K`, `--env-file FILE`.
//!
//! Values may be secrets: they appear in no message of this file. Merging them into a descriptor is not done here.

use std::{ffi::OsString, fs, io, path::Path, path::PathBuf};
use thiserror::Error;

/// Variables in the order in which they were given; a later one replaces an earlier one of the same name.
pub type Variables = Vec<(String, String)>;

/// Why variables cannot be used. No value appears in any of these texts.
#[derive(Debug, Error)]
pub enum EnvError {
    /// A name that no process could have.
    #[error("`{name}` is not the name of an environment variable (letters, digits and `_`, not starting with a digit)")]
    BadName {
        /// The name.
        name: String,
    },
    /// A bare name that is not set where the command is typed.
    #[error("`--env {name}` takes the value from the environment, where `{name}` is not set or not UTF-8")]
    NotSet {
        /// The name.
        name: String,
    },
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of the file is no assignment.
    #[error("{}:{line}: expected NAME=VALUE", path.display())]
    BadLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

/// Puts together what the files say and what the command line says, which wins.
///
/// # Errors
/// [`EnvError`] when one of them cannot be used.
pub fn collect(files: &[PathBuf], settings: &[String], env: &dyn Fn(&str) -> Option<OsString>) -> Result<Variables, EnvError> {
    let mut variables = Variables::new();
    for path in files {
        for (name, value) in read_file(path)? {
            set(&mut variables, name, value)?;
        }
    }
    for setting in settings {
        let (name, value) = match setting.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => {
                let value = env(setting).and_then(|value| value.into_string().ok());
                let value = value.ok_or_else(|| EnvError::NotSet {
                    name: setting.escape_debug().to_string(),
                })?;
                (setting.clone(), value)
            }
        };
        set(&mut variables, name, value)?;
    }
    Ok(variables)
}

/// Reads a file of `NAME=VALUE` lines: blank lines and `#` lines are skipped, `export ` and quotes around the whole value go,
/// nothing is expanded.
///
/// # Errors
/// [`EnvError::Unreadable`], [`EnvError::BadLine`].
pub fn read_file(path: &Path) -> Result<Variables, EnvError> {
    let text = fs::read_to_string(path).map_err(|source| EnvError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let mut variables = Variables::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').ok_or_else(|| EnvError::BadLine {
            path: path.to_owned(),
            line: index + 1,
        })?;
        variables.push((name.trim().to_owned(), unquoted(value.trim()).to_owned()));
    }
    Ok(variables)
}

fn set(variables: &mut Variables, name: String, value: String) -> Result<(), EnvError> {
    let good_start = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !good_start || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(EnvError::BadName {
            name: name.escape_debug().to_string(),
        });
    }
    variables.retain(|(known, _)| *known != name);
    variables.push((name, value));
    Ok(())
}

fn unquoted(value: &str) -> &str {
    ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn nothing_set(_: &str) -> Option<OsString> {
        None
    }

    #[test]
    fn the_command_line_wins_over_files_and_bare_names_take_the_environment() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        writeln!(file, "# comment\n\nA=from file\nexport B=\"quoted $X\"\nC='x=y'\nEMPTY=").expect("written");
        let env = |name: &str| (name == "HERE").then(|| OsString::from("taken"));
        let settings = ["A=typed=twice".to_owned(), "HERE".to_owned()];
        let variables = collect(&[file.path().to_owned()], &settings, &env).expect("good");
        let expected = [
            ("B", "quoted $X"),
            ("C", "x=y"),
            ("EMPTY", ""),
            ("A", "typed=twice"),
            ("HERE", "taken"),
        ];
        let found: Vec<_> = variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn mistakes_are_named_and_values_are_not() {
        let error = collect(&[], &["1X=topsecret".to_owned()], &nothing_set).expect_err("bad name");
        assert!(!error.to_string().contains("topsecret"));
        let error = collect(&[], &["NOT_SET".to_owned()], &nothing_set).expect_err("not set");
        assert!(error.to_string().contains("`NOT_SET` is not set"));
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        writeln!(file, "A=1\ntopsecret").expect("written");
        let error = read_file(file.path()).expect_err("no assignment");
        assert!(error.to_string().ends_with(":2: expected NAME=VALUE"), "{error}");
    }
}
