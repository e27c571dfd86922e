//! The three files of one identity: whole or not at all, and for their owner alone.

use crate::support::{House, birth};
use dora_remote_certs::{CertError, CertificateKind, Credentials, read_facts};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// A house, the credentials of Ann, and the directory that they were saved to.
fn saved() -> (House, Credentials, PathBuf) {
    let lab = House::lab();
    let ann = lab.issue("admin/ann");
    let dir = lab.dir.path().join("state/identity");
    ann.save(&dir, false).unwrap();
    (lab, ann, dir)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[track_caller]
fn load_fails(dir: &Path, words: &[&str]) {
    let error = Credentials::load(dir).unwrap_err().to_string();
    for word in words {
        assert!(error.contains(word), "`{error}` lacks `{word}`");
    }
}

#[test]
fn what_was_saved_is_loaded() {
    let (lab, ann, dir) = saved();
    let loaded = Credentials::load(&dir).unwrap();
    assert_eq!(loaded.identity(), &lab.identity("admin/ann"));
    assert_eq!(loaded.certificate(), ann.certificate());
    assert_eq!(loaded.chain(), ann.chain());
    assert_eq!(loaded.root(), lab.authority.root());
    assert_eq!(
        loaded.root_fingerprint(),
        read_facts(&dir.join("root.crt")).unwrap()[0].fingerprint
    );
    let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["identity.crt", "identity.key", "root.crt"]);
}

#[test]
fn lapsed_credentials_can_still_be_loaded() {
    let (lab, _, _) = saved();
    let dir = lab.dir.path().join("lapsed");
    let second = std::time::Duration::from_secs(1);
    lab.authority
        .issue(&lab.identity("admin/ann"), second, birth())
        .unwrap()
        .save(&dir, false)
        .unwrap();
    assert_eq!(Credentials::load(&dir).unwrap().certificate().not_after, birth() + second);
}

#[test]
fn keys_are_written_for_their_owner_alone_and_refused_when_open_to_others() {
    let (_lab, _, dir) = saved();
    let key = dir.join("identity.key");
    assert_eq!((mode(&dir), mode(&key)), (0o700, 0o600));
    for open in [0o640, 0o604, 0o660, 0o666] {
        chmod(&key, open);
        let text = format!("mode {open:04o}");
        load_fails(&dir, &["identity.key", &text, "chmod 600"]);
    }
    chmod(&key, 0o400);
    Credentials::load(&dir).unwrap();
    for open in [0o750, 0o701, 0o755] {
        chmod(&dir, open);
        load_fails(&dir, &["state/identity", "chmod 700"]);
    }
}

