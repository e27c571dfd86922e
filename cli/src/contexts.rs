//! The contexts of this user: a coordinator, an identity and a default machine under one name, kept in one file.
//!
//! Reading, checking and replacing that file is all that is done here. Which context is meant is decided in [`crate::target`].

use crate::link_loss;
use dora_remote_link::Address;
use dora_remote_protocol::{
    dataflow::LinkLoss,
    name::{MachineName, Name},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;
use thiserror::Error;

/// Name of the file within the configuration directory.
const FILE: &str = "contexts.toml";
/// Beside it, locked while the file is replaced.
const LOCK: &str = "contexts.lock";

/// Every context, and which of them is the current one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Contexts {
    /// The context that is meant when nothing else is said. It may name one that is gone; whoever needs it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Name>,
    /// The contexts by name.
    #[serde(default)]
    pub contexts: BTreeMap<Name, Entry>,
}

/// What one context says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Entry {
    /// Where its coordinator is.
    #[serde(serialize_with = "write_address", deserialize_with = "read_address")]
    pub coordinator_addr: Address,
    /// Directory with the certificate, the key and the root, absolute; the user's own one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "read_directory")]
    pub identity: Option<PathBuf>,
    /// The machine for nodes that name none, when the command line names none either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineName>,
    /// What becomes of dataflows that say nothing themselves when a machine does not hear the coordinator.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "link_loss::as_text")]
    pub on_link_loss: Option<LinkLoss>,
}

/// Why the contexts cannot be read or changed.
#[derive(Debug, Error)]
pub enum ContextsError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file does not say what it should.
    #[error("{}:{line}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// The file cannot be replaced; it is as it was.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another command replaces the file at this moment.
    #[error("another command is changing {}", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The contexts cannot be put into words.
    #[error("cannot write {} as TOML", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// Why.
        source: toml::ser::Error,
    },
}

impl Contexts {
    /// Reads the contexts in a configuration directory; none when there is no file.
    ///
    /// # Errors
    /// [`ContextsError::Read`], or [`ContextsError::Content`] with the line of what is wrong: unknown keys are.
    pub fn read(config_dir: &Path) -> Result<Self, ContextsError> {
        let path = file_in(config_dir);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(ContextsError::Read { path, source }),
        };
        toml::from_str(&text).map_err(|error| ContextsError::Content {
            path,
            line: line_of(&text, &error),
            message: error.message().to_owned(),
        })
    }

    /// Reads the contexts, has them changed and replaces the file, whole or not at all. Nothing is written when `change` fails.
    /// Two commands that change the file at once do not undo each other's work: the later one is told to come again.
    ///
    /// # Errors
    /// [`ContextsError`], or what `change` says.
    pub fn change<T, E: From<ContextsError>>(config_dir: &Path, change: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        let _lock = lock(config_dir)?;
        let mut contexts = Self::read(config_dir)?;
        let done = change(&mut contexts)?;
        contexts.write(config_dir)?;
        Ok(done)
    }

    /// The context that is called so, letter by letter or else ignoring case, under the name that it was given.
    #[must_use]
    pub fn find(&self, name: &Name) -> Option<(&Name, &Entry)> {
        self.contexts
            .get_key_value(name)
            .or_else(|| self.contexts.iter().find(|(known, _)| known.same_as(name)))
    }

    fn write(&self, config_dir: &Path) -> Result<(), ContextsError> {
        let path = file_in(config_dir);
        let text = toml::to_string_pretty(self).map_err(|source| ContextsError::Encode {
            path: path.clone(),
            source,
        })?;
        let replaced = replace(config_dir, &path, &text);
        replaced.map_err(|source| ContextsError::Write { path, source })
    }
}

/// The line of a TOML text that an error is about, from 1.
pub(crate) fn line_of(text: &str, error: &toml::de::Error) -> usize {
    error
        .span()
        .map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1)
}

/// The file with the contexts within a configuration directory.
#[must_use]
pub fn file_in(config_dir: &Path) -> PathBuf {
    config_dir.join(FILE)
}

fn lock(config_dir: &Path) -> Result<File, ContextsError> {
    let open = || {
        DirBuilder::new().recursive(true).mode(0o700).create(config_dir)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.open(config_dir.join(LOCK))
    };
    let path = file_in(config_dir);
    let file = match open() {
        Ok(file) => file,
        Err(source) => return Err(ContextsError::Write { path, source }),
    };
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(ContextsError::Busy { path }),
        Err(fs::TryLockError::Error(source)) => Err(ContextsError::Write { path, source }),
    }
}

/// Temporary file (mode 0600), fsync, rename, fsync of the directory.
fn replace(dir: &Path, path: &Path, text: &str) -> io::Result<()> {
    let mut temporary = NamedTempFile::new_in(dir)?;
    temporary.write_all(text.as_bytes())?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

fn write_address<S: Serializer>(address: &Address, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(address)
}

fn read_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(de::Error::custom)
}

