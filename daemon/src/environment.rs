//! The environment of the engine child, which every node inherits: an allow-list, never the daemon's own environment.
//!
//! A descriptor can read any variable of the engine into a node, so that nothing secret may be among them.

use dora_remote_protocol::ids::EngineId;
use std::{collections::BTreeMap, ffi::OsString};
use uuid::Uuid;

/// Marks the engine and every process that it made; how orphans are found.
pub(crate) const ENGINE_ID: &str = "DORA_REMOTE_ENGINE_ID";

/// Variables that programs need to run at all; a `*` at the end stands for any rest.
const ALLOWED: &[&str] = &[
    "PATH",
    "HOME",
    "LANG",
    "LC_*",
    "USER",
    "LOGNAME",
    "SHELL",
    "TZ",
    "TMPDIR",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "CUDA_*",
];
/// Milliseconds that dora's daemon waits for the endpoints of nodes on other machines. There is no data path between machines
/// yet, so that waiting longer only blocks its event loop.
const ENDPOINT_EXCHANGE_MS: &str = "300";

/// Picks the engine's environment out of the daemon's (`ours`): the allow-list and `patterns`, then `extra` over both, then what
/// the engine itself needs.
pub(crate) fn of_engine(
    ours: impl IntoIterator<Item = (OsString, OsString)>,
    patterns: &[String],
    extra: &[(String, String)],
    engine: EngineId,
) -> BTreeMap<OsString, OsString> {
    let allowed = |name: &OsString| {
        let Some(name) = name.to_str() else {
            return false;
        };
        ALLOWED
            .iter()
            .copied()
            .chain(patterns.iter().map(String::as_str))
            .any(|p| matches(p, name))
    };
    let mut picked: BTreeMap<OsString, OsString> = ours.into_iter().filter(|(name, _)| allowed(name)).collect();
    picked.entry("RUST_LOG".into()).or_insert_with(|| "info".into());
    picked.extend(extra.iter().map(|(name, value)| (name.into(), value.into())));
    let token = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    picked.insert("DORA_AUTH_TOKEN".into(), token.into());
    picked.insert(ENGINE_ID.into(), engine.to_string().into());
    picked.insert("DORA_ZENOH_ENDPOINT_EXCHANGE_TIMEOUT_MS".into(), ENDPOINT_EXCHANGE_MS.into());
    // Output of nodes is read from dora's files. Sent as events, too, it would only hold up dora's daemon, and a node could
    // write lines that look like words of the daemon.
    picked.insert("DORA_QUIET".into(), "1".into());
    picked
}

/// Whether `name` fits `pattern`, in which each `*` stands for any run of characters.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, pattern)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut rest) = name.strip_prefix(head) else {
        return false;
    };
    let (middle, tail) = pattern.rsplit_once('*').unwrap_or(("", pattern));
    // The first place of each part leaves the most for those behind it.
    for part in middle.split('*') {
        let Some((_, behind)) = rest.split_once(part) else {
            return false;
        };
        rest = behind;
    }
    rest.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(names: &[&str], patterns: &[&str], extra: &[(&str, &str)]) -> BTreeMap<OsString, OsString> {
        let ours = names.iter().map(|name| (OsString::from(name), OsString::from("ours")));
        let patterns: Vec<String> = patterns.iter().map(|&p| p.to_owned()).collect();
        let extra: Vec<(String, String)> = extra.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        of_engine(ours, &patterns, &extra, EngineId(Uuid::nil()))
    }

    #[test]
    fn only_what_is_allowed_reaches_the_engine() {
        let names = [
            "PATH",
            "LC_ALL",
            "CUDA_HOME",
            "SECRET_KEY",
            "DORA_AUTH_TOKEN",
            "LD_PRELOAD",
            "ROS_DOMAIN_ID",
        ];
        let picked = pick(&names, &[], &[]);
        let ours: Vec<_> = picked
            .iter()
            .filter(|(_, value)| *value == "ours")
            .map(|(name, _)| name.clone())
            .collect();
        assert_eq!(ours, ["CUDA_HOME", "LC_ALL", "PATH"]);
        assert_eq!(picked[&OsString::from("RUST_LOG")], "info");
    }

    #[test]
    fn patterns_and_the_file_add_to_it() {
        let picked = pick(
            &["ROS_DOMAIN_ID", "DISPLAY", "MY_X_1", "MY_Y_1"],
            &["ROS_*", "MY_*_1", "DISPLAY2"],
            &[("K", "v")],
        );
        for name in ["ROS_DOMAIN_ID", "MY_X_1", "MY_Y_1", "K"] {
            assert!(picked.contains_key(&OsString::from(name)), "{name} must be there");
        }
        assert!(!picked.contains_key(&OsString::from("DISPLAY")));
    }

    #[test]
    fn each_star_stands_for_any_run_of_characters() {
        for (pattern, names, others) in [
            ("LD_*", vec!["LD_", "LD_PRELOAD"], vec!["LD", "XLD_PRELOAD"]),
            ("*", vec!["", "A"], vec![]),
            ("", vec![""], vec!["A"]),
            ("A*A", vec!["AA", "ABA", "AAA"], vec!["A", "AB"]),
            ("*A**B*", vec!["AB", "xAyBz", "AAB"], vec!["BA", "A"]),
            ("A*B*B", vec!["AxBxB", "ABB"], vec!["AB", "AxB"]),
            ("ü*ß", vec!["üß", "ü-ß"], vec!["üs"]),
        ] {
            for name in names {
                assert!(matches(pattern, name), "{name:?} fits {pattern:?}");
            }
            for name in others {
                assert!(!matches(pattern, name), "{name:?} does not fit {pattern:?}");
            }
        }
    }

    #[test]
    fn nobody_may_choose_the_engines_own_variables() {
        let extra = [("DORA_AUTH_TOKEN", "known"), (ENGINE_ID, "other")];
        let picked = pick(&["DORA_AUTH_TOKEN"], &["*"], &extra);
        let token = picked[&OsString::from("DORA_AUTH_TOKEN")].to_str().unwrap();
        assert!(token.len() == 64 && token.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(picked[&OsString::from(ENGINE_ID)], Uuid::nil().to_string().as_str());
    }
}
