// Included by path from the fuzz targets and from the test that replays their corpora: certificates and requests for them, as
// strangers present them. The keys of the fixtures were thrown away, so that nobody can sign anything more with them.

use dora_remote_certs::{AdmissionSnapshot, Admit, JoinKey, MAX_REQUEST_BYTES, RequestedKey, admit, facts_of};
use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const ROOT: &[u8] = include_bytes!("fixtures/root.der");
const OLGA: &[u8] = include_bytes!("fixtures/olga.der");
const ROBOT: &[u8] = include_bytes!("fixtures/robot-7.der");
const INVITE: &[u8; 32] = include_bytes!("fixtures/invite.key");

/// Trusts the root, has one invite open, and forgives daemons for a month.
static SNAPSHOT: LazyLock<AdmissionSnapshot> = LazyLock::new(|| {
    let mut snapshot = AdmissionSnapshot::new("fuzz.test".parse().expect("good"), &[ROOT.into()]).expect("a root");
    let invited = "spiffe://fuzz.test/daemon/robot-8".parse().expect("good");
    snapshot.invite(JoinKey(*INVITE), invited);
    snapshot.set_renew_window(Duration::from_secs(30 * 24 * 3600));
    snapshot
});

/// Ten days after the fixtures were made: `olga` is valid, and `robot-7` has lapsed.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + 10 * 24 * 3600)
}

/// Judges a chain: certificates one after the other, each behind its length in two bytes (big-endian). Whatever it is made of,
/// nobody is let in but the two holders of the fixtures and the holder of the invite.
pub(crate) fn judge_chain(bytes: &[u8]) {
    let mut chain = Vec::new();
    let mut rest = bytes;
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let (certificate, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)).min(behind.len()));
        chain.push(certificate.into());
        rest = behind;
    }
    for certificate in &chain {
        // Reads without trust; it must not panic.
        drop(facts_of(certificate));
    }
    let serial_of = |known: &[u8]| facts_of(&known.into()).expect("a fixture").serial;
    match admit(&chain, now(), &SNAPSHOT) {
        Admit::Full(facts) => {
            assert_eq!(facts.identity.to_string(), "spiffe://fuzz.test/operator/olga");
            assert_eq!(facts.serial, serial_of(OLGA));
        }
        Admit::RenewOnly(facts) => {
            assert_eq!(facts.identity.to_string(), "spiffe://fuzz.test/daemon/robot-7");
            assert_eq!(facts.serial, serial_of(ROBOT));
        }
        Admit::JoinOnly(key, identity) => {
            assert_eq!((key.0, identity.name.as_str()), (*INVITE, "robot-8"));
        }
        Admit::No(_) => {}
    }
}

/// Reads a request for a certificate. What is accepted is small, proven, and has a key by which it is known again.
pub(crate) fn read_request(bytes: &[u8]) {
    if let Ok(key) = RequestedKey::of(bytes) {
        assert!(bytes.len() <= MAX_REQUEST_BYTES);
        assert_eq!(key.fingerprint().len(), 64);
        assert_eq!(RequestedKey::of(bytes).expect("it was accepted before"), key);
    }
}
