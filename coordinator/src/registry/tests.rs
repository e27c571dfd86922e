//! The rules about invites, joining, renewal, recovery and revocation, without a disk and without a clock.

mod inviting;
mod renewing;
mod revoking;

use super::{Registry, samples::identity};
use dora_remote_certs::{BACKDATE, CertificateFacts};
use dora_remote_protocol::{
    access::{Revoke, RevokeTarget},
    identity::Identity,
};
use std::time::{Duration, SystemTime};

const NOW: u64 = 1_000_000_000;

fn revoke(role: Option<&str>, name: &str) -> Revoke {
    Revoke {
        target: RevokeTarget::Holder {
            role: role.map(|role| role.parse().unwrap()),
            name: name.parse().unwrap(),
        },
        reason: "stolen".to_owned(),
    }
}

/// A certificate of an hour.
fn facts(role: &str, name: &str, serial: &str, made_unix_ms: u64) -> CertificateFacts {
    let made = SystemTime::UNIX_EPOCH + Duration::from_millis(made_unix_ms);
    let identity: Identity = identity(role, name);
    CertificateFacts {
        identity,
        serial: serial.to_owned(),
        not_before: made - BACKDATE,
        not_after: made + Duration::from_secs(3_600),
        fingerprint: String::new(),
    }
}

fn arrive(registry: &mut Registry, facts: &CertificateFacts) {
    let arrived = registry.arrived(facts, NOW).unwrap();
    registry.apply(arrived.delta);
}
