//! What is packed, and that the same files give the same bytes.

use super::*;
use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::fs::{PermissionsExt, symlink},
};
use tempfile::TempDir;

fn folder_with(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, content) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, content).expect("written");
    }
    folder
}

fn packed(folder: &TempDir, named: &[&str]) -> Bundle {
    let named: Vec<PathBuf> = named.iter().map(PathBuf::from).collect();
    pack(folder.path(), &named, Limits::BUNDLE).expect("packed")
}

/// Path to what is behind it: the content of a file, `-> target` of a link, `/` for a directory.
fn unpacked(bundle: Bundle) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(zstd::Decoder::new(bundle.file).expect("zstd"));
    let mut found = BTreeMap::new();
    let mut last = PathBuf::new();
    for entry in archive.entries().expect("tar") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").into_owned();
        assert!(path > last, "sorted: {path:?} behind {last:?}");
        let header = entry.header();
        assert_eq!(
            (header.mtime().ok(), header.uid().ok(), header.gid().ok()),
            (Some(0), Some(0), Some(0))
        );
        let content = match header.entry_type() {
            tar::EntryType::Directory => "/".to_owned(),
            tar::EntryType::Symlink => format!("-> {}", entry.link_name().expect("a target").expect("set").display()),
            _ => {
                let mut content = String::new();
                entry.read_to_string(&mut content).expect("text");
                content
            }
        };
        found.insert(path.to_string_lossy().trim_end_matches('/').to_owned(), content);
        last = path;
    }
    found
}

#[test]
fn the_same_files_give_the_same_bytes() {
    let files = [("flow.yml", "nodes: []"), ("a/b.py", "print()"), ("z", "")];
    let (one, two) = (folder_with(&files), folder_with(&[files[2], files[1], files[0]]));
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(77);
    let file = fs::File::options().write(true).open(two.path().join("z")).expect("opened");
    file.set_modified(old).expect("aged");
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(two.path().join("flow.yml"), mode).expect("changed");
    let (one, two) = (packed(&one, &[]), packed(&two, &[]));
    assert_eq!(one.reference, two.reference);
    assert_eq!(one.reference.entries, 4);
    assert_eq!(one.reference.unpacked_bytes, 16);
    let mut bytes = Vec::new();
    (&one.file).read_to_end(&mut bytes).expect("read");
    assert_eq!(blake3::hash(&bytes).as_bytes(), &one.reference.hash.0);
    assert_eq!(bytes.len() as u64, one.reference.bytes);
}

#[test]
fn what_git_ignores_stays_unless_a_node_names_it() {
    let folder = folder_with(&[
        (".gitignore", "target/\n*.log\n"),
        (".env", "hidden files are files"),
        (".git/config", "never"),
        ("flow.yml", "y"),
        ("run.log", "ignored"),
        ("sub/.gitignore", "data\n"),
        ("sub/data", "ignored"),
        ("sub/kept", "k"),
        ("target/debug/node", "binary"),
        ("target/debug/other", "ignored"),
    ]);
    let found = unpacked(packed(&folder, &["target/debug/node"]));
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    let expected = [
        ".env",
        ".gitignore",
        "flow.yml",
        "sub",
        "sub/.gitignore",
        "sub/kept",
        "target",
        "target/debug",
        "target/debug/node",
    ];
    assert_eq!(names, expected);
}

#[test]
fn ignore_files_above_count_only_within_a_repository() {
    let outer = folder_with(&[(".gitignore", "*.py\n"), ("flow/a.py", "a")]);
    let flow = outer.path().join("flow");
    let bundle = pack(&flow, &[], Limits::BUNDLE).expect("packed");
    assert_eq!(unpacked(bundle).len(), 1, "no repository: the file above says nothing");
    fs::create_dir(outer.path().join(".git")).expect("made");
    let bundle = pack(&flow, &[], Limits::BUNDLE).expect("packed");
    assert_eq!(unpacked(bundle).len(), 0);
}

#[test]
fn links_that_stay_inside_are_kept_and_others_refused() {
    let folder = folder_with(&[(".gitignore", "real\n"), ("real/node", "binary"), ("bin/x", "x")]);
    symlink("../real/node", folder.path().join("bin/node")).expect("linked");
    let found = unpacked(packed(&folder, &["bin/node"]));
    assert_eq!(found["bin/node"], "-> ../real/node");
    assert_eq!(found["real/node"], "binary", "what a named link leads to travels too");
    for target in ["../../etc/passwd", "/etc/passwd"] {
        let link = folder.path().join("bin/out");
        symlink(target, &link).expect("linked");
        let error = pack(folder.path(), &[], Limits::BUNDLE).expect_err("leads out");
        assert!(matches!(error, BundleError::LinkOutside { .. }), "{error}");
        fs::remove_file(link).expect("removed");
    }
}

#[test]
fn modes_are_reduced_to_two() {
    let folder = folder_with(&[("run", "#!"), ("read", "r")]);
    fs::set_permissions(folder.path().join("run"), fs::Permissions::from_mode(0o4711)).expect("changed");
    let bundle = packed(&folder, &[]);
    let mut archive = tar::Archive::new(zstd::Decoder::new(bundle.file).expect("zstd"));
    let modes: Vec<_> = archive
        .entries()
        .expect("tar")
        .map(|entry| entry.expect("an entry").header().mode().expect("a mode"))
        .collect();
    assert_eq!(modes, [0o644, 0o755]);
}

#[test]
fn too_much_is_refused_and_the_largest_files_are_named() {
    let noise: String = (0..20_000_u32)
        .map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761)))
        .collect();
    let folder = folder_with(&[("big.bin", noise.as_str()), ("small", "s")]);
    let limits = |compressed, unpacked, entries| Limits {
        compressed,
        unpacked,
        entries,
    };
    for (limits, text) in [
        (limits(1_000, u64::MAX, 10), "after compression"),
        (limits(u64::MAX, 1_000, 10), "unpacked"),
    ] {
        let error = pack(folder.path(), &[], limits).expect_err("too much").to_string();
        assert!(error.contains(text) && error.contains("big.bin ("), "{error}");
    }
    let error = pack(folder.path(), &[], limits(u64::MAX, u64::MAX, 1)).expect_err("too many");
    assert!(matches!(error, BundleError::TooMany { count: 2, max: 1 }));
}

#[test]
fn long_names_and_deep_folders_travel() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let folder = folder_with(&[(long.as_str(), "deep")]);
    assert_eq!(unpacked(packed(&folder, &[]))[&long], "deep");
}
