//! What an authority makes, how long it lives, and how it is kept.

use crate::support::{DAY, House, birth, identity};
use dora_remote_certs::{
    AdmissionSnapshot, Admit, Authority, BACKDATE, CertError, CertificateKind, ISSUING_LIFE, ROOT_LIFE, admit, default_life,
    read_facts,
};
use dora_remote_protocol::identity::Role;
use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, time::Duration};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

#[test]
fn leaves_keep_the_profile_of_their_role() {
    let lab = House::lab();
    for (who, serves) in [
        ("coordinator/main", true),
        ("daemon/robot-7", false),
        ("admin/ann", false),
        ("operator/bob", false),
        ("viewer/eve", false),
    ] {
        let chain = lab.issue(who).chain();
        let (_, x509) = parse_x509_certificate(&chain[0]).unwrap();
        assert_eq!(x509.subject().iter().count(), 0, "a subject tells strangers too much");
        assert!(!x509.is_ca());
        let names = x509.subject_alternative_name().unwrap().unwrap();
        let expected = format!("spiffe://lab/{who}");
        assert_eq!(names.value.general_names, [GeneralName::URI(&expected)]);
        assert!(names.critical, "RFC 5280 section 4.2.1.6: the subject is empty");
        let usage = x509.key_usage().unwrap().unwrap();
        assert!(usage.critical);
        assert_eq!(usage.value.flags, 1, "digitalSignature and nothing else");
        let purpose = x509.extended_key_usage().unwrap().unwrap().value;
        assert_eq!((purpose.server_auth, purpose.client_auth), (serves, !serves));
        assert!(!purpose.any && purpose.other.is_empty());
        let key = x509.public_key();
        assert_eq!(
            key.algorithm.parameters.as_ref().unwrap().as_oid().unwrap().to_id_string(),
            "1.2.840.10045.3.1.7"
        );
    }
}

#[test]
fn the_issuing_certificate_makes_no_further_authorities() {
    let lab = House::lab();
    let issuing = lab.issuing();
    let (_, issuing) = parse_x509_certificate(&issuing).unwrap();
    let constraints = issuing.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = issuing.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && !usage.value.digital_signature());
    let (_, root) = parse_x509_certificate(lab.authority.root()).unwrap();
    assert!(root.is_ca());
    issuing.verify_signature(Some(root.public_key())).unwrap();
    root.verify_signature(None).unwrap();
}

#[test]
fn authorities_live_as_long_as_promised() {
    let lab = House::lab();
    let dir = lab.dir.path().join("authority");
    for (file, kind, life) in [
        ("root.crt", CertificateKind::Root, ROOT_LIFE),
        ("issuing.crt", CertificateKind::Issuing, ISSUING_LIFE),
    ] {
        let info = read_facts(&dir.join(file)).unwrap().remove(0);
        assert_eq!(
            (info.kind, info.not_before, info.not_after),
            (kind, birth() - BACKDATE, birth() + life)
        );
        assert_eq!(info.trust_domain.unwrap().as_str(), "lab");
        assert_eq!(info.identity, None);
        assert!(!info.subject.contains("lab"), "{}", info.subject);
    }
    assert_eq!(
        (default_life(Role::Daemon), default_life(Role::Coordinator)),
        (DAY * 7, DAY * 30)
    );
    assert_eq!((default_life(Role::Admin), default_life(Role::Viewer)), (DAY * 30, DAY * 30));
}

#[test]
fn serials_are_random_and_of_128_bits() {
    let lab = House::lab();
    let serials: BTreeSet<String> = (0..20)
        .map(|_| lab.issue("viewer/eve").certificate().serial.clone())
        .collect();
    assert_eq!(serials.len(), 20);
    assert!(serials.iter().any(|serial| serial.len() == 32), "{serials:?}");
    assert!(serials.iter().all(|serial| (24..=32).contains(&serial.len())), "{serials:?}");
}

