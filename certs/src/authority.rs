//! The authority of one trust domain: makes a root and an issuing certificate, and issues certificates to holders.
//!
//! Issues what it is told to; who may have which identity is decided by the caller. The root's key is read again only to renew
//! the issuing certificate, once a year at most, so that it can be kept offline.

use crate::{
    clock::{from_unix_seconds, unix_seconds},
    credentials::{Credentials, KEY_LABEL, read_key, single, to_pem},
    error::CertError,
    facts::{CertificateInfo, CertificateKind, facts_of, info_of},
    files::{self, Secrecy},
    leaf::Parsed,
    profile::{self, ISSUING_LIFE, Life, ROOT_LIFE},
    request::{Issued, RequestError, RequestedKey},
};
use dora_remote_protocol::identity::{Identity, TrustDomain};
use pem::Pem;
use rcgen::{CertifiedIssuer, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use zeroize::Zeroizing;

pub use crate::profile::default_life;

/// The issuing certificate with its key, and the root above it. Its `Debug` shows no key.
pub struct Authority {
    trust_domain: TrustDomain,
    root: CertificateDer<'static>,
    issuing: CertificateDer<'static>,
    issuing_info: CertificateInfo,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority in `dir`: `root.key`, `root.crt`, `issuing.key` and `issuing.crt`.
    ///
    /// The directory is made with owner-only access if it is absent.
    ///
    /// # Errors
    /// [`CertError::Exists`] when one of the files is there; otherwise when the directory is open to others or cannot be
    /// written.
    pub fn init(dir: &Path, trust_domain: &TrustDomain, now: SystemTime) -> Result<Self, CertError> {
        let files = Files::of(dir);
        files::none_exists([&files.root_key, &files.root, &files.issuing_key, &files.issuing])?;
        files::private_dir(dir)?;
        let root_key = new_key()?;
        let root = CertifiedIssuer::self_signed(profile::root(trust_domain, Life::starting(now, ROOT_LIFE)?)?, root_key)?;
        let issuing_key = new_key()?;
        let issuing = profile::issuing(trust_domain, Life::starting(now, ISSUING_LIFE)?)?.signed_by(&issuing_key, &root)?;
        write_key(&files.root_key, root.key())?;
        write_key(&files.issuing_key, &issuing_key)?;
        files::write(&files.root, to_pem(&[root.der()]).as_bytes(), Secrecy::Public)?;
        files::write(&files.issuing, to_pem(&[issuing.der()]).as_bytes(), Secrecy::Public)?;
        Self::assemble(root.der().clone(), issuing.der().clone(), issuing_key)
    }

    /// Reads the authority of `dir`. The root's key is not needed.
    ///
    /// # Errors
    /// Names the file and the next step when one is absent, damaged, open to others, or does not belong to the rest.
    pub fn load(dir: &Path) -> Result<Self, CertError> {
        let files = Files::of(dir);
        let damaged = |path: &Path, reason: String| CertError::Damaged {
            path: path.to_owned(),
            reason,
            next: NEXT,
        };
        let key = read_key(&files.issuing_key, NEXT)?;
        let key = KeyPair::from_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)
            .map_err(|_| damaged(&files.issuing_key, "it holds no P-256 key".to_owned()))?;
        let root = single(&files.root, NEXT)?;
        // Where a renewal was cut off between its two renames, the staged certificate belongs to the key.
        let staged = single(&files.staged_issuing(), NEXT);
        let staged = staged.ok().filter(|staged| check_issuing(staged, &root, &key).is_ok());
        let issuing = match staged {
            Some(staged) => staged,
            None => single(&files.issuing, NEXT)?,
        };
        Self::assemble(root, issuing, key).map_err(|error| match error {
            CertError::BadCertificate { reason } => damaged(&files.issuing, reason),
            other => other,
        })
    }

    /// Makes a new issuing key and certificate in `dir`, signed by the same root, and puts them in the place of the old ones.
    ///
    /// What the old one has signed stays good to its end. The only thing besides [`Self::init`] that reads `root.key`, which
    /// has to be brought back for it if it was moved offline. A crash at any point leaves the old set or the new one loadable.
    ///
    /// # Errors
    /// Names the file and the next step when one is absent, damaged, open to others, or does not belong to the rest.
    pub fn renew_issuing(dir: &Path, now: SystemTime) -> Result<Self, CertError> {
        let files = Files::of(dir);
        let root = single(&files.root, NEXT)?;
        let trust_domain = info_of(&root)?
            .trust_domain
            .ok_or_else(|| CertError::bad_certificate("the root names no trust domain"))?;
        let key = read_key(&files.root_key, NEXT_ROOT_KEY)?;
        let key = KeyPair::from_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256).map_err(|_| CertError::Damaged {
            path: files.root_key.clone(),
            reason: "it holds no P-256 key".to_owned(),
            next: NEXT_ROOT_KEY,
        })?;
        let issuer = Issuer::from_ca_cert_der(&root, key)?;
        let issuing_key = new_key()?;
        let issuing = profile::issuing(&trust_domain, Life::starting(now, ISSUING_LIFE)?)?.signed_by(&issuing_key, &issuer)?;
        // Also proves that the root's key is the one of the root's certificate.
        check_issuing(issuing.der(), &root, &issuing_key)?;
        let staged = files.staged_issuing();
        files::stage(&staged, to_pem(&[issuing.der()]).as_bytes(), Secrecy::Public)?;
        write_key(&files.issuing_key, &issuing_key)?;
        files::rename(&staged, &files.issuing)?;
        Self::assemble(root, issuing.der().clone(), issuing_key)
    }

    /// The trust domain that it vouches for.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// What the issuing certificate says; worth a warning from its last third on.
    #[must_use]
    pub fn issuing(&self) -> &CertificateInfo {
        &self.issuing_info
    }

    /// Makes a key and a certificate for `identity`, valid from [`crate::BACKDATE`] before `now` until `life` after it.
    ///
    /// No certificate outlives the issuing one: a longer life is cut to its end.
    ///
    /// # Errors
    /// When the identity is of another trust domain, `life` is below a second, or the issuing certificate is not valid at
    /// `now`.
    pub fn issue(&self, identity: &Identity, life: Duration, now: SystemTime) -> Result<Credentials, CertError> {
        let key = new_key()?;
        let leaf = self.leaf_for(&key, identity, life, now)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Credentials::assemble(leaf, self.issuing.clone(), self.root.clone(), key)
    }

    /// Makes a certificate for the key of a request (PKCS#10 in DER form), as [`Self::issue`] would for `identity`.
    ///
    /// Of the request only the public key and the proof of possession count. `identity` and `life` come from the caller's
    /// record: whatever the request asks for, the certificate is the plain one of that identity.
    ///
    /// # Errors
    /// When the request is too large, not one, of another kind of key than P-256 or without proof; otherwise as
    /// [`Self::issue`].
    pub fn issue_for_request(
        &self,
        request: &[u8],
        identity: &Identity,
        life: Duration,
        now: SystemTime,
    ) -> Result<Issued, RequestError> {
        let requested = RequestedKey::of(request)?;
        let leaf = self.leaf_for(requested.key(), identity, life, now)?;
        Ok(Issued {
            certificate: facts_of(&leaf)?,
            chain: vec![leaf, self.issuing.clone()],
        })
    }

    fn leaf_for(
        &self,
        key: &impl PublicKeyData,
        identity: &Identity,
        life: Duration,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, CertError> {
        if identity.trust_domain != self.trust_domain {
            return Err(CertError::ForeignIdentity {
                identity: identity.clone(),
                trust_domain: self.trust_domain.clone(),
            });
        }
        let life = self.life_of_leaf(life, now)?;
        Ok(profile::leaf(identity, life)?.signed_by(key, &self.issuer)?.der().clone())
    }

    fn life_of_leaf(&self, life: Duration, now: SystemTime) -> Result<Life, CertError> {
        if life < Duration::from_secs(1) {
            return Err(CertError::NoLife);
        }
        let now = from_unix_seconds(unix_seconds(now)).ok_or(CertError::BadTime { at: now })?;
        let CertificateInfo {
            not_before, not_after, ..
        } = self.issuing_info;
        if now >= not_after {
            return Err(CertError::IssuingEnded { not_after, now });
        }
        if now < not_before {
            return Err(CertError::IssuingNotBegun { not_before, now });
        }
        // A life beyond what the clock can express is cut all the same.
        let longest = not_after.duration_since(now).unwrap_or_default();
        let wanted = Life::starting(now, life.min(longest))?;
        Ok(Life {
            not_before: wanted.not_before.max(not_before),
            not_after: wanted.not_after,
        })
    }

    fn assemble(root: CertificateDer<'static>, issuing: CertificateDer<'static>, key: KeyPair) -> Result<Self, CertError> {
        let root_info = info_of(&root)?;
        let issuing_info = info_of(&issuing)?;
        if root_info.kind != CertificateKind::Root || issuing_info.kind != CertificateKind::Issuing {
            return Err(CertError::bad_certificate("it or its root is not that of an authority"));
        }
        let trust_domain = root_info
            .trust_domain
            .ok_or_else(|| CertError::bad_certificate("its root names no trust domain"))?;
        if issuing_info.trust_domain.as_ref() != Some(&trust_domain) {
            return Err(CertError::bad_certificate("it and its root are of different trust domains"));
        }
        check_issuing(&issuing, &root, &key)?;
        let issuer = Issuer::from_ca_cert_der(&issuing, key)?;
        Ok(Self {
            trust_domain,
            root,
            issuing,
            issuing_info,
            issuer,
        })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("issuing", &self.issuing_info)
            .finish_non_exhaustive()
    }
}

