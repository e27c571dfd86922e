//! The key of a join that has not been answered, kept on disk: asking again after a lost answer must be with the same key, or
//! the invite counts as used by somebody else.

use crate::{
    credentials::{KEY_LABEL, read_key},
    error::CertError,
    files::{self, Secrecy},
    request::Request,
};
use dora_remote_protocol::identity::Identity;
use pem::Pem;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// The request for a certificate of `identity` with the key that is pending in `dir` under `id`; where there is none a new key
/// is made and is on the disk, readable by its owner alone, when this returns.
///
/// `id` is a part of a file name: letters and digits. `dir` is made with owner-only access if it is absent.
///
/// # Errors
/// When the key is damaged or open to others, or the directory is or cannot be written.
pub fn pending_request(dir: &Path, id: &str, identity: &Identity) -> Result<Request, CertError> {
    files::private_dir(dir)?;
    let path = file(dir, id);
    let key = match read_key(&path, NEXT) {
        Ok(key) => pair(&path, &key)?,
        Err(CertError::Absent { .. }) => {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let der = Zeroizing::new(key.serialize_der());
            let pem = Zeroizing::new(pem::encode(&Pem::new(KEY_LABEL, der.as_slice())));
            files::write(&path, pem.as_bytes(), Secrecy::Private)?;
            key
        }
        Err(error) => return Err(error),
    };
    Request::with_key(identity, &key)
}

/// Removes the pending key, once what came of it is saved. That there is none is fine.
///
/// # Errors
/// [`CertError::Write`].
pub fn forget_pending(dir: &Path, id: &str) -> Result<(), CertError> {
    let path = file(dir, id);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(CertError::Write { path, source }),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn file(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("pending-{id}.key"))
}

fn pair(path: &Path, key: &PrivateKeyDer<'_>) -> Result<KeyPair, CertError> {
    let pkcs8 = PrivatePkcs8KeyDer::from(key.secret_der());
    KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &PKCS_ECDSA_P256_SHA256).map_err(|_| CertError::Damaged {
        path: path.to_owned(),
        reason: "it holds no P-256 key".to_owned(),
        next: NEXT,
    })
}

const NEXT: &str = "remove it and ask for a new invite";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestedKey;
    use std::os::unix::fs::PermissionsExt;

    fn key_of(dir: &Path, id: &str) -> RequestedKey {
        let identity = "spiffe://lab/daemon/robot-7".parse().expect("good");
        let request = pending_request(dir, id, &identity).expect("made or read");
        RequestedKey::of(request.der()).expect("a good request")
    }

    #[test]
    fn asking_again_is_with_the_same_key_until_it_is_forgotten() {
        let home = tempfile::tempdir().expect("a directory");
        let dir = home.path().join("made/when/needed");
        let first = key_of(&dir, "5f1d");
        assert_eq!(key_of(&dir, "5f1d"), first);
        assert_ne!(key_of(&dir, "77aa"), first, "another invite has a key of its own");
        let mode = fs::metadata(file(&dir, "5f1d")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        forget_pending(&dir, "5f1d").expect("removed");
        forget_pending(&dir, "5f1d").expect("there is none any more");
        assert_ne!(key_of(&dir, "5f1d"), first);
    }

    #[test]
    fn a_damaged_or_open_key_is_not_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("set");
        let identity = "spiffe://lab/daemon/robot-7".parse().expect("good");
        let path = file(dir.path(), "a");
        fs::write(&path, "no key").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        let error = pending_request(dir.path(), "a", &identity).expect_err("damaged");
        assert!(matches!(error, CertError::Damaged { .. }));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        let error = pending_request(dir.path(), "a", &identity).expect_err("open to others");
        assert!(matches!(error, CertError::TooOpen { .. }));
        assert_eq!(fs::read_to_string(&path).expect("there"), "no key");
    }
}
