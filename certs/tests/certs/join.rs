//! Joining with an invite: the seed's key gets in, and the coordinator is known by the hash of its root alone.

use crate::support::{DAY, Ended, House, birth, frozen, good_params, identity, raw_server, secret, shake, stopped};
use dora_remote_certs::{
    AdmissionSnapshot, Admit, Clock, FloorClock, JoinCredentials, JoinKey, JoinTarget, VerifyError, VerifyReport, admit,
    client_config_for_join, new_seed, server_config, sha256, verify_error_of,
};
use dora_remote_protocol::invite::{InviteSeed, InviteToken};
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use rustls::{AlertDescription, Error, ServerConfig, pki_types::CertificateDer};
use std::{sync::Arc, time::UNIX_EPOCH};

/// A machine that holds an invite of `lab`.
struct Joiner {
    credentials: JoinCredentials,
    target: JoinTarget,
    clock: Arc<dyn Clock>,
}

impl Joiner {
    fn of(lab: &House) -> Self {
        let token = InviteToken::new(
            lab.identity("daemon/robot-7"),
            vec!["coordinator.lab:6013".to_owned()],
            sha256(lab.authority.root()),
            new_seed().unwrap(),
            0,
        )
        .unwrap();
        Self {
            credentials: JoinCredentials::of(token.seed()).unwrap(),
            target: JoinTarget::from(&token),
            clock: stopped(birth()),
        }
    }

    /// Records with this invite open.
    fn admitted(&self, lab: &House) -> AdmissionSnapshot {
        let mut snapshot = lab.snapshot();
        snapshot.invite(self.credentials.join_key(), lab.identity("daemon/robot-7"));
        snapshot
    }

    /// A handshake, and the root that came of it.
    fn meet(&self, server: ServerConfig) -> (Ended, Option<CertificateDer<'static>>) {
        let report = Arc::new(VerifyReport::default());
        let client = client_config_for_join(&self.credentials, &self.target, self.clock.clone(), report.clone()).unwrap();
        let ended = shake(client, server);
        let refusal = ended.client_error.as_ref().and_then(verify_error_of);
        assert_eq!(report.take(), refusal, "the report tells what the error tells");
        (ended, report.take_root())
    }

    #[track_caller]
    fn refuses(&self, server: ServerConfig, alert: AlertDescription) -> VerifyError {
        let (ended, root) = self.meet(server);
        assert_eq!(root, None, "nothing to save");
        assert_eq!(ended.server_error, Some(Error::AlertReceived(alert)));
        verify_error_of(ended.client_error.as_ref().expect("the joiner must refuse")).expect("for a reason of its own")
    }
}

fn coordinator(house: &House, snapshot: AdmissionSnapshot) -> ServerConfig {
    server_config(&house.issue("coordinator/main"), stopped(birth()), frozen(snapshot)).unwrap()
}

#[test]
fn the_holder_of_an_invite_gets_in_to_join_and_learns_the_root() {
    let lab = House::lab();
    let joiner = Joiner::of(&lab);
    let open = joiner.admitted(&lab);
    let (ended, root) = joiner.meet(coordinator(&lab, open.clone()));
    assert!(ended.is_good(), "{:?} {:?}", ended.client_error, ended.server_error);
    assert_eq!(root.as_ref(), Some(lab.authority.root()));
    let chain = ended.server.peer_certificates().unwrap();
    let expected = Admit::JoinOnly(joiner.credentials.join_key(), lab.identity("daemon/robot-7"));
    assert_eq!(admit(chain, birth(), &open), expected);
}

#[test]
fn a_joiner_refuses_a_coordinator_under_a_root_of_another_hash() {
    let (lab, other) = (House::lab(), House::lab());
    let joiner = Joiner::of(&lab);
    let error = joiner.refuses(coordinator(&other, joiner.admitted(&other)), AlertDescription::UnknownCA);
    assert_eq!(error, VerifyError::UnknownAuthority);
}

#[test]
fn a_joiner_refuses_a_coordinator_that_does_not_present_its_root() {
    let lab = House::lab();
    let joiner = Joiner::of(&lab);
    let mut params = good_params("spiffe://lab/coordinator/main");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let (chain, key) = lab.forge(&params);
    let server = raw_server(chain, key, coordinator(&lab, joiner.admitted(&lab)));
    assert_eq!(
        joiner.refuses(server, AlertDescription::UnknownCA),
        VerifyError::UnknownAuthority
    );
}

#[test]
fn presenting_the_right_root_beside_a_foreign_chain_is_worth_nothing() {
    let (lab, thief) = (House::lab(), House::lab());
    let joiner = Joiner::of(&lab);
    let mut params = good_params("spiffe://lab/coordinator/main");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let (mut chain, key) = thief.forge(&params);
    chain.push(lab.authority.root().clone());
    let server = raw_server(chain, key, coordinator(&thief, joiner.admitted(&thief)));
    assert_eq!(
        joiner.refuses(server, AlertDescription::UnknownCA),
        VerifyError::UnknownAuthority
    );
}

