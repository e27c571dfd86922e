//! Archives made by hand, as an attacker would.

use super::*;
use std::os::unix::fs::PermissionsExt;
use tar::Header;
use tempfile::TempDir;

/// One entry with its name and link target written raw, past every check of a well-behaved builder.
fn raw(kind: EntryType, path: &str, link: &str, mode: u32, body: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(body.len() as u64);
    let old = header.as_old_mut();
    old.name[..path.len()].copy_from_slice(path.as_bytes());
    old.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(path: &str, body: &[u8]) -> Vec<u8> {
    raw(EntryType::Regular, path, "", 0o644, body)
}

fn symlink_to(path: &str, target: &str) -> Vec<u8> {
    raw(EntryType::Symlink, path, target, 0o777, b"")
}

fn unpacked(entries: &[Vec<u8>]) -> (TempDir, Result<(), UnpackError>) {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("run");
    fs::create_dir(&root).unwrap();
    let mut tar = entries.concat();
    tar.resize(tar.len() + 1024, 0);
    let archive = zstd::encode_all(tar.as_slice(), 1).unwrap();
    let small = Bounds {
        bytes: 1 << 20,
        entries: 10,
    };
    let result = unpack(archive.as_slice(), &root, small);
    let left: Vec<_> = fs::read_dir(outer.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["run"], "something was written beside the directory");
    (outer, result)
}

#[test]
fn a_good_archive_arrives_whole() {
    let (outer, result) = unpacked(&[
        raw(EntryType::Directory, "./", "", 0o755, b""),
        file("deep/er/node.py", b"print()"),
        raw(EntryType::Directory, "deep/", "", 0o755, b""),
        raw(EntryType::Regular, "run.sh", "", 0o6755, b"#!"),
        symlink_to("deep/er/up", "../../run.sh"),
        raw(EntryType::Link, "same.sh", "run.sh", 0o755, b""),
    ]);
    result.unwrap();
    let root = outer.path().join("run");
    assert_eq!(fs::read(root.join("deep/er/node.py")).unwrap(), b"print()");
    assert_eq!(fs::read(root.join("deep/er/up")).unwrap(), b"#!");
    assert_eq!(fs::read(root.join("same.sh")).unwrap(), b"#!");
    let mode = fs::metadata(root.join("run.sh")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7100, 0o100, "executable, and not set-user-id");
}

#[test]
fn paths_that_lead_out_are_refused() {
    for path in ["../evil", "/evil", "a/../../evil", "a/..", "..", "./../evil"] {
        let (_dir, result) = unpacked(&[file(path, b"x")]);
        assert!(matches!(result, Err(UnpackError::Outside { .. })), "{path}: {result:?}");
    }
}

#[test]
fn links_that_lead_out_are_refused() {
    for (path, target) in [
        ("l", "/etc"),
        ("l", ".."),
        ("l", "../run/x"),
        ("a/l", "../../x"),
        ("l", "a/../../x"),
        ("l", "a/.."),
        ("l", ""),
    ] {
        let (_dir, result) = unpacked(&[symlink_to(path, target)]);
        assert!(
            matches!(result, Err(UnpackError::LinkOutside { .. })),
            "{path} -> {target}: {result:?}"
        );
    }
}

#[test]
fn a_link_to_a_link_does_not_climb() {
    // `sub/x` is the root itself, so that `sub/x/..` would be above it, though the text says otherwise.
    let (_dir, result) = unpacked(&[symlink_to("sub/x", ".."), symlink_to("y", "sub/x/.."), file("y/evil", b"x")]);
    assert!(matches!(result, Err(UnpackError::LinkOutside { .. })), "{result:?}");
}

#[test]
fn nothing_is_written_through_a_link() {
    let (_dir, result) = unpacked(&[symlink_to("l", "."), file("l/evil", b"x")]);
    assert!(matches!(result, Err(UnpackError::ThroughLink { .. })), "{result:?}");
    let (_dir, result) = unpacked(&[symlink_to("l", "target"), file("l", b"x")]);
    assert!(matches!(result, Err(UnpackError::Twice { .. })), "{result:?}");
}

#[test]
fn hard_links_only_name_files_of_the_archive() {
    for target in ["/etc/passwd", "../outside", "absent", "l"] {
        let (_dir, result) = unpacked(&[symlink_to("l", "x"), raw(EntryType::Link, "h", target, 0o644, b"")]);
        assert!(matches!(result, Err(UnpackError::LinkOutside { .. })), "{target}: {result:?}");
    }
}

#[test]
fn devices_and_pipes_are_refused() {
    for kind in [
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Continuous,
        EntryType::GNUSparse,
    ] {
        let (_dir, result) = unpacked(&[raw(kind, "d", "", 0o644, b"")]);
        assert!(result.is_err(), "{kind:?}");
    }
}

#[test]
fn the_same_path_twice_is_refused() {
    let (_dir, result) = unpacked(&[file("a", b"1"), file("./a", b"2")]);
    assert!(matches!(result, Err(UnpackError::Twice { .. })), "{result:?}");
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let (dir, result) = unpacked(&[file("zeros", &vec![0; (1 << 20) + 1])]);
    assert!(matches!(result, Err(UnpackError::TooLarge { .. })), "{result:?}");
    assert!(!dir.path().join("run/zeros").exists());
    let many: Vec<_> = (0..11).map(|n| file(&format!("f{n}"), b"")).collect();
    let (_dir, result) = unpacked(&many);
    assert!(matches!(result, Err(UnpackError::TooManyEntries { max: 10 })), "{result:?}");
    let (_dir, result) = unpacked(&[
        raw(EntryType::GNULongName, "././@LongLink", "", 0o644, &vec![b'a'; 512 << 10]),
        file("short", b""),
    ]);
    assert!(matches!(result, Err(UnpackError::Read(_))), "{result:?}");
}

#[test]
fn garbage_and_torn_archives_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    assert!(unpack(&b"no archive"[..], dir.path(), Bounds::BUNDLE).is_err());
    let whole = zstd::encode_all(file("a", &[7; 5000]).as_slice(), 1).unwrap();
    assert!(unpack(&whole[..whole.len() / 2], dir.path(), Bounds::BUNDLE).is_err());
    let torn = zstd::encode_all(&file("b", &[7; 5000])[..2000], 1).unwrap();
    assert!(unpack(torn.as_slice(), dir.path(), Bounds::BUNDLE).is_err());
}