#[test]
fn a_directory_open_to_others_gets_no_key() {
    let (lab, ann, _) = saved();
    let dir = lab.dir.path().join("open");
    fs::create_dir(&dir).unwrap();
    chmod(&dir, 0o755);
    assert!(matches!(ann.save(&dir, true), Err(CertError::TooOpen { .. })));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn absent_torn_and_foreign_files_name_the_path_and_the_next_step() {
    let (_lab, _, dir) = saved();
    let (_other_lab, _, other) = saved();
    for name in ["identity.crt", "identity.key", "root.crt"] {
        let path = dir.join(name);
        let good = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        load_fails(&dir, &["cannot find", name, "join again"]);
        for torn in [&good[..0], &good[..good.len() / 2], b"-----BEGIN NONSENSE-----"] {
            fs::write(&path, torn).unwrap();
            chmod(&path, 0o600);
            load_fails(&dir, &[name, "damaged", "join again"]);
        }
        fs::write(&path, fs::read(other.join(name)).unwrap()).unwrap();
        load_fails(&dir, &["identity.crt", "damaged", "join again"]);
        fs::write(&path, vec![b' '; 70_000]).unwrap();
        load_fails(&dir, &[name, "more than 65536 bytes"]);
        fs::write(&path, good).unwrap();
    }
    Credentials::load(&dir).unwrap();
    load_fails(Path::new("/nowhere/at/all"), &["/nowhere/at/all/identity.key", "join again"]);
}

#[test]
fn a_broken_key_is_not_quoted() {
    let (_lab, _, dir) = saved();
    let key = dir.join("identity.key");
    fs::write(&key, "-----BEGIN PRIVATE KEY-----\nhush!hush!\n-----END PRIVATE KEY-----\n").unwrap();
    let error = format!("{:?}", Credentials::load(&dir).unwrap_err());
    assert!(!error.contains("hush"), "{error}");
}

#[test]
fn saving_overwrites_only_when_told_to() {
    let (lab, ann, dir) = saved();
    let renewed = lab.issue("admin/ann");
    assert!(matches!(renewed.save(&dir, false), Err(CertError::Exists { .. })));
    assert_eq!(Credentials::load(&dir).unwrap().certificate(), ann.certificate());
    renewed.save(&dir, true).unwrap();
    assert_eq!(Credentials::load(&dir).unwrap().certificate(), renewed.certificate());

    let dangling = lab.dir.path().join("dangling");
    fs::create_dir(&dangling).unwrap();
    chmod(&dangling, 0o700);
    symlink("/nowhere", dangling.join("identity.crt")).unwrap();
    assert!(matches!(ann.save(&dangling, false), Err(CertError::Exists { .. })));
}

#[test]
fn a_key_is_never_written_through_a_link() {
    let (lab, ann, dir) = saved();
    let trap = lab.dir.path().join("trap");
    fs::write(&trap, "untouched").unwrap();
    symlink(&trap, dir.join(".identity.key.next")).unwrap();
    ann.save(&dir, true).unwrap();
    assert_eq!(fs::read_to_string(&trap).unwrap(), "untouched");
    assert!(dir.join("identity.key").symlink_metadata().unwrap().is_file());
}

/// Every state that a crash can leave behind, by the number of renames that were done.
#[test]
fn a_save_that_was_cut_off_leaves_the_old_or_the_new_set() {
    for renames in 0..=3 {
        let (lab, old, dir) = saved();
        let new = lab.issue("admin/ann");
        let whole = lab.dir.path().join("whole");
        new.save(&whole, false).unwrap();
        cut_off(&whole, &dir, renames);
        let expected = if renames == 0 { &old } else { &new };
        assert_eq!(
            Credentials::load(&dir).unwrap().certificate(),
            expected.certificate(),
            "after {renames}"
        );

        // The next save fails in its turn before its first rename: a directory lies where its key is to be staged.
        let newest = lab.issue("admin/ann");
        let obstacle = dir.join(".identity.key.next");
        if renames == 0 {
            fs::remove_file(&obstacle).unwrap();
        }
        fs::create_dir(&obstacle).unwrap();
        assert!(matches!(newest.save(&dir, true), Err(CertError::Write { .. })));
        let loaded = Credentials::load(&dir).unwrap();
        assert_eq!(loaded.certificate(), expected.certificate(), "twice after {renames}");

        fs::remove_dir(&obstacle).unwrap();
        newest.save(&dir, true).unwrap();
        assert_eq!(
            Credentials::load(&dir).unwrap().certificate(),
            newest.certificate(),
            "after {renames}"
        );
    }
}

#[test]
fn a_save_cut_off_under_a_new_authority_is_completed_too() {
    for renames in 1..=3 {
        let (lab, _, dir) = saved();
        let (_other, new, whole) = saved();
        cut_off(&whole, &dir, renames);
        assert_eq!(
            Credentials::load(&dir).unwrap().certificate(),
            new.certificate(),
            "after {renames}"
        );
        let newest = lab.issue("admin/ann");
        newest.save(&dir, true).unwrap();
        assert_eq!(Credentials::load(&dir).unwrap().certificate(), newest.certificate());
    }
}

#[test]
fn any_pem_file_can_be_shown() {
    let (lab, ann, dir) = saved();
    let infos = read_facts(&dir.join("identity.crt")).unwrap();
    assert_eq!(infos.len(), 2);
    assert_eq!(
        (infos[0].kind, infos[1].kind),
        (CertificateKind::Leaf, CertificateKind::Issuing)
    );
    assert_eq!(infos[0].identity.as_ref(), Some(ann.identity()));
    assert_eq!(infos[0].serial, ann.certificate().serial);
    assert_eq!(infos[0].fingerprint, ann.certificate().fingerprint);
    assert_eq!(&infos[1], lab.authority.issuing());
    assert!(read_facts(&dir.join("identity.key")).is_err(), "a key is no certificate");
    assert!(matches!(read_facts(Path::new("/nowhere")), Err(CertError::Absent { .. })));
}

/// Puts the files of a whole set into a directory as a save leaves them that was cut off after so many renames.
fn cut_off(whole: &Path, dir: &Path, renames: usize) {
    for (at, name) in ["identity.key", "identity.crt", "root.crt"].into_iter().enumerate() {
        let to = if at < renames {
            name.to_owned()
        } else {
            format!(".{name}.next")
        };
        fs::copy(whole.join(name), dir.join(to)).unwrap();
    }
}
