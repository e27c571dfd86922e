//! Where identities lie, and whose they are. Nothing is proven here: a certificate is only read.

use dora_remote_certs::read_facts;
use dora_remote_protocol::identity::Identity;
use std::path::{Path, PathBuf};

/// Where `join` puts an identity unless it is told otherwise: `identities/<trust-domain>-<role>-<name>` within the
/// configuration directory.
#[must_use]
pub fn usual_dir(config_dir: &Path, identity: &Identity) -> PathBuf {
    let Identity {
        trust_domain,
        role,
        name,
    } = identity;
    config_dir.join("identities").join(format!("{trust_domain}-{role}-{name}"))
}

/// Whose certificate lies in `dir`; none when there is none that can be read. Whether it is any good is not asked.
#[must_use]
pub fn identity_in(dir: &Path) -> Option<Identity> {
    let found = read_facts(&dir.join("identity.crt")).ok()?;
    found.into_iter().find_map(|certificate| certificate.identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dora_remote_certs::Authority;
    use std::time::{Duration, SystemTime};

    #[test]
    fn an_identity_is_told_by_its_certificate() {
        let dir = tempfile::tempdir().expect("a directory");
        let domain = "lab".parse().expect("good");
        let authority = Authority::init(&dir.path().join("authority"), &domain, SystemTime::now()).expect("made");
        let identity: Identity = "spiffe://lab/daemon/robot-7".parse().expect("good");
        let issued = authority
            .issue(&identity, Duration::from_secs(60), SystemTime::now())
            .expect("issued");
        let out = usual_dir(dir.path(), &identity);
        assert_eq!(out, dir.path().join("identities/lab-daemon-robot-7"));
        assert_eq!(identity_in(&out), None);
        issued.save(&out, false).expect("saved");
        assert_eq!(identity_in(&out), Some(identity));
    }
}