/// Where the parts of an authority lie.
struct Files {
    root_key: PathBuf,
    root: PathBuf,
    issuing_key: PathBuf,
    issuing: PathBuf,
}

impl Files {
    fn of(dir: &Path) -> Self {
        Self {
            root_key: dir.join("root.key"),
            root: dir.join("root.crt"),
            issuing_key: dir.join("issuing.key"),
            issuing: dir.join("issuing.crt"),
        }
    }

    fn staged_issuing(&self) -> PathBuf {
        files::beside(&self.issuing, "next")
    }
}

/// Checks that the key belongs to the issuing certificate, and that the root has signed it.
fn check_issuing(issuing: &CertificateDer<'_>, root: &CertificateDer<'_>, key: &KeyPair) -> Result<(), CertError> {
    let bad = |reason: &str| CertError::bad_certificate(reason);
    let read = |certificate| Parsed::of(certificate).map_err(|broken| CertError::bad_certificate(broken.0));
    let (issuing, root) = (read(issuing)?.x509, read(root)?.x509);
    if issuing.public_key().raw != key.subject_public_key_info() {
        return Err(bad("its private key is another one"));
    }
    if issuing.issuer() != root.subject() || issuing.verify_signature(Some(root.public_key())).is_err() {
        return Err(bad("it was not signed by its root"));
    }
    Ok(())
}

fn new_key() -> Result<KeyPair, CertError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

fn write_key(path: &Path, key: &KeyPair) -> Result<(), CertError> {
    let der = Zeroizing::new(key.serialize_der());
    let text = Zeroizing::new(pem::encode(&Pem::new(KEY_LABEL, der.as_slice())));
    files::write(path, text.as_bytes(), Secrecy::Private)
}

const NEXT: &str = "run `dora-remote certs init` in a new directory, or restore it from a backup";
const NEXT_ROOT_KEY: &str = "bring the root's key back to where it was for as long as this takes";
