//! The pure judgement: which certificates, signed by whom, are let in.

use crate::support::{DAY, House, authority_params, birth, good_params, identity, uri};
use dora_remote_certs::{Admit, Rejection, admit, facts_of};
use dora_remote_protocol::identity::Role;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ED25519, SanType,
};
use rustls::pki_types::CertificateDer;

const ANN: &str = "spiffe://lab/admin/ann";

/// One way to spoil a good certificate.
type Spoil = fn(&mut CertificateParams);

#[track_caller]
fn judged(lab: &House, params: &CertificateParams) -> Admit {
    admit(&lab.forge(params).0, birth(), &lab.snapshot())
}

#[test]
fn the_forger_can_make_a_good_certificate() {
    let lab = House::lab();
    let Admit::Full(facts) = judged(&lab, &good_params(ANN)) else {
        panic!("the spoilt ones below must be refused for what was spoilt");
    };
    assert_eq!(facts.identity, identity("lab", "admin/ann"));
    assert_eq!((facts.not_before, facts.not_after), (birth(), birth() + DAY));
}

#[test]
fn a_certificate_that_breaks_the_profile_is_refused() {
    let lab = House::lab();
    let spoilt = |spoil: Spoil| {
        let mut params = good_params(ANN);
        spoil(&mut params);
        judged(&lab, &params)
    };
    let cases: [(&str, Spoil); 14] = [
        ("more than one URI", |p| {
            p.subject_alt_names.push(uri("spiffe://lab/viewer/ann"))
        }),
        ("more than one URI", |p| p.subject_alt_names.push(uri(ANN))),
        ("no URI", |p| p.subject_alt_names.clear()),
        ("no URI", |p| {
            p.subject_alt_names = vec![SanType::DnsName("ann.lab".try_into().unwrap())]
        }),
        ("not of the form", |p| {
            p.subject_alt_names = vec![uri("https://lab/admin/ann")]
        }),
        ("not of the form", |p| {
            p.subject_alt_names = vec![uri("spiffe://lab/admin/ann/more")]
        }),
        ("not a role", |p| p.subject_alt_names = vec![uri("spiffe://lab/root/ann")]),
        ("CaUsedAsEndEntity", |p| *p = authority_params(ANN)),
        ("no key usage", |p| p.key_usages.clear()),
        ("key usage is not that of a holder", |p| {
            p.key_usages.push(KeyUsagePurpose::KeyCertSign)
        }),
        ("key usage is not that of a holder", |p| {
            p.key_usages = vec![KeyUsagePurpose::KeyAgreement]
        }),
        ("no extended key usage", |p| p.extended_key_usages.clear()),
        ("not that of the role", |p| {
            p.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth)
        }),
        ("not that of the role", |p| {
            p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]
        }),
    ];
    for (rule, spoil) in cases {
        match spoilt(spoil) {
            Admit::No(Rejection::Malformed { reason }) => assert!(reason.contains(rule), "`{reason}` lacks `{rule}`"),
            other => panic!("`{rule}` must be refused, not {other:?}"),
        }
    }
}

#[test]
fn a_key_usage_that_is_not_critical_is_refused() {
    let lab = House::lab();
    let mut params = good_params(ANN);
    params.key_usages.clear();
    let digital_signature = vec![0x03, 0x02, 0x07, 0x80];
    params
        .custom_extensions
        .push(CustomExtension::from_oid_content(&[2, 5, 29, 15], digital_signature));
    let reason = "its key usage is not critical".to_owned();
    assert_eq!(judged(&lab, &params), Admit::No(Rejection::Malformed { reason }));
}

#[test]
fn an_unknown_critical_extension_is_refused() {
    let lab = House::lab();
    let mut params = good_params(ANN);
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![0x05, 0x00]);
    extension.set_criticality(true);
    params.custom_extensions.push(extension);
    assert!(matches!(judged(&lab, &params), Admit::No(Rejection::Malformed { .. })));
}