fn read_directory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.is_absolute() {
        return Ok(Some(path));
    }
    Err(de::Error::custom(format!("`{}` is not an absolute path", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    fn lab() -> Entry {
        Entry {
            coordinator_addr: "robots.example.com".parse().expect("an address"),
            identity: Some(PathBuf::from("/home/ann/lab")),
            machine: Some(name("robot-7")),
            on_link_loss: Some(LinkLoss::StopAfter { silence_ms: 30_000 }),
        }
    }

    fn add(dir: &Path, called: &str, entry: Entry) -> Result<(), ContextsError> {
        Contexts::change(dir, |contexts| {
            contexts.contexts.insert(name(called), entry);
            Ok(())
        })
    }

    #[test]
    fn contexts_survive_their_file_which_is_private() {
        let home = tempfile::tempdir().expect("a directory");
        let dir = home.path().join("made/when/needed");
        assert_eq!(Contexts::read(&dir).expect("no file"), Contexts::default());
        add(&dir, "lab", lab()).expect("written");
        let plain = Entry {
            identity: None,
            machine: None,
            on_link_loss: None,
            coordinator_addr: "[2001:db8::7]:7".parse().expect("an address"),
        };
        add(&dir, "plain", plain.clone()).expect("written");
        let read = Contexts::read(&dir).expect("good");
        assert_eq!(read.contexts[&name("lab")], lab());
        assert_eq!(read.contexts[&name("plain")], plain);
        let mode = fs::metadata(file_in(&dir)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mode = fs::metadata(&dir).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let left: Vec<_> = fs::read_dir(&dir).expect("listed").collect();
        assert_eq!(left.len(), 2, "the file and its lock, and nothing temporary: {left:?}");
    }

    #[test]
    fn what_is_wrong_with_the_file_is_told_with_its_line() {
        let dir = tempfile::tempdir().expect("a directory");
        for (text, line, words) in [
            ("curent = \"a\"\n", 1, "unknown field `curent`"),
            (
                "[contexts.a]\ncoordinator-addr = \"h\"\nidentiti = \"/x\"\n",
                3,
                "unknown field `identiti`",
            ),
            ("[contexts.a]\nmachine = \"m\"\n", 1, "missing field `coordinator-addr`"),
            ("\n[contexts.a]\ncoordinator-addr = \"a:b:c:d\"\n", 3, ""),
            (
                "[contexts.a]\ncoordinator-addr = \"h\"\non-link-loss = \"stop\"\n",
                3,
                "`stop` is neither",
            ),
            (
                "[contexts.a]\ncoordinator-addr = \"h\"\nidentity = \"lab\"\n",
                3,
                "`lab` is not an absolute path",
            ),
            ("[contexts.\"a b\"]\ncoordinator-addr = \"h\"\n", 1, "`a b`"),
            ("current = \n", 1, ""),
            ("[contexts.a]\n\u{0}\u{1}", 2, ""),
        ] {
            fs::write(file_in(dir.path()), text).expect("written");
            let error = Contexts::read(dir.path()).expect_err(text).to_string();
            assert!(error.contains(&format!("contexts.toml:{line}: ")), "{text}: {error}");
            assert!(error.contains(words), "{text}: {error}");
        }
        fs::write(file_in(dir.path()), [0xff, 0xfe]).expect("written");
        assert!(matches!(Contexts::read(dir.path()), Err(ContextsError::Read { .. })));
    }

    #[test]
    fn a_file_that_is_damaged_is_not_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(file_in(dir.path()), "no toml").expect("written");
        assert!(add(dir.path(), "lab", lab()).is_err());
        assert_eq!(fs::read_to_string(file_in(dir.path())).expect("there"), "no toml");
    }

    #[test]
    fn a_change_that_fails_changes_nothing_and_two_at_once_do_not_meet() {
        let dir = tempfile::tempdir().expect("a directory");
        add(dir.path(), "lab", lab()).expect("written");
        let failed: Result<(), ContextsError> = Contexts::change(dir.path(), |contexts| {
            contexts.contexts.clear();
            let busy = add(dir.path(), "other", lab());
            assert!(matches!(busy, Err(ContextsError::Busy { .. })), "{busy:?}");
            Err(ContextsError::Busy { path: PathBuf::new() })
        });
        assert!(failed.is_err());
        assert_eq!(Contexts::read(dir.path()).expect("good").contexts.len(), 1);
    }

    #[test]
    fn names_are_found_ignoring_case() {
        let contexts = Contexts {
            contexts: [(name("Lab"), lab())].into(),
            ..Contexts::default()
        };
        assert_eq!(contexts.find(&name("lAB")).expect("found").0, &name("Lab"));
        assert!(contexts.find(&name("labs")).is_none());
    }
}
