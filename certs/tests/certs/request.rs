//! Certificates for keys that stay on their machine: what a request may ask for, and what it gets.

use crate::support::{DAY, House, birth, frozen, secret, shake, stopped, uri};
use dora_remote_certs::{
    CertError, Credentials, MAX_REQUEST_BYTES, Request, RequestError, RequestedKey, client_config, default_life, facts_of,
    new_key_and_request, server_config,
};
use dora_remote_protocol::identity::Role;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData, SanType,
};
use std::time::Duration;
use x509_parser::{certificate::X509Certificate, certification_request::X509CertificationRequest, prelude::FromDer};

const LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

fn ask(lab: &House, role_and_name: &str) -> Request {
    new_key_and_request(&lab.identity(role_and_name)).unwrap()
}

#[track_caller]
fn refused(request: &[u8]) -> RequestError {
    let lab = House::lab();
    let identity = lab.identity("daemon/robot-7");
    lab.authority
        .issue_for_request(request, &identity, LIFE, birth())
        .expect_err("it must be refused")
}

#[test]
fn a_request_becomes_credentials_that_work() {
    let lab = House::lab();
    let request = ask(&lab, "daemon/robot-7");
    let identity = lab.identity("daemon/robot-7");
    let issued = lab
        .authority
        .issue_for_request(request.der(), &identity, default_life(Role::Daemon), birth())
        .unwrap();
    assert_eq!(issued.certificate, facts_of(&issued.chain[0]).unwrap());
    assert_eq!(issued.certificate.identity, identity);
    assert_eq!(issued.certificate.not_after, birth() + LIFE);

    let credentials = request
        .into_credentials(issued.chain.clone(), lab.authority.root().clone())
        .unwrap();
    assert_eq!(
        (credentials.chain(), credentials.certificate()),
        (issued.chain, &issued.certificate)
    );
    let server = server_config(&lab.issue("coordinator/main"), stopped(birth()), frozen(lab.snapshot())).unwrap();
    assert!(shake(client_config(&credentials, stopped(birth())).unwrap(), server).is_good());

    let dir = lab.dir.path().join("identity");
    credentials.save(&dir, false).unwrap();
    assert_eq!(Credentials::load(&dir).unwrap().certificate(), &issued.certificate);
}

#[test]
fn whatever_a_request_asks_for_the_certificate_is_the_plain_one_of_the_record() {
    let lab = House::lab();
    let key = KeyPair::generate().unwrap();
    let mut greedy = CertificateParams::default();
    greedy.distinguished_name.push(DnType::CommonName, "root");
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    greedy.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any];
    greedy.subject_alt_names = vec![
        uri("spiffe://lab/admin/ann"),
        uri("spiffe://lab/coordinator/main"),
        SanType::DnsName("coordinator.lab".try_into().unwrap()),
    ];
    // The only way to ask for a life in a request: a private key usage period (RFC 3280 section 4.2.1.4) until 2036.
    let mut period = vec![0x30, 0x11, 0x81, 0x0F];
    period.extend_from_slice(b"20361231235959Z");
    greedy.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 16], period)];
    let request = greedy.serialize_request(&key).unwrap();

    let identity = lab.identity("viewer/eve");
    let issued = lab
        .authority
        .issue_for_request(request.der(), &identity, DAY, birth())
        .unwrap();
    assert_eq!(issued.certificate.identity, identity);
    assert_eq!(issued.certificate.not_after, birth() + DAY);

    // Not only what we look at: but for key, serial number and signature, it is a certificate that nobody asked for.
    let plain = lab.authority.issue(&identity, DAY, birth()).unwrap().chain().remove(0);
    let (_, ours) = X509Certificate::from_der(&plain).unwrap();
    let (_, theirs) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    assert_eq!(theirs.public_key().raw, key.subject_public_key_info());
    assert_eq!((theirs.subject(), theirs.issuer()), (ours.subject(), ours.issuer()));
    assert_eq!(theirs.validity(), ours.validity());
    let keyless = |certificate: &X509Certificate<'_>| -> Vec<(String, bool, Vec<u8>)> {
        let of_the_key = "2.5.29.14";
        certificate
            .extensions()
            .iter()
            .map(|it| (it.oid.to_id_string(), it.critical, it.value.to_vec()))
            .filter(|(oid, ..)| oid != of_the_key)
            .collect()
    };
    assert_eq!(keyless(&theirs), keyless(&ours));
    Credentials::from_parts(secret(&key), issued.chain, lab.authority.root().clone()).unwrap();
}

#[test]
fn no_changed_byte_gives_another_key() {
    let lab = House::lab();
    let request = ask(&lab, "daemon/robot-7");
    let key = RequestedKey::of(request.der()).unwrap();
    let (_, parsed) = X509CertificationRequest::from_der(request.der()).unwrap();
    let signed_bytes = parsed.certification_request_info.raw.len();
    // The header of the whole has three bytes at this length.
    let signed = 3..3 + signed_bytes;
    for at in 0..request.der().len() {
        let mut spoilt = request.der().to_vec();
        spoilt[at] ^= 1;
        match RequestedKey::of(&spoilt) {
            Err(_) => {}
            // The parser lets some encodings of the same signature pass.
            Ok(same) => assert!(same == key && !signed.contains(&at), "byte {at}"),
        }
    }
}