#[test]
fn a_coordinator_is_never_let_in_as_a_client() {
    let lab = House::lab();
    let chain = lab.issue("coordinator/main").chain();
    let identity = lab.identity("coordinator/main");
    let expected = Admit::No(Rejection::CoordinatorAsClient { identity });
    assert_eq!(admit(&chain, birth(), &lab.snapshot()), expected);
}

#[test]
fn a_chain_without_its_issuer_or_with_another_one_is_unknown() {
    let (lab, other) = (House::lab(), House::lab());
    let chain = lab.issue("admin/ann").chain();
    let unknown = Admit::No(Rejection::UnknownAuthority);
    assert_eq!(admit(&chain[..1], birth(), &lab.snapshot()), unknown);
    assert_eq!(admit(&[chain[0].clone(), other.issuing()], birth(), &lab.snapshot()), unknown);
    assert_eq!(admit(&chain, birth(), &other.snapshot()), unknown);
}

#[test]
fn an_authority_of_the_same_name_with_another_key_is_unknown() {
    let lab = House::lab();
    let (_, x509) = x509_parser::parse_x509_certificate(lab.authority.root()).unwrap();
    let name = x509.subject().iter_common_name().next().unwrap().as_str().unwrap();
    let mut root = authority_params("spiffe://lab");
    root.distinguished_name = DistinguishedName::new();
    root.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let leaf = good_params(ANN)
        .signed_by(&KeyPair::generate().unwrap(), &Issuer::new(root, key))
        .unwrap();
    let judged = admit(std::slice::from_ref(leaf.der()), birth(), &lab.snapshot());
    assert_eq!(judged, Admit::No(Rejection::UnknownAuthority));
}

#[test]
fn holders_cannot_issue_and_issuers_cannot_make_issuers() {
    let lab = House::lab();
    for middle in [good_params("spiffe://lab/daemon/robot-7"), authority_params("spiffe://lab")] {
        let mut middle = middle;
        middle.distinguished_name.push(DnType::CommonName, "middle");
        let key = KeyPair::generate().unwrap();
        let (above, _) = lab.forge_with(&middle, &key);
        let leaf = good_params(ANN)
            .signed_by(&KeyPair::generate().unwrap(), &Issuer::from_params(&middle, &key))
            .unwrap();
        let chain = [vec![leaf.der().clone()], above].concat();
        let judged = admit(&chain, birth(), &lab.snapshot());
        assert!(matches!(judged, Admit::No(Rejection::Malformed { .. })), "{judged:?}");
    }
}

#[test]
fn no_chain_and_garbage_and_endless_chains_are_refused() {
    let lab = House::lab();
    let good = lab.issue("admin/ann").chain();
    let garbage = CertificateDer::from(b"certificate".to_vec());
    let endless = [good.clone(), vec![good[1].clone(); 5]].concat();
    for chain in [vec![], vec![garbage], endless] {
        let judged = admit(&chain, birth(), &lab.snapshot());
        assert!(matches!(judged, Admit::No(Rejection::Malformed { .. })), "{judged:?}");
    }
}

#[test]
fn no_single_byte_of_a_certificate_can_be_changed_or_cut() {
    let lab = House::lab();
    let chain = lab.issue("admin/ann").chain();
    let snapshot = lab.snapshot();
    let is_let_in = |leaf: Vec<u8>| {
        let chain = [CertificateDer::from(leaf), chain[1].clone()];
        !matches!(admit(&chain, birth(), &snapshot), Admit::No(_))
    };
    assert!(is_let_in(chain[0].to_vec()));
    for at in 0..chain[0].len() {
        let mut changed = chain[0].to_vec();
        changed[at] ^= 1 << (at % 8);
        assert!(!is_let_in(changed), "byte {at}");
        assert!(!is_let_in(chain[0][..at].to_vec()), "cut at {at}");
    }
    assert!(!is_let_in([&chain[0][..], &[0]].concat()));
}

