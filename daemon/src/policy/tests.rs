//! Table-driven tests of every rule: a policy's text, what the engine found, and what is forbidden of it.

use super::*;
use dora_remote_protocol::{
    engine_to_agent::{NodeFacts, OperatorFacts, OperatorKind, RunFacts, Starts},
    name::MachineName,
    refusal::{Changed, Refusal, RefusalCode},
};
use std::{fs, os::unix::fs::symlink, path::Path};

fn policy(text: &str) -> Policy {
    Policy::parse(text).expect("a good policy")
}

fn machine() -> MachineName {
    "robot-7".parse().expect("good")
}

/// A node that starts something in the bundle's directory.
fn node(starts: Starts) -> NodeFacts {
    NodeFacts {
        node: "x".parse().expect("good"),
        starts,
        dir: "/bundle".to_owned(),
        build: false,
        git: false,
        environment: Vec::new(),
    }
}

fn program(file: &str) -> Starts {
    Starts::Program {
        file: file.to_owned(),
        shell: None,
    }
}

fn shell(file: &str) -> Starts {
    Starts::Program {
        file: file.to_owned(),
        shell: Some("`sh` starts what its arguments say".to_owned()),
    }
}

fn python(script: &str) -> Starts {
    Starts::Python {
        script: script.to_owned(),
    }
}

fn operators(kind: OperatorKind, file: Option<&str>, conda: bool) -> Starts {
    let file = file.map(str::to_owned);
    Starts::Operators(vec![OperatorFacts { kind, file, conda }])
}

fn run(nodes: Vec<NodeFacts>) -> RunFacts {
    RunFacts {
        environment: Vec::new(),
        uv: false,
        nodes,
    }
}

/// Judges with roots that need not exist: `/bundle` for the files that came along.
fn judge(policy: &Policy, facts: &RunFacts) -> Result<(), Refusal> {
    let bundle = Path::new("/bundle").to_owned();
    let executables = policy.run.executables.iter().map(|place| match place {
        Place::Bundle => bundle.clone(),
        Place::At(path) => path.clone(),
    });
    let executables: Vec<_> = executables.collect();
    let directories = policy.run.directories.iter().map(|directory| directory.0.clone());
    let directories = directories.chain([bundle.clone()]).chain(executables.clone()).collect();
    policy.judge(&machine(), facts, &judge::Roots::of(executables, directories))
}

#[track_caller]
fn allowed(policy: &str, facts: &RunFacts) {
    let policy = self::policy(policy);
    assert_eq!(judge(&policy, facts), Ok(()), "{policy:?}");
}

/// Asserts that something is forbidden, by these keys alone, and returns the message.
#[track_caller]
fn forbidden(policy: &str, facts: &RunFacts, keys: &[&str]) -> String {
    let policy = self::policy(policy);
    let refusal = judge(&policy, facts).expect_err("forbidden");
    assert_eq!(
        (refusal.code, refusal.changed),
        (RefusalCode::ForbiddenByMachine, Changed::Nothing)
    );
    let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    let hint = format!("decides that, by {}; nothing was started", keys.join(", "));
    assert!(refusal.hint.contains(&hint), "{refusal:?} must be by {keys:?}");
    assert!(refusal.message.starts_with("machine `robot-7` forbids "), "{refusal}");
    refusal.message
}

#[test]
fn what_a_policy_does_not_allow_it_forbids() {
    let nothing = "";
    forbidden(nothing, &run(vec![node(program("/bundle/x"))]), &["run.executables"]);
    forbidden(
        nothing,
        &run(vec![node(python("/bundle/x.py"))]),
        &["run.executables", "run.python"],
    );
    forbidden(nothing, &run(vec![node(Starts::ShellCommand)]), &["run.shell"]);
    forbidden(nothing, &run(vec![node(Starts::Download)]), &["run.urls"]);
    // A node that somebody else starts is no process of ours, whatever it says.
    let dynamic = NodeFacts {
        environment: vec!["LD_PRELOAD".to_owned()],
        ..node(Starts::Nothing)
    };
    let mut facts = run(vec![dynamic]);
    facts.environment = vec!["LD_PRELOAD".to_owned()];
    allowed(nothing, &facts);
}

