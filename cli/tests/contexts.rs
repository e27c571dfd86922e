//! Whole commands of the real binary about contexts, rights and questions. None needs a coordinator.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Write,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

/// A home of its own for one test, with an authority.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().expect("a home"));
        home.ok(&["certs", "init", "--trust-domain", "lab", "--out", "authority"]);
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self) -> PathBuf {
        self.path().join(".config/dora-remote/contexts.toml")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.path())
            .env_clear()
            .env("HOME", self.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    fn run(&self, line: &[&str]) -> Output {
        self.command(BIN).args(line).output().expect("the binary runs")
    }

    /// Runs a command line that must succeed and gives its standard output.
    fn ok(&self, line: &[&str]) -> String {
        let output = self.run(line);
        assert_eq!(exit(&output), 0, "{line:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Makes the identity of somebody with this role.
    fn issue(&self, role: &str) {
        let line = [
            "certs",
            "issue",
            "--authority",
            "authority",
            "--role",
            role,
            "--name",
            "ann",
            "--out",
            role,
        ];
        self.ok(&line);
    }

    fn json(&self, line: &[&str]) -> serde_json::Value {
        let text = self.ok(&[line, &["--format", "json"][..]].concat());
        serde_json::from_str(&text).expect("one document")
    }
}

const BIN: &str = env!("CARGO_BIN_EXE_dora-remote");

fn exit(output: &Output) -> i32 {
    output.status.code().expect("no signal")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn contexts_are_added_used_shown_renamed_and_removed() {
    let home = Home::new();
    assert_eq!(home.ok(&["context", "list"]), "");
    home.ok(&[
        "context",
        "add",
        "lab",
        "--coordinator-addr",
        "robots.example.com",
        "--identity",
        "authority/admin",
    ]);
    home.ok(&[
        "context",
        "add",
        "arm",
        "--coordinator-addr",
        "192.0.2.7:7",
        "--machine",
        "robot-7",
    ]);
    assert_eq!(home.ok(&["context", "list", "-q"]), "arm\nlab\n");
    let listed = home.json(&["context", "list"]);
    assert_eq!(listed["current"], "lab", "the first one");
    assert_eq!(listed["contexts"][1]["coordinator"], "robots.example.com:6013");

    let shown = home.json(&["context", "show"]);
    assert_eq!(shown["you"], "spiffe://lab/admin/admin");
    let identity = fs::canonicalize(home.path()).expect("there").join("authority/admin");
    assert_eq!(shown["context"]["identity"], identity.to_str().expect("UTF-8"));
    assert!(
        home.ok(&["certs", "show"]).contains("spiffe://lab/admin/admin"),
        "one's identity is the context's"
    );

    home.ok(&["context", "use", "ARM"]);
    home.ok(&["context", "rename", "arm", "left-arm"]);
    let shown = home.json(&["context", "show"]);
    assert_eq!(
        (&shown["context"]["name"], &shown["context"]["machine"]),
        (&"left-arm".into(), &"robot-7".into())
    );
    assert_eq!(shown["you"], serde_json::Value::Null);
    let shown = home.json(&["context", "show", "--context", "lab"]);
    assert_eq!(
        (&shown["context"]["name"], &shown["context"]["current"]),
        (&"lab".into(), &false.into())
    );

    for taken in [
        &["context", "rename", "left-arm", "Lab"][..],
        &["context", "add", "LAB", "--coordinator-addr", "h"],
    ] {
        let output = home.run(taken);
        assert_eq!(exit(&output), 1);
        assert!(stderr(&output).contains("nothing was changed"), "{}", stderr(&output));
    }
    for gone in [
        &["context", "use", "gone"][..],
        &["context", "show", "gone"],
        &["context", "remove", "gone"],
        &["list", "--context", "gone"],
    ] {
        assert_eq!(exit(&home.run(gone)), 3, "{gone:?}");
    }
    home.ok(&["context", "remove", "left-arm"]);
    assert_eq!(home.json(&["context", "list"])["current"], serde_json::Value::Null);
    assert_eq!(exit(&home.run(&["context", "show"])), 3);
    home.ok(&["context", "use", "lab"]);
    home.ok(&["context", "use", "--none"]);
    assert_eq!(exit(&home.run(&["context", "show"])), 3);
    assert_eq!(exit(&home.run(&["context", "add", "x"])), 2, "a context needs a coordinator");
    assert_eq!(exit(&home.run(&["context", "use"])), 2);
}

#[test]
fn a_damaged_file_is_told_with_its_line_and_left_alone() {
    let home = Home::new();
    fs::create_dir_all(home.path().join(".config/dora-remote")).expect("made");
    let text = "[contexts.lab]\ncoordinator-addr = \"h\"\npasword = \"x\"\n";
    fs::write(home.file(), text).expect("written");
    for line in [
        &["list"][..],
        &["context", "list"],
        &["context", "use", "lab"],
        &["can-i", "stop"],
    ] {
        let output = home.run(line);
        assert_eq!(exit(&output), 1, "{line:?}");
        let words = stderr(&output);
        assert!(words.contains("contexts.toml:3: unknown field `pasword`"), "{words}");
    }
    assert_eq!(fs::read_to_string(home.file()).expect("there"), text);
    let output = home.run(&["list", "--coordinator-addr", "127.0.0.1:1"]);
    assert_eq!(exit(&output), 6, "nobody needs the file here: {}", stderr(&output));
}

#[test]
fn the_context_says_where_a_verb_goes_and_programs_are_not_told() {
    let home = Home::new();
    // A port that is bound and never answers.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound").to_string();
    home.ok(&[
        "context",
        "add",
        "lab",
        "--coordinator-addr",
        &address,
        "--identity",
        "authority/admin",
    ]);
    home.ok(&[
        "context",
        "add",
        "other",
        "--coordinator-addr",
        "192.0.2.1",
        "--identity",
        "authority/admin",
    ]);
    // Each of them waits for an answer, so they wait together.
    let list = |line: &[&str], variable: &str| {
        let mut command = home.command(BIN);
        command.arg("list").args(line).env("DORA_REMOTE_ADDR", variable);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the binary runs")
    };
    let plain = list(&[], "");
    let chosen = list(&["--context", "other", "--coordinator-addr", &address], "");
    let set_aside = list(&["--context", "other"], &address);
    let on_terminal = on_a_terminal(&home, "list", "");

    let output = plain.wait_with_output().expect("it ends");
    assert_eq!(exit(&output), 5);
    let unreachable = format!("error: cannot connect to the coordinator at {address}\n");
    assert!(stderr(&output).starts_with(&unreachable), "{}", stderr(&output));
    // The context gives the identity, the flag the address.
    let output = chosen.wait_with_output().expect("it ends");
    assert!(stderr(&output).starts_with(&unreachable), "{}", stderr(&output));
    let text = stderr(&set_aside.wait_with_output().expect("it ends"));
    assert!(text.starts_with("warning: ") && text.contains("192.0.2.1:6013"), "{text}");
    if let Some(seen) = on_terminal {
        assert!(seen.contains(&format!("coordinator {address} (context lab)")), "{seen}");
    }
}

/// What a person sees of a command line on a terminal of 80 columns; none where there is no `script(1)`.
fn on_a_terminal(home: &Home, line: &str, typed: &str) -> Option<String> {
    let typed_at = home.path().join("typed");
    fs::write(&typed_at, typed).expect("written");
    let mut script = home.command("script");
    script.args(["-qec", &format!("{BIN} {line}"), "/dev/null"]);
    script.stdin(fs::File::open(typed_at).expect("there"));
    match script.output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(_) => {
            writeln!(std::io::stderr(), "SKIPPED: no script(1)").expect("written");
            None
        }
    }
}

#[test]
fn can_i_answers_by_the_role_of_the_certificate() {
    let home = Home::new();
    for role in ["operator", "viewer", "daemon"] {
        home.issue(role);
    }
    for (verb, admin, operator, viewer, daemon) in [
        ("start", 0, 0, 4, 4),
        ("stop", 0, 0, 4, 4),
        ("list", 0, 0, 0, 4),
        ("ps", 0, 0, 0, 4),
        ("logs", 0, 0, 0, 4),
        ("machines", 0, 0, 0, 4),
        ("status", 0, 0, 0, 4),
        ("daemon", 4, 4, 4, 0),
        ("coordinator", 4, 4, 4, 4),
        ("context", 0, 0, 0, 0),
    ] {
        for (dir, wanted) in [
            ("authority/admin", admin),
            ("operator", operator),
            ("viewer", viewer),
            ("daemon", daemon),
        ] {
            let output = home.run(&["can-i", verb, "--identity", dir]);
            assert_eq!(exit(&output), wanted, "{verb} as {dir}");
            let answer = if wanted == 0 { "yes\n" } else { "no\n" };
            assert_eq!(String::from_utf8_lossy(&output.stdout), answer);
        }
    }
    let output = home.run(&["can-i", "stop", "--identity", "viewer"]);
    assert_eq!(
        stderr(&output),
        "`stop` needs the role admin or operator; you are spiffe://lab/viewer/ann\n"
    );
    assert_eq!(exit(&home.run(&["can-i", "frobnicate", "--identity", "viewer"])), 2);
    assert_eq!(exit(&home.run(&["can-i"])), 2);
    assert_eq!(
        exit(&home.run(&["can-i", "stop"])),
        6,
        "nobody is somebody without an identity"
    );
}

#[test]
fn can_i_lists_every_request_of_the_table() {
    let home = Home::new();
    home.issue("viewer");
    let listed = home.json(&["can-i", "--list", "--identity", "viewer"]);
    assert_eq!((&listed["role"], &listed["schema"]), (&"viewer".into(), &1.into()));
    let verbs = listed["verbs"].as_array().expect("a list");
    let start = verbs.iter().find(|row| row["verb"] == "start").expect("listed");
    assert_eq!(
        (&start["allowed"], &start["roles"]),
        (&false.into(), &serde_json::json!(["admin", "operator"]))
    );
    for row in dora_remote_protocol::verbs::TABLE {
        let is_named = |verb: &serde_json::Value| {
            verb["requests"]
                .as_array()
                .is_some_and(|all| all.iter().any(|name| name == row.name))
        };
        assert!(verbs.iter().any(is_named), "{} is missing", row.name);
    }
    let table = home.ok(&["can-i", "--list", "--identity", "viewer"]);
    assert!(
        table.starts_with("VERB ") && table.lines().any(|line| line.starts_with("list ") && line.contains("yes")),
        "{table}"
    );
}