#[test]
fn validity_includes_its_first_and_last_second() {
    let lab = House::lab();
    let credentials = lab.issue_for("operator/bob", DAY);
    let (chain, facts) = (credentials.chain(), credentials.certificate());
    let second = std::time::Duration::from_secs(1);
    let at = |now| admit(&chain, now, &lab.snapshot());
    assert!(matches!(at(facts.not_before), Admit::Full(_)));
    assert!(matches!(at(facts.not_after), Admit::Full(_)));
    let (not_before, not_after) = (facts.not_before, facts.not_after);
    let now = not_before - second;
    assert_eq!(at(now), Admit::No(Rejection::NotYetValid { not_before, now }));
    let now = not_after + second;
    assert_eq!(at(now), Admit::No(Rejection::Expired { not_after, now }));
}

#[test]
fn revocation_is_by_serial_by_holder_and_by_issuer() {
    let lab = House::lab();
    let bob = lab.issue("operator/bob");
    let revoked = Admit::No(Rejection::Revoked {
        identity: lab.identity("operator/bob"),
        serial: bob.certificate().serial.clone(),
    });
    let judged = |revoke: &dyn Fn(&mut dora_remote_certs::AdmissionSnapshot)| {
        let mut snapshot = lab.snapshot();
        revoke(&mut snapshot);
        admit(&bob.chain(), birth(), &snapshot)
    };
    let bob_name = "bob".parse().unwrap();
    assert_eq!(
        judged(&|s| s.revoke_serial(&bob.certificate().serial.to_uppercase())),
        revoked
    );
    assert_eq!(judged(&|s| s.revoke_serial(&lab.authority.issuing().serial)), revoked);
    assert_eq!(judged(&|s| s.revoke_holder(Role::Operator, &bob_name)), revoked);
    assert!(matches!(
        judged(&|s| s.revoke_holder(Role::Daemon, &bob_name)),
        Admit::Full(_)
    ));
    assert!(matches!(judged(&|s| s.revoke_serial("")), Admit::Full(_)));
}

#[test]
fn only_daemons_may_renew_after_the_end_and_only_for_a_while_and_never_when_revoked() {
    let (lab, other) = (House::lab(), House::lab());
    let daemon = lab.issue_for("daemon/robot-7", DAY);
    let person = lab.issue_for("operator/bob", DAY);
    let mut snapshot = lab.snapshot();
    snapshot.set_renew_window(DAY * 5);
    let at = |chain: &[CertificateDer<'_>], days| admit(chain, birth() + DAY * days, &snapshot);
    assert_eq!(at(&daemon.chain(), 3), Admit::RenewOnly(daemon.certificate().clone()));
    assert!(matches!(at(&daemon.chain(), 1), Admit::Full(_)));
    assert!(matches!(at(&daemon.chain(), 6), Admit::RenewOnly(_)));
    assert!(matches!(at(&daemon.chain(), 7), Admit::No(Rejection::Expired { .. })));
    assert!(matches!(at(&person.chain(), 3), Admit::No(Rejection::Expired { .. })));
    let foreign = other.issue_for("daemon/robot-7", DAY).chain();
    assert_eq!(at(&foreign, 3), Admit::No(Rejection::UnknownAuthority));
    snapshot.revoke_serial(&daemon.certificate().serial);
    let judged = admit(&daemon.chain(), birth() + DAY * 3, &snapshot);
    assert!(matches!(judged, Admit::No(Rejection::Expired { .. })), "{judged:?}");
}

#[test]
fn an_invite_opens_the_door_for_its_own_key_alone() {
    let lab = House::lab();
    let stranger = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let certificate = good_params(ANN).self_signed(&stranger).unwrap().der().clone();
    let mut snapshot = lab.snapshot();
    snapshot.invite(dora_remote_certs::JoinKey([7; 32]), lab.identity("operator/olga"));
    assert_eq!(
        admit(&[certificate], birth(), &snapshot),
        Admit::No(Rejection::UnknownAuthority)
    );
}

#[test]
fn facts_are_read_without_trust_and_only_from_whole_leaves() {
    let lab = House::lab();
    let credentials = lab.issue("viewer/eve");
    assert_eq!(&facts_of(&credentials.chain()[0]).unwrap(), credentials.certificate());
    assert!(facts_of(lab.authority.root()).is_err());
    assert!(facts_of(&CertificateDer::from(vec![0x30, 0x00])).is_err());
}