#[test]
fn executables_lie_under_a_root() {
    let rules = "[run]\nexecutables = ['/opt/robot/bin', '/usr/bin/camera']";
    for file in ["/opt/robot/bin/x", "/opt/robot/bin/deep/er/x", "/usr/bin/camera"] {
        allowed(rules, &run(vec![node(program(file))]));
    }
    for file in [
        "/usr/bin/foo",
        "/usr/bin/camera2",
        "/opt/robot/binary",
        "/opt/robot",
        "/bundle/x",
        "/opt/robot/BIN/x",
    ] {
        let told = forbidden(rules, &run(vec![node(program(file))]), &["run.executables"]);
        let expected = format!("machine `robot-7` forbids node `x`: its executable {file} is not under an allowed root");
        assert_eq!(told, expected);
    }
    let bundle = "[run]\nexecutables = ['bundle']";
    allowed(bundle, &run(vec![node(program("/bundle/bin/x"))]));
    forbidden(bundle, &run(vec![node(program("/bundle2/x"))]), &["run.executables"]);
    allowed("[run]\nexecutables = ['/']", &run(vec![node(program("/anything"))]));
}

#[test]
fn shells_need_more_than_a_root() {
    let rules = "[run]\nexecutables = ['/usr/bin']";
    let with_shell = "[run]\nexecutables = ['/usr/bin']\nshell = true";
    let told = forbidden(rules, &run(vec![node(shell("/usr/bin/bash"))]), &["run.shell"]);
    assert!(
        told.ends_with("its executable /usr/bin/bash counts as a shell: `sh` starts what its arguments say"),
        "{told}"
    );
    allowed(with_shell, &run(vec![node(shell("/usr/bin/bash"))]));
    allowed(with_shell, &run(vec![node(Starts::ShellCommand)]));
    forbidden(with_shell, &run(vec![node(shell("/bundle/bash"))]), &["run.executables"]);
    forbidden(
        rules,
        &run(vec![node(shell("/bundle/run"))]),
        &["run.executables", "run.shell"],
    );
}

#[test]
fn python_urls_git_and_build_are_each_a_key() {
    let open = |but: &str| {
        let keys = ["shell", "python", "urls", "git", "build", "operators"];
        let keys = keys.iter().map(|key| format!("{key} = {}\n", *key != but));
        format!("[run]\nexecutables = ['bundle']\n{}", keys.collect::<String>())
    };
    let library = OperatorKind::SharedLibrary;
    for (key, what) in [
        ("python", node(python("/bundle/x.py"))),
        ("python", node(operators(OperatorKind::Python, Some("/bundle/x.py"), false))),
        ("urls", node(Starts::Download)),
        ("urls", node(operators(library, None, false))),
        (
            "git",
            NodeFacts {
                git: true,
                ..node(program("/bundle/x"))
            },
        ),
        (
            "build",
            NodeFacts {
                build: true,
                ..node(program("/bundle/x"))
            },
        ),
        ("operators", node(operators(library, Some("/bundle/libx.so"), false))),
        (
            "operators",
            node(operators(OperatorKind::Wasm, Some("/bundle/x.wasm"), false)),
        ),
        ("shell", node(operators(OperatorKind::Python, Some("/bundle/x.py"), true))),
    ] {
        allowed(&open("nothing"), &run(vec![what.clone()]));
        forbidden(&open(key), &run(vec![what]), &[&format!("run.{key}")]);
    }
    let outside = node(operators(library, Some("/tmp/libx.so"), false));
    forbidden(&open("nothing"), &run(vec![outside]), &["run.executables"]);
}

#[test]
fn nodes_run_where_they_may() {
    let rules = "[run]\nexecutables = ['/opt/robot/bin']\ndirectories = ['/data']";
    let at = |dir: &str| {
        run(vec![NodeFacts {
            dir: dir.to_owned(),
            ..node(program("/opt/robot/bin/x"))
        }])
    };
    for dir in ["/bundle", "/bundle/sub", "/opt/robot/bin", "/data/new"] {
        allowed(rules, &at(dir));
    }
    for dir in ["/", "/home/robot/.config/autostart", "/database"] {
        let told = forbidden(rules, &at(dir), &["run.directories"]);
        assert!(
            told.ends_with(&format!("its directory {dir} is not among the allowed ones")),
            "{told}"
        );
    }
    allowed(
        "[run]\nexecutables = ['/opt/robot/bin']\ndirectories = ['/']",
        &at("/anywhere"),
    );
}

