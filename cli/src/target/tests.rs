//! Which coordinator, identity and context a command line and an environment mean together.

use super::*;
use crate::local::Process;
use std::{ffi::OsString, fs};

fn env_of<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
    move |name| {
        set.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| OsString::from(value))
    }
}

fn address(given: &Given, set: &[(&str, &str)]) -> String {
    let env = env_of(set);
    let found = named_address(given, &env).expect("good").expect("named");
    found.to_string()
}

fn with_flag(text: &str) -> Given {
    Given {
        address: Some(text.to_owned()),
        ..Given::default()
    }
}

#[test]
fn the_flag_wins_over_our_variable_and_ours_over_doras() {
    let set = [("DORA_REMOTE_ADDR", "ours"), ("DORA_COORDINATOR_ADDR", "doras")];
    assert_eq!(address(&with_flag("flag:1"), &set), "flag:1");
    assert_eq!(address(&Given::default(), &set), "ours:6013");
    assert_eq!(address(&Given::default(), &set[1..]), "doras:6013");
}

#[test]
fn a_port_may_stand_beside_the_address() {
    let mut given = with_flag("2001:db8::7");
    given.port = Some(7);
    assert_eq!(address(&given, &[]), "[2001:db8::7]:7");
    assert_eq!(address(&with_flag("h"), &[("DORA_COORDINATOR_PORT", "9")]), "h:9");
    assert_eq!(address(&with_flag("h:5"), &[("DORA_COORDINATOR_PORT", "9")]), "h:5");
    let mut given = with_flag("h:6013");
    given.port = Some(7);
    assert_eq!(named_address(&given, &|_| None).expect_err("two ports").exit, Exit::Usage);
}

#[test]
fn without_any_address_the_one_of_up_is_meant_with_its_identity() {
    let home = tempfile::tempdir().expect("a directory");
    let home_text = home.path().to_str().expect("UTF-8").to_owned();
    let set = [("HOME", home_text.as_str())];
    let env = env_of(&set);
    assert_eq!(resolve(&Given::default(), &env).expect_err("nothing runs").exit, Exit::Usage);

    let up = home.path().join(".local/state/dora-remote/up");
    fs::create_dir_all(&up).expect("made");
    let this = Process { pid: 1, started: 1 };
    Record::new("127.0.0.1:7001".to_owned(), this, this)
        .write(&up)
        .expect("written");
    let target = resolve(&Given::default(), &env).expect("found");
    assert_eq!(
        (target.address.to_string(), target.identity),
        ("127.0.0.1:7001".to_owned(), up.join("admin"))
    );

    let elsewhere = resolve(&with_flag("robots"), &env).expect("named");
    assert_eq!(elsewhere.identity, home.path().join(".config/dora-remote/identity"));
    let set = [("HOME", home_text.as_str()), ("DORA_REMOTE_IDENTITY", "/id")];
    assert_eq!(
        resolve(&Given::default(), &env_of(&set)).expect("found").identity,
        PathBuf::from("/id")
    );
}

/// A home with the context `lab`, which is current, and the context `plain`.
fn home_with_contexts() -> (tempfile::TempDir, String) {
    let home = tempfile::tempdir().expect("a directory");
    let text = home.path().to_str().expect("UTF-8").to_owned();
    let dir = home.path().join(".config/dora-remote");
    fs::create_dir_all(&dir).expect("made");
    let contexts = "current = \"lab\"\n[contexts.lab]\ncoordinator-addr = \"lab.example\"\nidentity = \"/lab\"\n\
        machine = \"robot-7\"\n[contexts.plain]\ncoordinator-addr = \"plain.example:7\"\n";
    fs::write(crate::contexts::file_in(&dir), contexts).expect("written");
    (home, text)
}

#[test]
fn the_context_stands_behind_every_address_and_before_the_one_of_up() {
    let (home, text) = home_with_contexts();
    let own = home.path().join(".config/dora-remote/identity");
    let up = home.path().join(".local/state/dora-remote/up");
    fs::create_dir_all(&up).expect("made");
    let this = Process { pid: 1, started: 1 };
    let record = Record::new("127.0.0.1:7001".to_owned(), this, this);
    record.write(&up).expect("written");
    let (flag, chosen) = (Some("flag"), Some("plain"));
    let (ours, doras, in_env) = (
        ("DORA_REMOTE_ADDR", "ours"),
        ("DORA_COORDINATOR_ADDR", "doras"),
        ("DORA_REMOTE_CONTEXT", "LAB"),
    );
    type Row<'a> = (Option<&'a str>, Option<&'a str>, &'a [(&'a str, &'a str)], &'a str, &'a Path);
    let lab = Path::new("/lab");
    let rows: [Row<'_>; 10] = [
        (None, None, &[], "coordinator lab.example:6013 (context lab)", lab),
        (None, chosen, &[], "coordinator plain.example:7 (context plain)", &own),
        (None, chosen, &[in_env], "coordinator plain.example:7 (context plain)", &own),
        (None, None, &[in_env], "coordinator lab.example:6013 (context lab)", lab),
        (flag, None, &[], "coordinator flag:6013", &own),
        (flag, None, &[in_env], "coordinator flag:6013 (context lab)", lab),
        (flag, None, &[ours, doras, in_env], "coordinator flag:6013 (context lab)", lab),
        (None, None, &[ours, doras], "coordinator ours:6013", &own),
        (None, None, &[doras], "coordinator doras:6013", &own),
        (None, chosen, &[doras], "coordinator doras:6013 (context plain)", &own),
    ];
    for (flag, context, set, shown, identity) in rows {
        let set: Vec<_> = set.iter().copied().chain([("HOME", text.as_str())]).collect();
        let given = Given {
            address: flag.map(str::to_owned),
            context: context.map(|name| name.parse().expect("a name")),
            ..Given::default()
        };
        let target = resolve(&given, &env_of(&set)).expect("found");
        assert_eq!(
            (target.to_string().as_str(), target.identity.as_path()),
            (shown, identity),
            "{set:?}"
        );
        let machine = target.machine.as_ref().map(Name::as_str);
        assert_eq!(machine, shown.contains("context lab").then_some("robot-7"));
        let by_variable = flag.is_none() && shown.contains("doras:6013 (");
        assert_eq!(target.set_aside.is_some(), by_variable, "{shown}");
    }
    let set = [("HOME", text.as_str()), ("DORA_REMOTE_IDENTITY", "/id")];
    let target = resolve(&Given::default(), &env_of(&set)).expect("found");
    assert_eq!(target.identity, PathBuf::from("/id"));
}

