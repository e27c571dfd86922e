//! A root that is trusted without an identity below it: what somebody needs who only checks what coordinators have signed.

use crate::{
    credentials::{Credentials, anchor, single},
    error::CertError,
    facts::{CertificateFacts, CertificateKind, info_of},
    signature::verify_below,
};
use dora_remote_protocol::identity::TrustDomain;
use rustls::pki_types::CertificateDer;
use std::path::Path;

/// The root of one trust domain.
#[derive(Clone, Debug)]
pub struct PinnedRoot {
    root: CertificateDer<'static>,
    trust_domain: TrustDomain,
}

impl PinnedRoot {
    /// Reads a file that holds one root, such as `root.crt` of an authority or of an identity.
    ///
    /// # Errors
    /// [`CertError::Absent`], [`CertError::Damaged`] and others when it cannot be read; [`CertError::BadCertificate`] when it is
    /// no root.
    pub fn read(path: &Path) -> Result<Self, CertError> {
        let root = single(path, "name the file `root.crt` of an authority or of an identity")?;
        let info = info_of(&root)?;
        match (info.kind, info.trust_domain) {
            (CertificateKind::Root, Some(trust_domain)) => Ok(Self { root, trust_domain }),
            _ => Err(CertError::bad_certificate("it is not that of an authority's root")),
        }
    }

    /// The root that an identity pins.
    #[must_use]
    pub fn of(credentials: &Credentials) -> Self {
        Self {
            root: credentials.root().clone(),
            trust_domain: credentials.identity().trust_domain.clone(),
        }
    }

    /// The trust domain that it vouches for.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Checks a signature as [`Credentials::verify_coordinator`] does.
    ///
    /// # Errors
    /// Those of [`Credentials::verify_coordinator`].
    pub fn verify_coordinator(
        &self,
        chain: &[Vec<u8>],
        context: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<CertificateFacts, CertError> {
        verify_below(anchor(&self.root)?, &self.trust_domain, chain, context, message, signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Authority;
    use dora_remote_protocol::identity::{Identity, Role};
    use std::time::{Duration, SystemTime};

    #[test]
    fn only_a_coordinator_below_the_pinned_root_is_believed() {
        let dir = tempfile::tempdir().expect("a folder");
        let make = |name: &str| {
            let dir = dir.path().join(name);
            let authority = Authority::init(&dir, &"lab".parse().expect("a domain"), SystemTime::now()).expect("made");
            (PinnedRoot::read(&dir.join("root.crt")).expect("a root"), authority, dir)
        };
        let (ours, authority, folder) = make("ours");
        let (other, ..) = make("other");
        assert!(PinnedRoot::read(&folder.join("issuing.crt")).is_err());
        for (role, good) in [(Role::Coordinator, true), (Role::Daemon, false), (Role::Admin, false)] {
            let identity = Identity {
                trust_domain: ours.trust_domain().clone(),
                role,
                name: "main".parse().expect("a name"),
            };
            let signer = authority
                .issue(&identity, Duration::from_secs(60), SystemTime::now())
                .expect("issued");
            let (chain, signature) = (signer.chain_der(), signer.sign(b"c", b"m").expect("signed"));
            assert_eq!(
                ours.verify_coordinator(&chain, b"c", b"m", &signature).is_ok(),
                good,
                "{role}"
            );
            assert!(ours.verify_coordinator(&chain, b"c", b"n", &signature).is_err());
            assert!(other.verify_coordinator(&chain, b"c", b"m", &signature).is_err());
            assert_eq!(PinnedRoot::of(&signer).trust_domain(), ours.trust_domain());
        }
    }
}
