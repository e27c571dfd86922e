//! Real TLS handshakes between the two configurations: who gets through, and what each side learns when nobody does.

use crate::support::{DAY, Ended, House, birth, frozen, good_params, identity, raw_client, raw_server, secret, shake, stopped};
use dora_remote_certs::{
    AdmissionSnapshot, Admit, Credentials, JoinKey, VerifyError, VerifyReport, admit, client_config, client_config_with_report,
    facts_of, server_config, verify_error_of,
};
use dora_remote_protocol::{identity::Role, version::ALPN};
use rcgen::{ExtendedKeyUsagePurpose, KeyPair, PKCS_ED25519, PublicKeyData};
use rustls::{AlertDescription, Error, HandshakeKind, ProtocolVersion};
use std::{sync::Arc, time::SystemTime};

fn meet(client: &Credentials, server: &Credentials, snapshot: AdmissionSnapshot, now: SystemTime) -> Ended {
    shake(
        client_config(client, stopped(now)).unwrap(),
        server_config(server, stopped(now), frozen(snapshot)).unwrap(),
    )
}

#[track_caller]
fn client_refuses(ended: &Ended, alert: AlertDescription) -> VerifyError {
    assert_eq!(ended.server_error, Some(Error::AlertReceived(alert)));
    let error = ended.client_error.as_ref().expect("the client must refuse");
    verify_error_of(error).expect("for a reason of its own")
}

#[track_caller]
fn server_refuses(ended: &Ended, alert: AlertDescription, text: &str) {
    assert_eq!(ended.client_error, Some(Error::AlertReceived(alert)));
    assert!(!ended.client.is_handshaking(), "a TLS 1.3 client is done before it is judged");
    assert!(ended.server.is_handshaking());
    let error = ended.server_error.as_ref().expect("the server must refuse");
    assert_eq!(
        error.to_string(),
        text,
        "the text may travel, so it says no more than the alert"
    );
}

#[test]
fn members_of_one_trust_domain_meet() {
    let lab = House::lab();
    let ended = meet(
        &lab.issue("daemon/robot-7"),
        &lab.issue("coordinator/main"),
        lab.snapshot(),
        birth(),
    );
    assert!(ended.is_good(), "{:?} {:?}", ended.client_error, ended.server_error);

    let chain = ended.client.peer_certificates().unwrap();
    assert_eq!(chain.len(), 3, "leaf, issuing certificate and root");
    assert_eq!(facts_of(&chain[0]).unwrap().identity, lab.identity("coordinator/main"));
    assert_eq!(&chain[2], lab.authority.root());

    let chain = ended.server.peer_certificates().unwrap();
    let Admit::Full(facts) = admit(chain, birth(), &lab.snapshot()) else {
        panic!("the second judgement must be that of the first");
    };
    assert_eq!(facts.identity, lab.identity("daemon/robot-7"));
}

