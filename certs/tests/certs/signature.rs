//! Signed messages: whose signature counts, for what, and for how long.

use crate::support::{DAY, House, birth, good_params};
use dora_remote_certs::{CertError, Credentials};
use rcgen::ExtendedKeyUsagePurpose;

const CONTEXT: &[u8] = b"audit head";
const MESSAGE: &[u8] = b"ten entries";

fn reason(result: Result<dora_remote_certs::CertificateFacts, CertError>) -> String {
    result.expect_err("it must be refused").to_string()
}

#[test]
fn a_member_recognises_what_its_coordinator_has_signed() {
    let lab = House::lab();
    let (coordinator, daemon) = (lab.issue("coordinator/main"), lab.issue("daemon/robot-7"));
    let signature = coordinator.sign(CONTEXT, MESSAGE).unwrap();
    let facts = daemon
        .verify_coordinator(&coordinator.chain_der(), CONTEXT, MESSAGE, &signature)
        .unwrap();
    assert_eq!(facts, *coordinator.certificate());
}

#[test]
fn a_signature_holds_for_its_message_and_its_context_alone() {
    let lab = House::lab();
    let (coordinator, daemon) = (lab.issue("coordinator/main"), lab.issue("daemon/robot-7"));
    let signature = coordinator.sign(CONTEXT, MESSAGE).unwrap();
    let chain = coordinator.chain_der();
    let judged =
        |context: &[u8], message: &[u8], signature: &[u8]| reason(daemon.verify_coordinator(&chain, context, message, signature));
    let expected = "the signature is not that of spiffe://lab/coordinator/main";
    assert_eq!(judged(CONTEXT, b"nine entries", &signature), expected);
    assert_eq!(judged(b"audit tail", MESSAGE, &signature), expected);
    // The boundary between context and message is signed as well.
    assert_eq!(judged(b"audit headten", b" entries", &signature), expected);
    assert_eq!(judged(CONTEXT, MESSAGE, &signature[..signature.len() - 1]), expected);
    assert_eq!(judged(CONTEXT, MESSAGE, b""), expected);
    let another = lab.issue("coordinator/main").sign(CONTEXT, MESSAGE).unwrap();
    assert_eq!(judged(CONTEXT, MESSAGE, &another), expected, "a key of its own");
}

#[test]
fn nobody_but_a_coordinator_of_our_trust_domain_signs() {
    let (lab, other) = (House::lab(), House::lab());
    let daemon = lab.issue("daemon/robot-7");
    let judged = |signer: &Credentials| {
        let signature = signer.sign(CONTEXT, MESSAGE).unwrap();
        reason(daemon.verify_coordinator(&signer.chain_der(), CONTEXT, MESSAGE, &signature))
    };
    assert!(judged(&lab.issue("admin/ann")).contains("not of a coordinator of lab"));
    assert!(judged(&other.issue("coordinator/main")).contains("does not lead to our root"));
    let mut params = good_params("spiffe://attic/coordinator/main");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let (chain, _) = lab.forge(&params);
    let chain: Vec<_> = chain.iter().map(|der| der.to_vec()).collect();
    assert!(reason(daemon.verify_coordinator(&chain, CONTEXT, MESSAGE, b"")).contains("not of a coordinator of lab"));
    for chain in [vec![], vec![vec![]], vec![vec![0x30, 0x00]], vec![MESSAGE.to_vec(); 9]] {
        assert!(matches!(
            daemon.verify_coordinator(&chain, CONTEXT, MESSAGE, b""),
            Err(CertError::BadCertificate { .. })
        ));
    }
}

#[test]
fn what_was_signed_outlives_the_certificate_of_its_signer() {
    let lab = House::lab();
    // Life plays no part, so that no clock has to be handed in: this certificate ended long before the present one began.
    let old = lab.issue_for("coordinator/main", DAY);
    let signature = old.sign(CONTEXT, MESSAGE).unwrap();
    let later = lab
        .authority
        .issue(&lab.identity("daemon/robot-7"), DAY, birth() + DAY * 300)
        .unwrap();
    assert!(
        later
            .verify_coordinator(&old.chain_der(), CONTEXT, MESSAGE, &signature)
            .is_ok()
    );
}