#[test]
fn what_takes_code_from_its_directory_needs_a_root_there() {
    let rules = "[run]\nexecutables = ['/opt/robot']\ndirectories = ['/data']\npython = true\noperators = true";
    let with_bundle = rules.replace("['/opt/robot']", "['/opt/robot', 'bundle']");
    // `python -c "import dora"` looks into the directory first.
    let operator = run(vec![node(operators(OperatorKind::Python, Some("/opt/robot/op.py"), false))]);
    let told = forbidden(rules, &operator, &["run.executables"]);
    assert!(told.contains("it takes code from its directory /bundle"), "{told}");
    allowed(&with_bundle, &operator);
    allowed(
        rules,
        &run(vec![node(operators(
            OperatorKind::SharedLibrary,
            Some("/opt/robot/libop.so"),
            false,
        ))]),
    );
    // `uv run` makes the project of the directory its own.
    for starts in [python("/opt/robot/x.py"), program("/opt/robot/x")] {
        let mut facts = run(vec![node(starts)]);
        allowed(rules, &facts);
        facts.uv = true;
        forbidden(rules, &facts, &["run.executables"]);
        allowed(&with_bundle, &facts);
        facts.nodes[0].dir = "/data/x".to_owned();
        forbidden(&with_bundle, &facts, &["run.executables"]);
    }
}

#[test]
fn environment_names_are_judged_wherever_they_stand() {
    let rules = "[run]\nexecutables = ['bundle']\n";
    let with = |name: &str| {
        run(vec![NodeFacts {
            environment: vec![name.to_owned()],
            ..node(program("/bundle/x"))
        }])
    };
    let by_all = |name: &str| RunFacts {
        environment: vec![name.to_owned()],
        ..run(vec![node(program("/bundle/x"))])
    };
    for name in [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "ld_preload",
        "PYTHONPATH",
        "PythonPath",
        "PATH",
        "UV_PYTHON",
        "BASH_ENV",
        "LD_PRELOAD=/tmp/x ",
    ] {
        let told = forbidden(rules, &with(name), &["environment"]);
        assert!(told.contains(&format!("node `x`: it sets the variable `{name}`")), "{told}");
        let told = forbidden(rules, &by_all(name), &["environment"]);
        assert!(
            told.contains(&format!("forbids the dataflow: it sets the variable `{name}`")),
            "{told}"
        );
    }
    for name in ["ROS_DOMAIN_ID", "MY_LD_PATH", "RUST_LOG", "OLD_PYTHONPATH", "PATHS"] {
        allowed(rules, &with(name));
        allowed(rules, &by_all(name));
    }
    let named = format!("{rules}[environment]\nallow = ['ROS_*', 'LD_LIBRARY_PATH']\ndeny = ['*_SECRET']\n");
    allowed(&named, &with("ROS_DOMAIN_ID"));
    allowed(&named, &with("LD_LIBRARY_PATH"));
    for name in ["RUST_LOG", "ros_domain_id", "ROS_SECRET", "ROS_secret"] {
        forbidden(&named, &with(name), &["environment"]);
    }
    // The defaults of one key do not go because the other one is there.
    forbidden(
        &format!("{rules}[environment]\nallow = ['*']"),
        &with("LD_PRELOAD"),
        &["environment"],
    );
    allowed(&format!("{rules}[environment]\ndeny = []"), &with("LD_PRELOAD"));
}

