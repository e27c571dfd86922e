//! What a coordinator is told: a TOML file and flags become one checked [`CoordinatorConfig`]. Flags beat the file.

mod lives;

pub use lives::{Lives, LivesOptions, Span, SpanError};

use dora_remote_certs::{Clock, SystemClock};
use dora_remote_link::Address;
use dora_remote_protocol::{identity::TrustDomain, invite::MAX_INVITE_ADDRESSES, limits::DEFAULT_PORT, name::Name};
use serde::Deserialize;
use std::{
    fs, io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use thiserror::Error;

/// Everything that a coordinator needs to know.
#[derive(Clone, Debug)]
pub struct CoordinatorConfig {
    /// Where to listen; `[::]` takes IPv4 too.
    pub listen: SocketAddr,
    /// Where everything that must outlive a restart lies; made with mode 0700 when absent.
    pub state_dir: PathBuf,
    /// Where its certificate comes from.
    pub identity: IdentitySource,
    /// Bytes of compressed log lines in all.
    pub log_bytes: u64,
    /// Bytes of compressed log lines of one dataflow.
    pub log_bytes_per_dataflow: u64,
    /// Free space of the disk below which no log lines are stored; when absent, 1 GiB or a twentieth of the disk, whichever is less.
    pub free_bytes: Option<u64>,
    /// Bytes of uploaded bundles in all.
    pub bundle_bytes: u64,
    /// Addresses that invites name, in the order of trying: `HOST` or `HOST:PORT`, at most [`MAX_INVITE_ADDRESSES`].
    pub advertise: Vec<String>,
    /// How long the certificates live that it issues.
    pub lives: Lives,
    /// How long after the end of its certificate a daemon may still renew it.
    pub renew_window: Duration,
    /// The time by which certificates are judged and issued, and which records carry.
    pub clock: Arc<dyn Clock>,
}

/// Where a coordinator's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentitySource {
    /// The coordinator holds the authority in this folder and issues its own certificate, again and again.
    Authority {
        /// The folder that `certs init` has made.
        dir: PathBuf,
        /// Name in the certificate.
        name: Name,
        /// When the folder does not exist, an authority for this trust domain is made there.
        trust_domain: Option<TrustDomain>,
    },
    /// The certificate was issued elsewhere and lies in this folder; it is read again before it ends.
    Credentials(PathBuf),
}

/// The settings as they may stand in a file or in flags; none of them must.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Options {
    /// See [`CoordinatorConfig::listen`]; all addresses and port 6013 when absent.
    pub listen: Option<SocketAddr>,
    /// See [`CoordinatorConfig::state_dir`].
    pub state_dir: Option<PathBuf>,
    /// See [`IdentitySource::Authority`].
    pub authority_dir: Option<PathBuf>,
    /// See [`IdentitySource::Credentials`].
    pub credentials_dir: Option<PathBuf>,
    /// Name in the certificate that the coordinator issues to itself; `coordinator` when absent.
    pub name: Option<Name>,
    /// See [`CoordinatorConfig::log_bytes`]; 4 GiB when absent.
    pub log_bytes: Option<u64>,
    /// See [`CoordinatorConfig::log_bytes_per_dataflow`]; 512 MiB when absent.
    pub log_bytes_per_dataflow: Option<u64>,
    /// See [`CoordinatorConfig::free_bytes`].
    pub free_bytes: Option<u64>,
    /// See [`CoordinatorConfig::bundle_bytes`]; 1 GiB when absent.
    pub bundle_bytes: Option<u64>,
    /// See [`CoordinatorConfig::advertise`]; none when absent.
    pub advertise: Option<Vec<String>>,
    /// Trust domain of the authority that is made when the folder of [`Self::authority_dir`] does not exist; none is when absent.
    pub trust_domain: Option<TrustDomain>,
    /// See [`CoordinatorConfig::lives`].
    #[serde(default)]
    pub lives: LivesOptions,
    /// See [`CoordinatorConfig::renew_window`]; ten years when absent.
    pub renew_window: Option<Span>,
}

