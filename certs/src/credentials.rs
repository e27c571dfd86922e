//! What one identity proves itself with: its certificate, its key, and the root that it trusts; and their three files.
//!
//! A set is loaded only when it is whole: the key belongs to the certificate, and the chain leads to the root of the same
//! trust domain. Whether it is valid *now* is not asked here, so that a lapsed set can be shown and renewed.

use crate::{
    error::CertError,
    facts::{CertificateFacts, CertificateKind, facts_of, fingerprint, info_of, read_certificates},
    files::{self, Secrecy},
    path,
    tls::provider,
};
use dora_remote_protocol::identity::Identity;
use pem::Pem;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, pem::PemObject},
    sign::CertifiedKey,
};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};
use zeroize::{Zeroize, Zeroizing};

/// The certificate, key and pinned root of one identity. Cheap to clone; its `Debug` shows no key.
#[derive(Clone)]
pub struct Credentials(Arc<Set>);

struct Set {
    facts: CertificateFacts,
    leaf: CertificateDer<'static>,
    issuing: CertificateDer<'static>,
    root: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Drop for Set {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Credentials {
    /// Reads `identity.crt` (leaf and issuing certificate), `identity.key` and `root.crt` of `dir`.
    ///
    /// A save that was cut off between its renames is read as what it was about to become.
    ///
    /// # Errors
    /// Names the file and the next step when one is absent, damaged, open to others, or does not belong to the rest.
    pub fn load(dir: &Path) -> Result<Self, CertError> {
        let files = Files::of(dir);
        let key = read_key(&files.key, NEXT)?;
        let first = match files.assemble(&files.certificate, &files.root, &key) {
            Ok(credentials) => return Ok(credentials),
            Err(error) => error,
        };
        // The key is renamed first: once it is new, the staged rest belongs to it.
        for (certificate, root) in [
            (files.staged(&files.certificate), files.staged(&files.root)),
            (files.certificate.clone(), files.staged(&files.root)),
        ] {
            if let Ok(credentials) = files.assemble(&certificate, &root, &key) {
                return Ok(credentials);
            }
        }
        Err(first)
    }

    /// Writes the three files of [`Self::load`] into `dir`, which is made with owner-only access if it is absent.
    ///
    /// A crash at any point leaves either the old set or this one loadable. One process may save at a time.
    ///
    /// # Errors
    /// [`CertError::Exists`] when `overwrite` is false and one of the files is there; otherwise when the directory is open
    /// to others or cannot be written.
    pub fn save(&self, dir: &Path, overwrite: bool) -> Result<(), CertError> {
        files::private_dir(dir)?;
        let files = Files::of(dir);
        if overwrite {
            files.settle()?;
        } else {
            files::none_exists([&files.key, &files.certificate, &files.root])?;
        }
        let set = &self.0;
        let chain = to_pem(&[&set.leaf, &set.issuing]);
        let key = Zeroizing::new(pem::encode(&Pem::new(KEY_LABEL, set.key.secret_der())));
        files::stage(&files.staged(&files.root), to_pem(&[&set.root]).as_bytes(), Secrecy::Public)?;
        files::stage(&files.staged(&files.certificate), chain.as_bytes(), Secrecy::Public)?;
        files::stage(&files.staged(&files.key), key.as_bytes(), Secrecy::Private)?;
        // From the first rename on, `load` prefers the new set.
        for path in [&files.key, &files.certificate, &files.root] {
            files::rename(&files.staged(path), path)?;
        }
        Ok(())
    }

    /// Puts a key, the chain that was issued for it (the leaf and its issuer) and the root together: the proof that they are
    /// worth replacing older ones.
    ///
    /// # Errors
    /// [`CertError::BadCertificate`] when the chain is not of two certificates or does not lead to the root, the leaf breaks
    /// the profile or is not for the key, or the root is none or of another trust domain.
    pub fn from_parts(
        key: PrivateKeyDer<'static>,
        chain: Vec<CertificateDer<'static>>,
        root: CertificateDer<'static>,
    ) -> Result<Self, CertError> {
        let [leaf, issuing] = <[_; 2]>::try_from(chain)
            .map_err(|chain| CertError::bad_certificate(format!("its chain has {} certificates instead of 2", chain.len())))?;
        Self::assemble(leaf, issuing, root, key)
    }

    /// Whose these are.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.0.facts.identity
    }

    /// What the certificate says.
    #[must_use]
    pub fn certificate(&self) -> &CertificateFacts {
        &self.0.facts
    }

    /// The pinned root.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.0.root
    }

    /// SHA-256 of the pinned root in lower-case hex.
    #[must_use]
    pub fn root_fingerprint(&self) -> String {
        fingerprint(&self.0.root)
    }

