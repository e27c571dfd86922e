//! An authority, a coordinator and daemons as real processes of the real binary, in one temporary folder.
//!
//! Whatever happens, the end of a [`Cluster`] ends every process that it ever caused, and no other one.

mod machines;

use crate::{
    binary, flows,
    held_port::HeldPort,
    netns::World,
    patience,
    processes::{self, MARKER, Process},
    python,
    run_cli::{Cli, Outcome},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;
use uuid::Uuid;

/// Trust domain of every test authority.
pub const TRUST_DOMAIN: &str = "lab.test";

/// A coordinator and its daemons.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
    marker: String,
    /// The coordinator's, on loopback.
    _port: HeldPort,
    /// Where the coordinator listens.
    listen: String,
    /// Where others find it.
    address: String,
    /// Where daemons find it, when that is elsewhere: a relay.
    daemon_address: Option<String>,
    /// Flags of daemons that are started from now on.
    daemon_flags: Vec<String>,
    world: Option<World>,
    coordinator: Option<Child>,
    daemons: BTreeMap<String, Child>,
    labels: BTreeMap<String, String>,
    /// The program of daemons, where one was installed.
    installed: Option<PathBuf>,
}

impl Cluster {
    /// A coordinator and connected daemons of these names, all on loopback.
    ///
    /// # Panics
    /// When any of it does not come up.
    #[must_use]
    pub fn start(machines: &[&str]) -> Self {
        let mut cluster = Self::authority_only();
        cluster.start_coordinator();
        for machine in machines {
            cluster.add_machine(machine, "");
        }
        cluster.until_connected(machines);
        cluster
    }

    /// The coordinator in the cloud, one daemon `robot` behind NAT, commands from the laptop.
    ///
    /// # Panics
    /// When any of it does not come up.
    #[must_use]
    pub fn in_world(world: World) -> Self {
        let mut cluster = Self::authority_only();
        cluster.listen = "0.0.0.0:6013".to_owned();
        cluster.address = format!("{}:6013", crate::netns::CLOUD);
        cluster.world = Some(world);
        cluster.start_coordinator();
        cluster.add_machine("robot", "");
        cluster.until_connected(&["robot"]);
        cluster
    }

    /// An authority with its first admin, and nothing that runs.
    ///
    /// # Panics
    /// When `certs init` fails.
    #[must_use]
    pub fn authority_only() -> Self {
        // A short path: the engine's unix socket lies below it, and those have at most 107 bytes.
        let folder = tempfile::Builder::new()
            .prefix("drt")
            .tempdir_in("/tmp")
            .expect("a temporary folder");
        let port = HeldPort::new();
        let address = port.address().to_string();
        fs::create_dir(folder.path().join("laptop")).expect("a fresh folder");
        let cluster = Self {
            folder,
            marker: Uuid::new_v4().to_string(),
            _port: port,
            listen: address.clone(),
            address,
            daemon_address: None,
            daemon_flags: vec![],
            world: None,
            coordinator: None,
            daemons: BTreeMap::new(),
            labels: BTreeMap::new(),
            installed: None,
        };
        let authority = cluster.path("authority");
        cluster
            .offline(&["certs", "init", "--trust-domain", TRUST_DOMAIN, "--out", text(&authority)])
            .exits_with(0);
        cluster
    }

    /// A path in the cluster's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where others find the coordinator: `HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The world that the cluster stands in.
    ///
    /// # Panics
    /// When it stands on loopback.
    #[must_use]
    pub fn world(&self) -> &World {
        self.world.as_ref().expect("a cluster in a world")
    }

    /// The first admin, in the folder `laptop`.
    #[must_use]
    pub fn cli(&self) -> Cli {
        let mut cli = self.nobody();
        cli.global = [
            "--coordinator-addr",
            &self.address,
            "--identity",
            text(&self.path("authority/admin")),
        ]
        .map(str::to_owned)
        .to_vec();
        if let Some(world) = &self.world {
            cli.prefix = world.prefix("laptop");
        }
        cli
    }

    /// Runs a command that needs no coordinator.
    pub fn offline(&self, arguments: &[&str]) -> Outcome {
        self.nobody().run(arguments)
    }

    fn nobody(&self) -> Cli {
        let mut cli = Cli::nobody(&self.path("laptop"));
        cli.environment.push((MARKER.to_owned(), self.marker.clone()));
        cli
    }

    /// Issues a certificate and returns its folder.
    ///
    /// # Panics
    /// When `certs issue` fails.
    #[must_use]
    pub fn issue(&self, role: &str, name: &str, more: &[&str]) -> PathBuf {
        let out = self.path(&format!("{role}-{name}"));
        let authority = self.path("authority");
        let mut arguments = vec!["certs", "issue", "--role", role, "--name", name, "--out", text(&out)];
        arguments.extend(["--authority", text(&authority)]);
        arguments.extend(more);
        self.offline(&arguments).exits_with(0);
        out
    }