impl Options {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`] when it cannot be read, or names the line of what is wrong: unknown keys are.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|error| ConfigError::Content {
            path: path.to_owned(),
            line: error
                .span()
                .map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1),
            message: error.message().to_owned(),
        })
    }

    /// These settings, and `others` where these say nothing. Naming one source of the certificate overrides the other one.
    #[must_use]
    pub fn over(self, others: Self) -> Self {
        let names_source = self.authority_dir.is_some() || self.credentials_dir.is_some();
        let other_source = |dir: Option<PathBuf>| dir.filter(|_| !names_source);
        Self {
            listen: self.listen.or(others.listen),
            state_dir: self.state_dir.or(others.state_dir),
            authority_dir: self.authority_dir.or_else(|| other_source(others.authority_dir)),
            credentials_dir: self.credentials_dir.or_else(|| other_source(others.credentials_dir)),
            name: self.name.or(others.name),
            log_bytes: self.log_bytes.or(others.log_bytes),
            log_bytes_per_dataflow: self.log_bytes_per_dataflow.or(others.log_bytes_per_dataflow),
            free_bytes: self.free_bytes.or(others.free_bytes),
            bundle_bytes: self.bundle_bytes.or(others.bundle_bytes),
            advertise: self.advertise.or(others.advertise),
            trust_domain: self.trust_domain.or(others.trust_domain),
            lives: self.lives.over(others.lives),
            renew_window: self.renew_window.or(others.renew_window),
        }
    }

    /// Checks the settings and fills in what they leave open.
    ///
    /// # Errors
    /// [`ConfigError::Missing`], [`ConfigError::Contradiction`] or [`ConfigError::Bad`].
    pub fn checked(self) -> Result<CoordinatorConfig, ConfigError> {
        let name = match self.name {
            Some(name) => name,
            None => "coordinator".parse().map_err(|_| ConfigError::Missing { key: "name" })?,
        };
        let identity = match (self.authority_dir, self.credentials_dir) {
            (Some(dir), None) => IdentitySource::Authority {
                dir,
                name,
                trust_domain: self.trust_domain,
            },
            (None, Some(dir)) => IdentitySource::Credentials(dir),
            (None, None) => return Err(ConfigError::Missing { key: "authority-dir" }),
            (Some(_), Some(_)) => {
                return Err(ConfigError::Contradiction {
                    first: "authority-dir",
                    second: "credentials-dir",
                });
            }
        };
        Ok(CoordinatorConfig {
            listen: self
                .listen
                .unwrap_or(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), DEFAULT_PORT)),
            state_dir: self.state_dir.ok_or(ConfigError::Missing { key: "state-dir" })?,
            identity,
            log_bytes: self.log_bytes.unwrap_or(4 << 30),
            log_bytes_per_dataflow: self.log_bytes_per_dataflow.unwrap_or(512 << 20),
            free_bytes: self.free_bytes,
            bundle_bytes: self.bundle_bytes.unwrap_or(1 << 30),
            advertise: addresses(self.advertise.unwrap_or_default())?,
            lives: self.lives.checked()?,
            renew_window: self.renew_window.map_or(RENEW_WINDOW, |span| span.0),
            clock: Arc::new(SystemClock),
        })
    }
}

/// Checks addresses that invites are to name, and writes each with its port.
fn addresses(texts: Vec<String>) -> Result<Vec<String>, ConfigError> {
    let bad = |reason: String| ConfigError::Bad {
        key: "advertise",
        reason,
    };
    if texts.len() > MAX_INVITE_ADDRESSES {
        return Err(bad(format!(
            "an invite names at most {MAX_INVITE_ADDRESSES} addresses, and {} are given",
            texts.len()
        )));
    }
    texts
        .iter()
        .map(|text| match text.parse::<Address>() {
            Ok(address) => Ok(address.to_string()),
            Err(error) => Err(bad(error.to_string())),
        })
        .collect()
}

/// Why settings are not good.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file has something wrong in it.
    #[error("{}:{line}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A setting is needed and was not given.
    #[error("`{key}` is not set")]
    Missing {
        /// Which one.
        key: &'static str,
    },
    /// Two settings exclude each other.
    #[error("`{first}` and `{second}` exclude each other")]
    Contradiction {
        /// One of them.
        first: &'static str,
        /// The other one.
        second: &'static str,
    },
    /// A setting has a value that cannot be used.
    #[error("`{key}` cannot be used: {reason}")]
    Bad {
        /// Which one.
        key: &'static str,
        /// Why not.
        reason: String,
    },
}

/// How long after the end of its certificate a daemon may renew it unless somebody says otherwise: ten years, as long as a root lives,
/// so that a robot that lay in a box for a year comes back by itself.
const RENEW_WINDOW: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use dora_remote_protocol::identity::Role;

    #[test]
    fn flags_beat_the_file_and_the_rest_has_defaults() {
        let file = read("listen = \"127.0.0.1:7000\"\nstate-dir = \"/var/lib/a\"\nauthority-dir = \"/etc/a\"\n").unwrap();
        let flags = Options {
            listen: "[::1]:7001".parse().ok(),
            ..Options::default()
        };
        let config = flags.over(file.clone()).checked().unwrap();
        assert_eq!(config.listen.to_string(), "[::1]:7001");
        assert_eq!(config.state_dir, PathBuf::from("/var/lib/a"));
        assert_eq!(config.bundle_bytes, 1 << 30);
        let other = Options {
            credentials_dir: Some("/etc/b".into()),
            ..Options::default()
        };
        let config = other.over(file).checked().unwrap();
        assert_eq!(config.identity, IdentitySource::Credentials("/etc/b".into()));
    }

    #[test]
    fn unknown_keys_are_refused_with_their_line() {
        let error = read("state-dir = \"/a\"\n\nlisten-adress = \"x\"\n").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("config.toml:3: ") && text.contains("listen-adress"), "{text}");
        let error = read("state-dir = \"/a\"\nlisten = \"nowhere\"\n").unwrap_err().to_string();
        assert!(error.contains("config.toml:2: "), "{error}");
    }

    #[test]
    fn a_source_of_the_certificate_is_needed_and_only_one() {
        let options = |authority: bool, credentials: bool| Options {
            state_dir: Some("/a".into()),
            authority_dir: authority.then(|| "/b".into()),
            credentials_dir: credentials.then(|| "/c".into()),
            ..Options::default()
        };
        assert!(matches!(options(false, false).checked(), Err(ConfigError::Missing { .. })));
        assert!(matches!(
            options(true, true).checked(),
            Err(ConfigError::Contradiction { .. })
        ));
        assert!(matches!(Options::default().checked(), Err(ConfigError::Missing { .. })));
    }

    #[test]
    fn addresses_and_lives_come_from_the_file_and_are_bounded() {
        let text = "state-dir = \"/a\"\nauthority-dir = \"/b\"\nadvertise = [\"robots.example\", \"[2001:db8::7]:7000\"]\n\
                    trust-domain = \"lab\"\nrenew-window = \"30d\"\n[lives]\ndaemon = \"12h\"\n";
        let config = read(text).unwrap().checked().unwrap();
        assert_eq!(config.advertise, ["robots.example:6013", "[2001:db8::7]:7000"]);
        assert_eq!(config.lives.of(Role::Daemon), Duration::from_secs(12 * 3600));
        assert_eq!(config.lives.of(Role::Admin), Duration::from_secs(30 * 24 * 3600));
        assert_eq!(config.renew_window, Duration::from_secs(30 * 24 * 3600));
        let bad = |options: Options| match options.checked() {
            Err(ConfigError::Bad { key, reason }) => (key, reason),
            other => panic!("{other:?}"),
        };
        let base = Options {
            state_dir: Some("/a".into()),
            authority_dir: Some("/b".into()),
            ..Options::default()
        };
        let (key, reason) = bad(Options {
            advertise: Some(vec!["a b".to_owned()]),
            ..base.clone()
        });
        assert_eq!((key, reason.contains("a b")), ("advertise", true), "{reason}");
        let lives = LivesOptions {
            operator: "2s".parse().ok(),
            ..LivesOptions::default()
        };
        let (key, reason) = bad(Options { lives, ..base });
        assert_eq!((key, reason.contains("operator")), ("lives", true), "{reason}");
        let error = read("renew-window = \"soon\"\n").unwrap_err().to_string();
        assert!(error.contains("config.toml:1: ") && error.contains("`soon`"), "{error}");
    }

    fn read(text: &str) -> Result<Options, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, text).unwrap();
        Options::read(&path)
    }
}