#[test]
fn no_leaf_outlives_the_issuing_certificate() {
    let lab = House::lab();
    let bob = lab.identity("operator/bob");
    let end = birth() + ISSUING_LIFE;
    for life in [ISSUING_LIFE, ROOT_LIFE, Duration::MAX] {
        let issued = lab.authority.issue(&bob, life, birth() + DAY).unwrap();
        assert_eq!(issued.certificate().not_after, end);
    }
    let late = lab.authority.issue(&bob, DAY * 30, end - DAY).unwrap();
    assert_eq!(late.certificate().not_after, end);
    assert!(matches!(
        lab.authority.issue(&bob, DAY, end),
        Err(CertError::IssuingEnded { .. })
    ));
}

#[test]
fn no_leaf_begins_before_the_issuing_certificate() {
    let lab = House::lab();
    let bob = lab.identity("operator/bob");
    let begin = birth() - BACKDATE;
    let early = lab.authority.issue(&bob, DAY, begin).unwrap();
    assert_eq!(
        (early.certificate().not_before, early.certificate().not_after),
        (begin, begin + DAY)
    );
    let error = lab.authority.issue(&bob, DAY, begin - DAY).unwrap_err();
    assert!(matches!(error, CertError::IssuingNotBegun { .. }), "{error}");
}

#[test]
fn an_authority_issues_only_within_its_trust_domain_and_only_lives_worth_living() {
    let lab = House::lab();
    let stranger = identity("attic", "admin/ann");
    assert!(matches!(
        lab.authority.issue(&stranger, DAY, birth()),
        Err(CertError::ForeignIdentity { .. })
    ));
    let ann = lab.identity("admin/ann");
    assert!(matches!(
        lab.authority.issue(&ann, Duration::ZERO, birth()),
        Err(CertError::NoLife)
    ));
}

#[test]
fn a_second_init_changes_nothing() {
    let lab = House::lab();
    let dir = lab.dir.path().join("authority");
    let read = || ["root.key", "root.crt", "issuing.key", "issuing.crt"].map(|name| fs::read(dir.join(name)).unwrap());
    let before = read();
    let error = Authority::init(&dir, &"lab".parse().unwrap(), birth()).unwrap_err();
    assert!(matches!(error, CertError::Exists { .. }), "{error}");
    assert_eq!(read(), before);

    fs::remove_file(dir.join("root.key")).unwrap();
    assert!(matches!(
        Authority::init(&dir, &"lab".parse().unwrap(), birth()),
        Err(CertError::Exists { .. })
    ));
}

#[test]
fn keys_are_for_their_owner_alone() {
    let lab = House::lab();
    let dir = lab.dir.path().join("authority");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("root.key")), 0o600);
    assert_eq!(mode(&dir.join("issuing.key")), 0o600);

    fs::set_permissions(dir.join("issuing.key"), PermissionsExt::from_mode(0o640)).unwrap();
    let error = Authority::load(&dir).unwrap_err().to_string();
    assert!(
        error.contains("mode 0640") && error.contains("chmod 600") && error.contains("issuing.key"),
        "{error}"
    );
}

#[test]
fn a_loaded_authority_issues_without_the_key_of_its_root() {
    let lab = House::lab();
    let dir = lab.dir.path().join("authority");
    fs::remove_file(dir.join("root.key")).unwrap();
    let loaded = Authority::load(&dir).unwrap();
    assert_eq!(loaded.trust_domain(), lab.authority.trust_domain());
    let issued = loaded.issue(&lab.identity("admin/ann"), DAY, birth()).unwrap();
    assert!(matches!(
        dora_remote_certs::admit(&issued.chain(), birth(), &lab.snapshot()),
        dora_remote_certs::Admit::Full(_)
    ));
}

