//! Tests of reading: what is refused, where it is said to stand, and the policies of the manual.

use super::*;
use crate::{on_revoked::OnRevoked, policy::DENIED};
use std::{fs, os::unix::fs::PermissionsExt};

#[test]
fn a_broken_policy_is_refused_with_its_line() {
    for (text, line, what) in [
        ("[start]\nroles = ['admin']\n[run]\nexecutable = []\n", 4, "executable"),
        ("\n[Run]\n", 2, "Run"),
        ("shell = true", 1, "shell"),
        ("[run]\npython = 'yes'\n", 2, "expected a boolean"),
        // Of a list over several lines, the first line; the text names what is wrong in it.
        (
            "[run]\nexecutables = [\n  '/opt',\n  'bin',\n]\n",
            2,
            "`bin` is not an absolute path, nor \"bundle\"",
        ),
        ("[run]\nexecutables = ['']\n", 2, "not an absolute path"),
        ("[run]\nexecutables = ['~/bin']\n", 2, "not an absolute path"),
        ("[run]\ndirectories = ['bundle']\n", 2, "not an absolute path"),
        ("[start]\nroles = ['owner']\n", 2, "`owner` is not a role"),
        ("[start]\nroles = ['viewer']\n", 2, "never starts anything"),
        ("[start]\nnames = ['olga']\n", 2, "neither ROLE/NAME nor a SPIFFE id"),
        ("[start]\nnames = ['spiffe://lab/operator']\n", 2, "spiffe://"),
        ("[start]\nnames = ['operator/-x']\n", 2, "-x"),
        ("[link]\n\non_revoked = 'panic'\n", 3, "panic"),
        ("[run]\nshell = true\nshell = false\n", 3, "duplicate"),
        ("[run\n", 1, ""),
    ] {
        let (found, told) = Policy::parse(text).expect_err(text);
        assert_eq!(found, line, "{text:?}: {told}");
        assert!(
            told.contains(what) && !told.contains('\n'),
            "{told:?} of {text:?} must say {what:?}"
        );
    }
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("policy.toml");
    let load = || Policy::load(&path).map_err(|error| error.to_string());
    assert!(load().expect_err("absent").contains("policy.toml: No such file"));
    fs::write(&path, "[link]\non_revoked = 'stop'\n").expect("written");
    for (mode, good) in [(0o644, true), (0o600, true), (0o664, false), (0o646, false), (0o777, false)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        match load() {
            Ok(policy) => assert!(good && policy.on_revoked() == OnRevoked::Stop, "{mode:o}"),
            Err(error) => assert!(!good && error.contains(&format!("(mode {mode:o})")), "{mode:o}: {error}"),
        }
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    fs::write(&path, "# a policy\n[run]\nsell = true\n").expect("written");
    let error = load().expect_err("an unknown key");
    assert!(error.contains("policy.toml:3: ") && error.contains("sell"), "{error}");
    fs::write(&path, " ".repeat((1 << 20) + 1)).expect("written");
    assert!(load().expect_err("too long").contains("more than 1048576 bytes"));
    assert!(
        Policy::load(dir.path())
            .expect_err("a directory")
            .to_string()
            .ends_with("is not a file")
    );
    assert_eq!(Policy::default().on_revoked(), OnRevoked::Keep);
}

#[test]
fn the_policy_of_the_manual_is_a_policy() {
    let manual = include_str!("../../../../docs/policy.md");
    let mut found = 0;
    for text in manual.split("```toml\n").skip(1) {
        let text = text.split("```").next().expect("an end");
        let policy = Policy::parse(text).unwrap_or_else(|(line, what)| panic!("line {line}: {what}\n{text}"));
        assert_ne!(policy, Policy::default());
        found += 1;
    }
    assert!(found >= 2, "the manual shows policies");
    for pattern in DENIED {
        assert!(manual.contains(&format!("`{pattern}`")), "{pattern} is in the manual");
    }
}