#[test]
fn a_connection_is_tls_1_3_post_quantum_and_never_resumed() {
    let lab = House::lab();
    let ended = meet(
        &lab.issue("admin/ann"),
        &lab.issue("coordinator/main"),
        lab.snapshot(),
        birth(),
    );
    assert_eq!(ended.client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(ended.client.alpn_protocol(), Some(ALPN));
    assert_eq!(ended.server.server_name(), None, "the address plays no part");
    let group = ended.client.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(ended.client.tls13_tickets_received(), 0);

    let config = Arc::new(client_config(&lab.issue("admin/ann"), stopped(birth())).unwrap());
    let server = server_config(&lab.issue("coordinator/main"), stopped(birth()), frozen(lab.snapshot())).unwrap();
    for _ in 0..2 {
        let ended = shake((*config).clone(), server.clone());
        assert_eq!(ended.client.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn client_refuses_the_coordinator_of_another_authority() {
    let (lab, other) = (House::lab(), House::lab());
    let ended = meet(
        &lab.issue("admin/ann"),
        &other.issue("coordinator/main"),
        lab.snapshot(),
        birth(),
    );
    assert_eq!(
        client_refuses(&ended, AlertDescription::UnknownCA),
        VerifyError::UnknownAuthority
    );
}

#[test]
fn client_calls_a_foreign_coordinator_foreign_though_it_is_expired_as_well() {
    let (lab, other) = (House::lab(), House::lab());
    let server = other.issue_for("coordinator/main", DAY);
    let ended = meet(&lab.issue("admin/ann"), &server, lab.snapshot(), birth() + DAY * 2);
    assert_eq!(
        client_refuses(&ended, AlertDescription::UnknownCA),
        VerifyError::UnknownAuthority
    );
}

#[test]
fn server_refuses_a_client_of_another_authority() {
    let (lab, other) = (House::lab(), House::lab());
    let ended = meet(
        &lab.issue("admin/ann"),
        &lab.issue("coordinator/main"),
        other.snapshot(),
        birth(),
    );
    server_refuses(&ended, AlertDescription::UnknownCA, "invalid peer certificate: UnknownIssuer");
}

#[test]
fn client_refuses_an_expired_coordinator_and_knows_both_times() {
    let lab = House::lab();
    let server = lab.issue_for("coordinator/main", DAY);
    let now = birth() + DAY * 2;
    let ended = meet(&lab.issue("admin/ann"), &server, lab.snapshot(), now);
    let expected = VerifyError::Expired {
        not_after: birth() + DAY,
        now,
    };
    assert_eq!(client_refuses(&ended, AlertDescription::CertificateExpired), expected);
}

#[test]
fn client_refuses_a_coordinator_from_the_future_and_knows_both_times() {
    let lab = House::lab();
    let now = birth() - DAY;
    let ended = meet(&lab.issue("admin/ann"), &lab.issue("coordinator/main"), lab.snapshot(), now);
    let error = client_refuses(&ended, AlertDescription::CertificateExpired);
    let expected = VerifyError::NotYetValid {
        not_before: birth() - dora_remote_certs::BACKDATE,
        now,
    };
    assert_eq!(error, expected);
}

#[test]
fn server_refuses_an_expired_client() {
    let lab = House::lab();
    let client = lab.issue_for("operator/bob", DAY);
    let ended = meet(&client, &lab.issue("coordinator/main"), lab.snapshot(), birth() + DAY * 2);
    server_refuses(
        &ended,
        AlertDescription::CertificateExpired,
        "invalid peer certificate: Expired",
    );
}

#[test]
fn a_daemon_cannot_pose_as_the_coordinator() {
    let lab = House::lab();
    let ended = meet(&lab.issue("admin/ann"), &lab.issue("daemon/robot-7"), lab.snapshot(), birth());
    let error = client_refuses(&ended, AlertDescription::CertificateUnknown);
    let expected = VerifyError::NotACoordinator {
        found: lab.identity("daemon/robot-7"),
        trust_domain: "lab".parse().unwrap(),
    };
    assert_eq!(error, expected);
    assert_eq!(
        error.to_string(),
        "the server is spiffe://lab/daemon/robot-7, not a coordinator of lab"
    );
}

#[test]
fn a_coordinator_of_another_trust_domain_under_the_same_root_is_none_of_ours() {
    let lab = House::lab();
    let mut params = good_params("spiffe://attic/coordinator/main");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let (chain, key) = lab.forge(&params);
    let good = server_config(&lab.issue("coordinator/main"), stopped(birth()), frozen(lab.snapshot())).unwrap();
    let client = client_config(&lab.issue("admin/ann"), stopped(birth())).unwrap();
    let ended = shake(client, raw_server(chain, key, good));
    let error = client_refuses(&ended, AlertDescription::CertificateUnknown);
    let found = identity("attic", "coordinator/main");
    assert!(matches!(error, VerifyError::NotACoordinator { found: who, .. } if who == found));
}

#[test]
fn client_refuses_a_coordinator_whose_purpose_is_not_serving_alone() {
    let lab = House::lab();
    let (serve, ask) = (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
    for purpose in [vec![], vec![ask.clone()], vec![serve, ask]] {
        let mut params = good_params("spiffe://lab/coordinator/main");
        params.extended_key_usages = purpose;
        let (chain, key) = lab.forge(&params);
        let good = server_config(&lab.issue("coordinator/main"), stopped(birth()), frozen(lab.snapshot())).unwrap();
        let client = client_config(&lab.issue("admin/ann"), stopped(birth())).unwrap();
        let ended = shake(client, raw_server(chain, key, good));
        let error = client_refuses(&ended, AlertDescription::CertificateUnknown);
        assert!(
            matches!(&error, VerifyError::Malformed { reason } if reason.contains("extended key usage")),
            "{error:?}"
        );
    }
}

#[test]
fn server_demands_a_certificate() {
    let lab = House::lab();
    let client = client_config(&lab.issue("admin/ann"), stopped(birth())).unwrap();
    let server = server_config(&lab.issue("coordinator/main"), stopped(birth()), frozen(lab.snapshot())).unwrap();
    let ended = shake(raw_client(None, client), server);
    assert_eq!(ended.server_error, Some(Error::NoCertificatesPresented));
    assert_eq!(
        ended.client_error,
        Some(Error::AlertReceived(AlertDescription::CertificateRequired))
    );
}

#[test]
fn a_coordinator_may_not_act_as_a_client() {
    let lab = House::lab();
    let ended = meet(
        &lab.issue("coordinator/second"),
        &lab.issue("coordinator/main"),
        lab.snapshot(),
        birth(),
    );
    let text = "invalid peer certificate: ApplicationVerificationFailure";
    server_refuses(&ended, AlertDescription::AccessDenied, text);
}

#[test]
fn server_refuses_a_revoked_client() {
    let lab = House::lab();
    let client = lab.issue("operator/bob");
    let mut by_serial = lab.snapshot();
    by_serial.revoke_serial(&client.certificate().serial);
    let mut by_name = lab.snapshot();
    by_name.revoke_holder(Role::Operator, &"BOB".parse().unwrap());
    for snapshot in [by_serial, by_name] {
        let ended = meet(&client, &lab.issue("coordinator/main"), snapshot, birth());
        server_refuses(
            &ended,
            AlertDescription::CertificateRevoked,
            "invalid peer certificate: Revoked",
        );
    }
}

#[test]
fn server_refuses_a_client_of_another_trust_domain_under_the_same_root() {
    let lab = House::lab();
    let elsewhere = AdmissionSnapshot::new("attic".parse().unwrap(), &[lab.authority.root().clone()]).unwrap();
    let ended = meet(&lab.issue("admin/ann"), &lab.issue("coordinator/main"), elsewhere, birth());
    let text = "invalid peer certificate: ApplicationVerificationFailure";
    server_refuses(&ended, AlertDescription::AccessDenied, text);
}

#[test]
fn a_stolen_certificate_without_its_key_is_worth_nothing() {
    let lab = House::lab();
    let chain = lab.issue("admin/ann").chain();
    let other_key = KeyPair::generate().unwrap();
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&secret(&other_key)).unwrap();
    let mut client = client_config(&lab.issue("viewer/eve"), stopped(birth())).unwrap();
    let certified = rustls::sign::CertifiedKey::new(chain, signer);
    client.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let server = server_config(&lab.issue("coordinator/main"), stopped(birth()), frozen(lab.snapshot())).unwrap();
    let ended = shake(client, server);
    assert_eq!(ended.client_error, Some(Error::AlertReceived(AlertDescription::DecryptError)));
    assert!(ended.server.is_handshaking());
}

#[test]
fn the_key_of_an_open_invite_gets_through_the_handshake() {
    let lab = House::lab();
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let join_key = JoinKey(key.der_bytes().try_into().unwrap());
    let certificate = good_params("spiffe://nobody").self_signed(&key).unwrap().der().clone();
    let mut open = lab.snapshot();
    open.invite(join_key, lab.identity("operator/olga"));
    let client = client_config(&lab.issue("admin/ann"), stopped(birth())).unwrap();
    let client = raw_client(Some((vec![certificate], secret(&key))), client);
    let server = |snapshot| server_config(&lab.issue("coordinator/main"), stopped(birth()), frozen(snapshot)).unwrap();

    let ended = shake(client.clone(), server(open.clone()));
    assert!(ended.is_good(), "{:?} {:?}", ended.client_error, ended.server_error);
    let chain = ended.server.peer_certificates().unwrap();
    assert_eq!(
        admit(chain, birth(), &open),
        Admit::JoinOnly(join_key, lab.identity("operator/olga"))
    );

    let ended = shake(client, server(lab.snapshot()));
    server_refuses(&ended, AlertDescription::UnknownCA, "invalid peer certificate: UnknownIssuer");
}

#[test]
fn a_daemon_that_lapsed_within_the_window_gets_through_the_handshake() {
    let lab = House::lab();
    let (daemon, coordinator) = (lab.issue("daemon/robot-7"), lab.issue("coordinator/main"));
    let now = birth() + DAY * 10;
    let mut lenient = lab.snapshot();
    lenient.set_renew_window(DAY * 90);
    assert!(meet(&daemon, &coordinator, lenient, now).is_good());
    let ended = meet(&daemon, &coordinator, lab.snapshot(), now);
    server_refuses(
        &ended,
        AlertDescription::CertificateExpired,
        "invalid peer certificate: Expired",
    );
}

#[test]
fn a_report_keeps_the_last_refusal_once() {
    let (lab, other) = (House::lab(), House::lab());
    let report = Arc::new(VerifyReport::default());
    let client = client_config_with_report(&lab.issue("admin/ann"), stopped(birth()), report.clone()).unwrap();
    let server =
        |house: &House| server_config(&house.issue("coordinator/main"), stopped(birth()), frozen(lab.snapshot())).unwrap();
    assert!(shake(client.clone(), server(&lab)).is_good());
    assert_eq!(report.take(), None);
    assert!(!shake(client, server(&other)).is_good());
    assert_eq!(report.take(), Some(VerifyError::UnknownAuthority));
    assert_eq!(report.take(), None);
}

#[test]
fn other_tls_errors_are_not_taken_for_a_refused_server() {
    let alert = Error::AlertReceived(AlertDescription::UnknownCA);
    for error in [alert, Error::NoCertificatesPresented, Error::DecryptError] {
        assert_eq!(verify_error_of(&error), None);
    }
}