    /// The chain as it is sent: the leaf and its issuer, without the root.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.0.leaf.clone(), self.0.issuing.clone()]
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.0.key.clone_key()
    }

    pub(crate) fn anchor(&self) -> Result<TrustAnchor<'static>, CertError> {
        anchor(&self.0.root)
    }

    /// Puts a set together and checks that its parts belong to each other.
    pub(crate) fn assemble(
        leaf: CertificateDer<'static>,
        issuing: CertificateDer<'static>,
        root: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CertError> {
        let facts = facts_of(&leaf)?;
        let info = info_of(&root)?;
        if info.kind != CertificateKind::Root {
            return Err(CertError::bad_certificate("the pinned certificate is not a root"));
        }
        if info.trust_domain.as_ref() != Some(&facts.identity.trust_domain) {
            return Err(CertError::bad_certificate("it and its root are of different trust domains"));
        }
        let chain = [leaf, issuing];
        path::validate(&chain, &[anchor(&root)?], facts.not_after)
            .map_err(|_| CertError::bad_certificate("its chain does not lead to its root"))?;
        CertifiedKey::from_der(chain.to_vec(), key.clone_key(), &provider())
            .map_err(|_| CertError::bad_certificate("its private key is another one"))?;
        let [leaf, issuing] = chain;
        Ok(Self(Arc::new(Set {
            facts,
            leaf,
            issuing,
            root,
            key,
        })))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("certificate", &self.0.facts)
            .finish_non_exhaustive()
    }
}

/// Where the parts of one set lie.
struct Files {
    key: PathBuf,
    certificate: PathBuf,
    root: PathBuf,
}

impl Files {
    fn of(dir: &Path) -> Self {
        Self {
            key: dir.join("identity.key"),
            certificate: dir.join("identity.crt"),
            root: dir.join("root.crt"),
        }
    }

    fn staged(&self, path: &Path) -> PathBuf {
        files::beside(path, "next")
    }

    fn assemble(&self, certificate: &Path, root: &Path, key: &PrivateKeyDer<'static>) -> Result<Credentials, CertError> {
        let damaged = |reason: String| CertError::Damaged {
            path: certificate.to_owned(),
            reason,
            next: NEXT,
        };
        let mut chain = read_certificates(certificate, NEXT)?.into_iter();
        let (Some(leaf), Some(issuing), None) = (chain.next(), chain.next(), chain.next()) else {
            return Err(damaged("it does not hold exactly two certificates".to_owned()));
        };
        let root = single(root, NEXT)?;
        Credentials::assemble(leaf, issuing, root, key.clone_key()).map_err(|error| match error {
            CertError::BadCertificate { reason } => damaged(reason),
            other => other,
        })
    }

    /// Finishes a save that was cut off between its renames, so that staging anew cannot destroy the only whole set.
    fn settle(&self) -> Result<(), CertError> {
        let Ok(key) = read_key(&self.key, NEXT) else {
            return Ok(());
        };
        if self.assemble(&self.certificate, &self.root, &key).is_ok() {
            return Ok(());
        }
        let (certificate, root) = (self.staged(&self.certificate), self.staged(&self.root));
        if self.assemble(&certificate, &root, &key).is_ok() {
            files::rename(&certificate, &self.certificate)?;
            files::rename(&root, &self.root)?;
        } else if self.assemble(&self.certificate, &root, &key).is_ok() {
            files::rename(&root, &self.root)?;
        }
        Ok(())
    }
}

/// Reads a file that holds one certificate.
pub(crate) fn single(path: &Path, next: &'static str) -> Result<CertificateDer<'static>, CertError> {
    let mut certificates = read_certificates(path, next)?.into_iter();
    match (certificates.next(), certificates.next()) {
        (Some(certificate), None) => Ok(certificate),
        _ => Err(CertError::Damaged {
            path: path.to_owned(),
            reason: "it holds more than one certificate".to_owned(),
            next,
        }),
    }
}

/// Reads a private key after a look at the modes of its file and directory.
pub(crate) fn read_key(path: &Path, next: &'static str) -> Result<PrivateKeyDer<'static>, CertError> {
    let text = files::read_private(path, next)?;
    // The parser's own message may quote the text, and this text is a secret.
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| CertError::Damaged {
        path: path.to_owned(),
        reason: "it holds no private key".to_owned(),
        next,
    })
}

/// What a path validation needs of a root.
pub(crate) fn anchor(root: &CertificateDer<'_>) -> Result<TrustAnchor<'static>, CertError> {
    webpki::anchor_from_trusted_cert(root)
        .map(|anchor| anchor.to_owned())
        .map_err(|error| CertError::bad_certificate(format!("its root cannot be read: {error}")))
}

pub(crate) fn to_pem(certificates: &[&CertificateDer<'_>]) -> String {
    certificates
        .iter()
        .map(|der| pem::encode(&Pem::new(CERTIFICATE_LABEL, der.as_ref())))
        .collect()
}

const CERTIFICATE_LABEL: &str = "CERTIFICATE";
pub(crate) const KEY_LABEL: &str = "PRIVATE KEY";
const NEXT: &str = "join again, or copy all of identity.crt, identity.key and root.crt there";