    /// Starts the coordinator, also again after it was killed, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_coordinator(&mut self) {
        self.spawn_coordinator();
        let cli = self.cli();
        let mut seen = String::new();
        patience::until(
            &format!(
                "an answer of the coordinator; its log is {}",
                self.path("coordinator.log").display()
            ),
            || {
                let status = self.coordinator.as_mut().and_then(|child| child.try_wait().expect("a child"));
                assert!(status.is_none(), "the coordinator ended: {}", self.coordinator_log());
                let outcome = cli.run(&["status"]);
                seen.clone_from(&outcome.stderr);
                (outcome.code == 0).then_some(())
            },
        );
    }

    /// Starts the coordinator and does not wait for it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn_coordinator(&mut self) {
        let (state, authority) = (self.path("coordinator"), self.path("authority"));
        let arguments = [
            "coordinator",
            "--listen",
            &self.listen,
            "--state",
            text(&state),
            "--authority",
            text(&authority),
        ];
        let place = self.world.as_ref().map(|world| world.prefix("cloud"));
        self.coordinator = Some(self.spawn(place, &binary::program(), "coordinator.log", &arguments));
    }

    /// Ends the coordinator as a power cut would.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_coordinator(&mut self) {
        let mut child = self.coordinator.take().expect("a coordinator that runs");
        child.kill().expect("our own child");
        child.wait().expect("our own child");
    }

    /// Process id of the coordinator.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn coordinator_pid(&self) -> u32 {
        self.coordinator.as_ref().expect("a coordinator that runs").id()
    }

    /// What the coordinator has logged so far.
    #[must_use]
    pub fn coordinator_log(&self) -> String {
        fs::read_to_string(self.path("coordinator.log")).unwrap_or_default()
    }

    /// Every living process of this cluster but its coordinator, daemons and commands.
    #[must_use]
    pub fn nodes(&self) -> Vec<Process> {
        let programs = [Some(binary::program()), self.installed.clone()];
        let mut found = processes::of_cluster(&self.marker, self.folder.path());
        for program in programs.iter().flatten() {
            found.retain(|process| !process.command.starts_with(text(program)));
        }
        found.retain(|process| process.variable(processes::ENGINE_MARKER).is_some());
        found
    }

    /// Asserts that no node is left.
    ///
    /// # Panics
    /// When one is.
    #[track_caller]
    pub fn no_node_is_left(&self) {
        let mut left = vec![];
        let what = "the end of every node";
        patience::until(what, || {
            left = self.nodes();
            left.is_empty().then_some(())
        });
    }

    /// Puts a dataflow into a folder of the laptop that no machine has seen, and returns the path of its YAML.
    #[must_use]
    pub fn flow(&self, name: &str, files: &[(&str, &str)]) -> String {
        let folder = self.path("laptop").join(name);
        flows::write(&folder, files);
        text(&folder.join("dataflow.yml")).to_owned()
    }

    /// Copies an example to a folder of the laptop, and returns the path of its YAML.
    #[must_use]
    pub fn example(&self, name: &str) -> String {
        let folder = self.path("laptop").join(name);
        flows::copy_example(name, &folder);
        text(&folder.join("dataflow.yml")).to_owned()
    }

    fn spawn(&self, place: Option<Vec<String>>, program: &Path, log: &str, arguments: &[&str]) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path(log))
            .expect("our own folder");
        let mut words = place.unwrap_or_default();
        words.push(text(program).to_owned());
        words.extend(arguments.iter().map(|word| (*word).to_owned()));
        Command::new(&words[0])
            .args(&words[1..])
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", python::search_path())
            .env("HOME", self.folder.path())
            .env("LANG", "C.UTF-8")
            .env(MARKER, &self.marker)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("an open file"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Shows what every server logged, for a test that failed.
    #[expect(clippy::print_stderr, reason = "only a failed test gets here")]
    fn show_logs(&self) {
        let Ok(entries) = fs::read_dir(self.folder.path()) else {
            return;
        };
        let mut logs: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        logs.retain(|path| path.extension().is_some_and(|ending| ending == "log"));
        logs.extend(
            self.daemons
                .keys()
                .flat_map(|machine| ["engine", "engine-1"].map(|engine| self.path(machine).join(engine).join("engine.log"))),
        );
        logs.sort();
        for log in logs {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(60)..];
            eprintln!("--- {}\n{}", log.display(), last.join("\n"));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Agents before engines before nodes would be kinder; all at once, again and again, is certain.
        for child in self.coordinator.iter_mut().chain(self.daemons.values_mut()) {
            drop(child.kill());
            drop(child.wait());
        }
        processes::end_all(&self.marker, self.folder.path());
        if std::thread::panicking() {
            self.show_logs();
        }
    }
}

/// A path as text.
///
/// # Panics
/// When it is not UTF-8; the paths of tests are.
#[must_use]
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}
