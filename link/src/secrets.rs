//! The secrets that let a coordinator prove, after a crash, that it is the endpoint its peers spoke to.
//!
//! With the same stateless-reset key and connection-id key the first packet of the restarted endpoint tells a peer to redial
//! (RFC 9000 section 10.3), instead of leaving it to its idle timeout.

use crate::{
    error::LinkError,
    keys::{ResetKey, TokenKey},
};
use aws_lc_rs::rand;
use quinn::{ConnectionIdGenerator, EndpointConfig};
use quinn_proto::HashedConnectionIdGenerator;
use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Keys of one endpoint. Not worth stealing for what is said (TLS protects that), but whoever has them can end connections.
#[derive(Clone)]
pub struct EndpointSecrets {
    reset_key: [u8; RESET_BYTES],
    cid_key: [u8; CID_BYTES],
    retry_key: [u8; RETRY_BYTES],
}

impl EndpointSecrets {
    /// Makes new secrets.
    ///
    /// # Errors
    /// [`LinkError::Random`] when the system has no random numbers.
    pub fn generate() -> Result<Self, LinkError> {
        let mut bytes = [0; TOTAL_BYTES];
        rand::fill(&mut bytes).map_err(|_| LinkError::Random)?;
        Ok(Self::of(&bytes))
    }

    /// Reads the secrets from `path`, or makes them and writes them there, readable by the owner alone.
    ///
    /// # Errors
    /// [`LinkError::Secrets`] when the file cannot be read or written, has the wrong length, or others may read it.
    pub fn load_or_create(path: &Path) -> Result<Self, LinkError> {
        let fault = |error: io::Error| secrets_error(path, error.to_string());
        match File::open(path) {
            Ok(file) => Self::load(path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let secrets = Self::generate()?;
                secrets.save(path).map_err(fault)?;
                Ok(secrets)
            }
            Err(error) => Err(fault(error)),
        }
    }

    /// The configuration of an endpoint that uses these secrets.
    pub(crate) fn endpoint_config(&self) -> EndpointConfig {
        let mut config = EndpointConfig::new(Arc::new(ResetKey::new(&self.reset_key)));
        let cid_key = u64::from_be_bytes(self.cid_key);
        config.cid_generator(move || -> Box<dyn ConnectionIdGenerator> {
            Box::new(HashedConnectionIdGenerator::from_key(cid_key))
        });
        config
    }

    /// The key that protects Retry tokens (RFC 9000 section 8.1.2).
    pub(crate) fn token_key(&self) -> Arc<TokenKey> {
        Arc::new(TokenKey::new(&self.retry_key))
    }

    fn load(path: &Path, mut file: File) -> Result<Self, LinkError> {
        let fault = |error: io::Error| secrets_error(path, error.to_string());
        let mode = file.metadata().map_err(fault)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(secrets_error(
                path,
                format!("others may read it (mode {mode:o}); run `chmod 600` on it or remove it"),
            ));
        }
        let mut bytes = [0; TOTAL_BYTES];
        let whole = file.read_exact(&mut bytes).is_ok() && file.read(&mut [0]).map_err(fault)? == 0;
        if !whole {
            return Err(secrets_error(
                path,
                format!("it does not have {TOTAL_BYTES} bytes; remove it to get a new one"),
            ));
        }
        Ok(Self::of(&bytes))
    }

    fn save(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            fs::create_dir_all(folder)?;
        }
        // Written beside and renamed, so that a crash leaves either no file or a whole one.
        let beside = temporary(path);
        drop(fs::remove_file(&beside));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(&self.reset_key)?;
        file.write_all(&self.cid_key)?;
        file.write_all(&self.retry_key)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }

    fn of(bytes: &[u8; TOTAL_BYTES]) -> Self {
        let mut secrets = Self {
            reset_key: [0; RESET_BYTES],
            cid_key: [0; CID_BYTES],
            retry_key: [0; RETRY_BYTES],
        };
        let (reset, rest) = bytes.split_at(RESET_BYTES);
        let (cid, retry) = rest.split_at(CID_BYTES);
        secrets.reset_key.copy_from_slice(reset);
        secrets.cid_key.copy_from_slice(cid);
        secrets.retry_key.copy_from_slice(retry);
        secrets
    }
}

impl fmt::Debug for EndpointSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndpointSecrets(..)")
    }
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn secrets_error(path: &Path, reason: String) -> LinkError {
    LinkError::Secrets {
        path: path.to_owned(),
        reason,
    }
}

const RESET_BYTES: usize = 32;
const CID_BYTES: usize = 8;
const RETRY_BYTES: usize = 32;
const TOTAL_BYTES: usize = RESET_BYTES + CID_BYTES + RETRY_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_survive_their_file_and_only_the_owner_may_read_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state/endpoint.secrets");
        let made = EndpointSecrets::load_or_create(&path).expect("made");
        let read = EndpointSecrets::load_or_create(&path).expect("read");
        assert_eq!(
            (made.reset_key, made.cid_key, made.retry_key),
            (read.reset_key, read.cid_key, read.retry_key)
        );
        assert_ne!(made.reset_key, EndpointSecrets::generate().expect("others").reset_key);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("changed");
        assert!(matches!(
            EndpointSecrets::load_or_create(&path),
            Err(LinkError::Secrets { .. })
        ));
    }

    #[test]
    fn a_torn_file_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secrets");
        EndpointSecrets::load_or_create(&path).expect("made");
        for bytes in [TOTAL_BYTES - 1, TOTAL_BYTES + 1] {
            OpenOptions::new()
                .write(true)
                .open(&path)
                .expect("open")
                .set_len(bytes as u64)
                .expect("cut");
            assert!(EndpointSecrets::load_or_create(&path).is_err(), "{bytes} bytes");
        }
    }
}