#[test]
fn everything_is_said_at_once_and_in_bounds() {
    let named = |id: &str, starts| NodeFacts {
        node: id.parse().expect("good"),
        ..node(starts)
    };
    let facts = run(vec![named("a", program("/a")), named("b", Starts::ShellCommand)]);
    let told = forbidden("", &facts, &["run.executables", "run.shell"]);
    assert!(
        told.contains("node `a`: its executable /a is") && told.contains("; node `b`: it is a shell command"),
        "{told}"
    );
    let many = (0..20).map(|n| named(&format!("n{n}"), Starts::Download)).collect();
    let told = forbidden("", &run(many), &["run.urls"]);
    assert!(told.ends_with("; and 12 more"), "{told}");
    let ugly = format!("/bundle/\u{1b}[31m{}", "x".repeat(5_000));
    let told = forbidden("", &run(vec![node(program(&ugly))]), &["run.executables"]);
    assert!(told.len() < 1_000 && !told.contains('\u{1b}'), "{told}");
}

#[test]
fn places_are_followed_to_where_they_lead() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().canonicalize().expect("there");
    for name in ["real", "other", "run"] {
        fs::create_dir(root.join(name)).expect("made");
    }
    fs::write(root.join("real/x"), "").expect("written");
    fs::write(root.join("other/y"), "").expect("written");
    // What a dataflow's link or `..` leads to was found by the engine; here the owner's own links are followed.
    symlink(root.join("real"), root.join("current")).expect("made");
    let text = format!(
        "[run]\nexecutables = ['{0}/current', '{0}/gone', 'bundle']\ndirectories = ['{0}/run/../other']",
        root.display()
    );
    let policy = policy(&text);
    let judged = |file: &str, dir: &str, bundle: Option<&Path>| {
        let path = |name: &str| root.join(name).to_str().expect("UTF-8").to_owned();
        let facts = run(vec![NodeFacts {
            dir: path(dir),
            ..node(program(&path(file)))
        }]);
        policy.judge(&machine(), &facts, &policy.roots(bundle)).is_ok()
    };
    let bundle = root.join("run");
    assert!(judged("real/x", "other", None));
    assert!(judged("run/z", "run", Some(&bundle)));
    assert!(!judged("run/z", "other", None), "no files came along");
    assert!(
        !judged("other/y", "other", None),
        "a directory to run in is no place of executables"
    );
    assert!(!judged("gone/x", "other", None));
    assert!(!judged("real/x", "run", None));
    // The link is moved on, as an update does.
    fs::remove_file(root.join("current")).expect("removed");
    symlink(root.join("other"), root.join("current")).expect("made");
    assert!(!judged("real/x", "other", None) && judged("other/y", "other", None));
}

#[test]
fn who_may_start_is_said_by_role_or_by_name() {
    let [ann, olga, olaf, other] = [
        "spiffe://lab/admin/ann",
        "spiffe://lab/operator/olga",
        "spiffe://lab/operator/olaf",
        "spiffe://elsewhere/operator/olga",
    ];
    let nobodies = [
        "",
        "local uid 0",
        "operator/olga",
        "spiffe://lab/viewer/vic",
        "spiffe://lab/admin/ann/x",
    ];
    for (rules, may) in [
        ("", vec![ann, olga, olaf, other]),
        ("[start]\nroles = ['admin', 'operator']", vec![ann, olga, olaf, other]),
        ("[start]\nroles = ['admin']", vec![ann]),
        (
            "[start]\nroles = ['admin']\nnames = ['operator/OLGA']",
            vec![ann, olga, other],
        ),
        ("[start]\nnames = ['spiffe://lab/operator/olga']", vec![olga]),
        ("[start]\nnames = ['admin/olga']", vec![]),
        ("[start]\nroles = []", vec![]),
        ("[start]\nnames = []", vec![]),
    ] {
        let policy = policy(rules);
        for who in [ann, olga, olaf, other] {
            let answer = policy.may_start(&machine(), who);
            assert_eq!(answer.is_ok(), may.contains(&who), "{who} under {rules:?}: {answer:?}");
        }
        for who in nobodies {
            assert_eq!(
                policy.may_start(&machine(), who).is_ok(),
                rules.is_empty(),
                "{who:?} under {rules:?}"
            );
        }
    }
    let refusal = policy("[start]\nroles = ['admin']")
        .may_start(&machine(), olga)
        .expect_err("forbidden");
    assert_eq!(refusal.code, RefusalCode::ForbiddenByMachine);
    assert_eq!(
        refusal.message,
        "machine `robot-7` forbids `operator/olga` to start anything on it"
    );
}