#[test]
fn a_torn_authority_names_the_file_and_the_next_step() {
    let (lab, other) = (House::lab(), House::lab());
    let (dir, elsewhere) = (lab.dir.path().join("authority"), other.dir.path().join("authority"));
    for (name, how) in [
        ("issuing.key", "absent"),
        ("issuing.crt", "absent"),
        ("root.crt", "absent"),
        ("issuing.key", "empty"),
        ("issuing.crt", "empty"),
        ("root.crt", "empty"),
        ("issuing.key", "of another authority"),
        ("issuing.crt", "of another authority"),
        ("root.crt", "of another authority"),
    ] {
        let path = dir.join(name);
        let good = fs::read(&path).unwrap();
        match how {
            "absent" => fs::remove_file(&path).unwrap(),
            "empty" => fs::write(&path, "").unwrap(),
            _ => fs::write(&path, fs::read(elsewhere.join(name)).unwrap()).unwrap(),
        }
        let error = Authority::load(&dir).unwrap_err().to_string();
        assert!(
            error.contains(dir.to_str().unwrap()) && error.contains("certs init"),
            "{name} {how}: {error}"
        );
        fs::write(&path, good).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    }
    Authority::load(&dir).unwrap();
}

#[test]
fn debug_shows_no_key() {
    let lab = House::lab();
    let text = format!("{:?} {:?}", lab.authority, lab.issue("admin/ann"));
    assert!(!text.to_lowercase().contains("key"), "{text}");
}

#[test]
fn a_new_issuing_certificate_stands_under_the_same_root_and_outlives_the_old_one() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("authority");
    let before = Authority::init(&dir, &"lab".parse().unwrap(), birth()).unwrap();
    let old = before.issue(&identity("lab", "daemon/robot-7"), DAY, birth()).unwrap();
    let later = birth() + ISSUING_LIFE + DAY;
    assert!(matches!(
        before.issue(&identity("lab", "daemon/robot-7"), DAY, later),
        Err(CertError::IssuingEnded { .. })
    ));
    let after = Authority::renew_issuing(&dir, later).unwrap();
    assert_eq!(after.root(), before.root());
    assert_ne!(after.issuing().serial, before.issuing().serial);
    let loaded = Authority::load(&dir).unwrap();
    assert_eq!(loaded.issuing().serial, after.issuing().serial);
    let new = loaded.issue(&identity("lab", "daemon/robot-7"), DAY, later).unwrap();
    let mut snapshot = AdmissionSnapshot::of(&new).unwrap();
    assert!(matches!(admit(&new.chain(), later, &snapshot), Admit::Full(_)));
    // A daemon that was away for more than a year still shows the chain of the old one.
    assert!(matches!(admit(&old.chain(), later, &snapshot), Admit::No(_)));
    snapshot.set_renew_window(ISSUING_LIFE * 10);
    assert!(matches!(admit(&old.chain(), later, &snapshot), Admit::RenewOnly(_)));
}

#[test]
fn a_renewal_that_was_cut_off_is_read_as_what_it_was_about_to_become() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("authority");
    Authority::init(&dir, &"lab".parse().unwrap(), birth()).unwrap();
    let old = fs::read(dir.join("issuing.crt")).unwrap();
    let renewed = Authority::renew_issuing(&dir, birth() + DAY).unwrap();
    // As after the first rename: the key is new, and its certificate still lies beside the old one.
    fs::rename(dir.join("issuing.crt"), dir.join(".issuing.crt.next")).unwrap();
    fs::write(dir.join("issuing.crt"), old).unwrap();
    let loaded = Authority::load(&dir).unwrap();
    assert_eq!(loaded.issuing().serial, renewed.issuing().serial);
}

#[test]
fn without_the_key_of_the_root_nothing_is_renewed() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("authority");
    let before = Authority::init(&dir, &"lab".parse().unwrap(), birth()).unwrap();
    fs::remove_file(dir.join("root.key")).unwrap();
    let error = Authority::renew_issuing(&dir, birth() + DAY).unwrap_err().to_string();
    assert!(error.contains("root.key"), "{error}");
    assert_eq!(Authority::load(&dir).unwrap().issuing().serial, before.issuing().serial);
}