#[test]
fn the_hash_of_anything_but_a_root_pins_nothing() {
    let lab = House::lab();
    let mut joiner = Joiner::of(&lab);
    joiner.target.root_hash = sha256(&lab.issuing());
    let server = coordinator(&lab, joiner.admitted(&lab));
    let error = joiner.refuses(server, AlertDescription::CertificateUnknown);
    assert!(matches!(error, VerifyError::Malformed { reason } if reason.contains("not a root")));
}

#[test]
fn a_joiner_refuses_members_that_are_no_coordinators() {
    let lab = House::lab();
    let joiner = Joiner::of(&lab);
    let key = KeyPair::generate().unwrap();
    let (mut chain, _) = lab.forge_with(&good_params("spiffe://lab/daemon/robot-8"), &key);
    chain.push(lab.authority.root().clone());
    let server = raw_server(chain, secret(&key), coordinator(&lab, joiner.admitted(&lab)));
    let expected = VerifyError::NotACoordinator {
        found: lab.identity("daemon/robot-8"),
        trust_domain: "lab".parse().unwrap(),
    };
    assert_eq!(joiner.refuses(server, AlertDescription::CertificateUnknown), expected);
}

#[test]
fn a_joiner_refuses_another_trust_domain() {
    let lab = House::lab();
    let joiner = Joiner::of(&lab);
    let mut params = good_params("spiffe://attic/coordinator/main");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let (mut chain, key) = lab.forge(&params);
    chain.push(lab.authority.root().clone());
    let server = raw_server(chain, key, coordinator(&lab, joiner.admitted(&lab)));
    let error = joiner.refuses(server, AlertDescription::CertificateUnknown);
    let attic = identity("attic", "coordinator/main");
    assert!(matches!(error, VerifyError::NotACoordinator { found, .. } if found == attic));

    let mut joiner = Joiner::of(&lab);
    joiner.target.trust_domain = "attic".parse().unwrap();
    let error = joiner.refuses(coordinator(&lab, joiner.admitted(&lab)), AlertDescription::CertificateUnknown);
    assert!(matches!(error, VerifyError::Malformed { reason } if reason.contains("another trust domain")));
}

#[test]
fn an_invite_that_is_not_open_is_refused_like_any_stranger() {
    let lab = House::lab();
    let (joiner, other) = (Joiner::of(&lab), Joiner::of(&lab));
    for snapshot in [lab.snapshot(), other.admitted(&lab)] {
        let (ended, _) = joiner.meet(coordinator(&lab, snapshot));
        assert_eq!(ended.client_error, Some(Error::AlertReceived(AlertDescription::UnknownCA)));
        let error = ended.server_error.as_ref().expect("the server must refuse");
        assert_eq!(error.to_string(), "invalid peer certificate: UnknownIssuer");
    }
}

#[test]
fn a_joiner_sees_that_the_coordinator_has_lapsed() {
    let lab = House::lab();
    let mut joiner = Joiner::of(&lab);
    joiner.clock = stopped(birth() + DAY * 40);
    let error = joiner.refuses(coordinator(&lab, joiner.admitted(&lab)), AlertDescription::CertificateExpired);
    assert!(matches!(error, VerifyError::Expired { .. }));
}

#[test]
fn a_board_without_a_clock_joins() {
    let lab = House::lab();
    let mut joiner = Joiner::of(&lab);
    // The clock of a person's machine is not doubted.
    joiner.clock = stopped(UNIX_EPOCH);
    let error = joiner.refuses(coordinator(&lab, joiner.admitted(&lab)), AlertDescription::CertificateExpired);
    assert!(matches!(error, VerifyError::NotYetValid { now, .. } if now == UNIX_EPOCH));

    // The build is older than the coordinator's certificate, and nothing is known of an earlier life.
    joiner.clock = Arc::new(FloorClock::new(stopped(UNIX_EPOCH), birth() - DAY * 30, None));
    let (ended, root) = joiner.meet(coordinator(&lab, joiner.admitted(&lab)));
    assert!(ended.is_good() && root.as_ref() == Some(lab.authority.root()));
}

#[test]
fn a_seed_gives_the_key_of_the_standard_and_nothing_is_shown_of_it() {
    // RFC 8032 section 7.1, test 1.
    let bytes = |hex: &str| -> [u8; 32] {
        let byte = |at: usize| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap();
        std::array::from_fn(byte)
    };
    let seed = InviteSeed(bytes("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"));
    let credentials = JoinCredentials::of(&seed).unwrap();
    let public = bytes("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    assert_eq!(credentials.join_key(), JoinKey(public));
    assert_eq!(
        credentials.certificate(),
        JoinCredentials::of(&seed).unwrap().certificate(),
        "Ed25519 signs the same in the same way"
    );
    assert_eq!(
        format!("{credentials:?}"),
        format!("JoinCredentials {{ join_key: {:?}, .. }}", JoinKey(public))
    );
    assert_ne!(new_seed().unwrap(), new_seed().unwrap());
}