#[test]
fn a_request_for_the_key_of_somebody_else_proves_nothing() {
    let lab = House::lab();
    let (mine, other) = (ask(&lab, "daemon/robot-7"), KeyPair::generate().unwrap());
    // The point of a P-256 key stands behind the bit string's header `03 42 00` and begins with 04.
    let at = mine.der().windows(4).position(|bytes| bytes == [3, 0x42, 0, 4]).unwrap() + 3;
    let mut stolen = mine.der().to_vec();
    stolen[at..at + 65].copy_from_slice(other.der_bytes());
    assert!(matches!(refused(&stolen), RequestError::NotProven));
}

#[test]
fn requests_for_one_key_have_one_fingerprint() {
    let (lab, key) = (House::lab(), KeyPair::generate().unwrap());
    let request = || CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    let print = |request: &[u8]| RequestedKey::of(request).unwrap().fingerprint().to_owned();
    assert_ne!(request(), request(), "ECDSA signs differently each time");
    assert_eq!(print(&request()), print(&request()));
    assert_ne!(print(&request()), print(ask(&lab, "daemon/robot-7").der()));
}

#[test]
fn keys_of_other_kinds_are_refused() {
    for kind in [&PKCS_ED25519, &PKCS_ECDSA_P384_SHA384] {
        let key = KeyPair::generate_for(kind).unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        assert!(matches!(refused(request.der()), RequestError::WrongKey), "{kind:?}");
    }
}

#[test]
fn a_text_that_is_no_request_is_refused() {
    let lab = House::lab();
    let request = ask(&lab, "daemon/robot-7");
    for end in 0..request.der().len() {
        assert!(
            matches!(refused(&request.der()[..end]), RequestError::NotARequest),
            "cut after {end}"
        );
    }
    let mut longer = request.der().to_vec();
    longer.push(0);
    assert!(matches!(refused(&longer), RequestError::NotARequest));
    assert!(matches!(refused(&lab.issuing()), RequestError::NotARequest));
    let large = vec![0x30; MAX_REQUEST_BYTES + 1];
    assert!(matches!(refused(&large), RequestError::TooLarge { length } if length == large.len()));
}

#[test]
fn the_longest_identity_fits_into_a_request() {
    let house = House::of(&"d".repeat(255));
    let request = ask(&house, &format!("coordinator/{}", "n".repeat(63)));
    assert!(request.der().len() < 800, "{}", request.der().len());
    assert!(RequestedKey::of(request.der()).is_ok());
}

#[test]
fn the_record_must_be_of_the_authority_and_its_life_is_cut_like_any_other() {
    let lab = House::lab();
    let request = ask(&lab, "daemon/robot-7");
    let issue = |identity, life, now| lab.authority.issue_for_request(request.der(), &identity, life, now);
    let foreign = crate::support::identity("attic", "daemon/robot-7");
    assert!(matches!(
        issue(foreign, LIFE, birth()),
        Err(RequestError::Issue(CertError::ForeignIdentity { .. }))
    ));
    let own = lab.identity("daemon/robot-7");
    let issued = issue(own.clone(), DAY * 3650, birth()).unwrap();
    assert_eq!(issued.certificate.not_after, lab.authority.issuing().not_after);
    assert!(matches!(
        issue(own, LIFE, birth() + DAY * 400),
        Err(RequestError::Issue(CertError::IssuingEnded { .. }))
    ));
}

#[test]
fn an_answer_that_does_not_fit_is_refused_before_it_is_used() {
    let lab = House::lab();
    let other = House::lab();
    let identity = lab.identity("daemon/robot-7");
    let answer = |house: &House, request: &Request, identity| {
        let issued = house.authority.issue_for_request(request.der(), &identity, LIFE, birth());
        issued.unwrap().chain
    };
    let root = || lab.authority.root().clone();
    let reason = |result: Result<Credentials, CertError>| match result {
        Err(CertError::BadCertificate { reason }) => reason,
        other => panic!("must be refused as a bad certificate, not {other:?}"),
    };

    let (request, second) = (ask(&lab, "daemon/robot-7"), ask(&lab, "daemon/robot-7"));
    let chain = answer(&lab, &second, identity.clone());
    assert!(reason(request.into_credentials(chain, root())).contains("private key is another one"));

    let request = ask(&lab, "daemon/robot-7");
    let chain = answer(&lab, &request, lab.identity("daemon/robot-8"));
    assert!(reason(request.into_credentials(chain, root())).contains("was asked for"));

    let request = ask(&lab, "daemon/robot-7");
    let chain = answer(&lab, &request, identity.clone())[..1].to_vec();
    assert!(reason(request.into_credentials(chain, root())).contains("1 certificates instead of 2"));

    let request = ask(&lab, "daemon/robot-7");
    let chain = answer(&other, &request, identity.clone());
    assert!(reason(request.into_credentials(chain, root())).contains("does not lead to its root"));

    let request = ask(&lab, "daemon/robot-7");
    let chain = answer(&lab, &request, identity);
    let issuing = lab.issuing();
    assert!(reason(request.into_credentials(chain, issuing)).contains("not a root"));
}

#[test]
fn a_request_shows_no_key() {
    let lab = House::lab();
    let shown = format!("{:?}", ask(&lab, "daemon/robot-7"));
    assert!(
        shown.starts_with("Request { identity: ") && shown.ends_with(", .. }"),
        "{shown}"
    );
    assert!(!shown.contains("der") && !shown.contains("key"), "{shown}");
}