#[test]
fn a_context_that_is_gone_or_damaged_is_told_where_it_is_needed() {
    let (home, text) = home_with_contexts();
    let gone = [("HOME", text.as_str()), ("DORA_REMOTE_CONTEXT", "gone")];
    let failure = resolve(&with_flag("h"), &env_of(&gone)).expect_err("no such context");
    assert_eq!(failure.exit, Exit::NotFound);
    let no_name = [("HOME", text.as_str()), ("DORA_REMOTE_CONTEXT", "no name")];
    let failure = resolve(&Given::default(), &env_of(&no_name)).expect_err("no name");
    assert_eq!(failure.exit, Exit::Usage);

    let set = [("HOME", text.as_str())];
    let file = crate::contexts::file_in(&home.path().join(".config/dora-remote"));
    fs::write(&file, "current = \"gone\"\n").expect("written");
    let failure = resolve(&Given::default(), &env_of(&set)).expect_err("no such context");
    assert_eq!(failure.exit, Exit::NotFound);
    fs::write(&file, "damaged").expect("written");
    let failure = resolve(&Given::default(), &env_of(&set)).expect_err("damaged");
    assert!(failure.causes[0].contains("contexts.toml:1: "), "{failure:?}");
    assert!(resolve(&with_flag("h"), &env_of(&set)).is_ok(), "the file is not needed");
    assert!(identity(&Given::default(), &env_of(&set)).is_err());
}

#[test]
fn an_identity_needs_no_coordinator() {
    let set = [("HOME", "/home/ann")];
    let own = identity(&Given::default(), &env_of(&set)).expect("the own one");
    assert_eq!(own, PathBuf::from("/home/ann/.config/dora-remote/identity"));
}

#[test]
fn what_is_no_address_is_a_mistake_of_the_command_line() {
    let failure = named_address(&with_flag("a:b:c:d"), &|_| None).expect_err("no address");
    assert_eq!(failure.exit, Exit::Usage);
}

#[cfg(feature = "server")]
mod of_a_daemon {
    use super::*;
    use dora_remote_certs::Authority;
    use std::time::{Duration, SystemTime};

    /// Joins as each of the roles, and gives the home.
    fn joined(roles: &[(&str, &str)], current: Option<&str>) -> tempfile::TempDir {
        let home = tempfile::tempdir().expect("a directory");
        let (domain, now) = ("lab".parse().expect("good"), SystemTime::now());
        let authority = Authority::init(&home.path().join("authority"), &domain, now).expect("made");
        Contexts::change(&home.path().join(".config/dora-remote"), |contexts| {
            for (context, role) in roles {
                let identity = format!("spiffe://lab/{role}/x").parse().expect("good");
                let out = home.path().join(context);
                let issued = authority.issue(&identity, Duration::from_secs(60), now).expect("issued");
                issued.save(&out, false).expect("saved");
                let entry = Entry {
                    coordinator_addr: format!("{context}.example:7").parse().expect("an address"),
                    identity: Some(out),
                    machine: None,
                    on_link_loss: None,
                };
                contexts.contexts.insert(context.parse().expect("a name"), entry);
            }
            contexts.current = current.map(|name| name.parse().expect("a name"));
            Ok::<_, ContextsError>(())
        })
        .expect("written");
        home
    }

    fn meant(home: &tempfile::TempDir, given: &Given) -> Result<Target, Failure> {
        let home = home.path().to_str().expect("UTF-8").to_owned();
        resolve_for_daemon(given, &env_of(&[("HOME", home.as_str())]))
    }

    #[test]
    fn the_only_context_of_a_daemon_is_meant_though_another_one_is_current() {
        let home = joined(&[("lab", "admin"), ("robot", "daemon")], Some("lab"));
        let target = meant(&home, &Given::default()).expect("one of them");
        assert_eq!(target.address.to_string(), "robot.example:7");
        assert_eq!(target.identity, home.path().join("robot"));
        let named = meant(&home, &with_flag("typed")).expect("named");
        assert_eq!(named.address.to_string(), "typed:6013");
    }

    #[test]
    fn of_several_the_current_one_is_meant_or_none() {
        let home = joined(&[("a", "daemon"), ("b", "daemon")], Some("b"));
        assert_eq!(
            meant(&home, &Given::default()).expect("the current one").address.host,
            "b.example"
        );
        let home = joined(&[("a", "daemon"), ("b", "daemon")], None);
        let failure = meant(&home, &Given::default()).expect_err("which?");
        assert_eq!(failure.exit, Exit::Usage);
        assert!(
            failure.message.contains("`a` and `b`") && failure.hint.contains("--context"),
            "{failure:?}"
        );
        let home = joined(&[("lab", "admin")], None);
        assert_eq!(meant(&home, &Given::default()).expect_err("none").exit, Exit::Usage);
    }
}
