//! The machines of a cluster: their daemons, which start, end, crash and are installed anew, and their engines.

use super::{Cluster, text};
use crate::{
    binary, patience,
    processes::{self, MARKER},
};
use nix::sys::signal::Signal;
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

impl Cluster {
    /// Lets daemons that are started from now on dial another address than commands do, such as that of a relay.
    pub fn let_daemons_dial(&mut self, address: &str) {
        self.daemon_address = Some(address.to_owned());
    }

    /// Gives daemons that are started from now on more flags.
    pub fn let_daemons_have(&mut self, flags: &[&str]) {
        self.daemon_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// Process id of the agent of a machine.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn daemon_pid(&self, machine: &str) -> u32 {
        self.daemons.get(machine).expect("a daemon that runs").id()
    }

    /// What a daemon has logged so far.
    #[must_use]
    pub fn daemon_log(&self, machine: &str) -> String {
        fs::read_to_string(self.path(&format!("{machine}.log"))).unwrap_or_default()
    }

    /// Issues a daemon's certificate and starts it. `labels` as on the command line, or empty.
    ///
    /// # Panics
    /// When that fails.
    pub fn add_machine(&mut self, machine: &str, labels: &str) {
        let _ = self.issue("daemon", machine, &[]);
        self.labels.insert(machine.to_owned(), labels.to_owned());
        self.start_daemon(machine);
    }

    /// Writes what a machine lets others start, for the next start of its daemon.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn set_policy(&self, machine: &str, policy: &str) {
        let path = self.policy_path(machine);
        fs::write(&path, policy).expect("our own folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our own file");
    }

    /// Writes what daemons that are started from now on find in `/etc/hosts`, in a world; also while they run.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn set_hosts(&self, hosts: &str) {
        fs::write(self.path("hosts"), hosts).expect("our own folder");
    }

    /// Moves the cloud to another address, and the coordinator with it.
    ///
    /// # Panics
    /// When the cluster stands on loopback.
    pub fn move_cloud(&mut self) {
        self.world().move_cloud();
        self.address = format!("{}:6013", crate::netns::CLOUD_LATER);
    }

    fn policy_path(&self, machine: &str) -> PathBuf {
        self.path(&format!("{machine}.policy.toml"))
    }

    /// Starts a daemon, also again after it was killed.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_daemon(&mut self, machine: &str) {
        let state = self.path(machine);
        let identity = self.path(&format!("daemon-{machine}"));
        let mut arguments = vec!["daemon", "--state", text(&state), "--identity", text(&identity)];
        let address = self.daemon_address.as_ref().unwrap_or(&self.address);
        arguments.extend(["--coordinator-addr", address, "--pass-env", MARKER]);
        arguments.extend(self.daemon_flags.iter().map(String::as_str));
        let labels = self.labels.get(machine).cloned().unwrap_or_default();
        if !labels.is_empty() {
            arguments.extend(["--labels", &labels]);
        }
        let policy = self.policy_path(machine);
        if policy.exists() {
            arguments.extend(["--policy", text(&policy)]);
        }
        let hosts = self.path("hosts");
        let place = self.world.as_ref().map(|world| match hosts.exists() {
            true => world.prefix_with_hosts("robot", &hosts),
            false => world.prefix("robot"),
        });
        let program = self.installed.clone().unwrap_or_else(binary::program);
        let child = self.spawn(place, &program, &format!("{machine}.log"), &arguments);
        self.daemons.insert(machine.to_owned(), child);
    }

    /// Installs the program for daemons that are started from now on, as a package does: under its path lies another file then, and what
    /// runs goes on with the former one.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn install(&mut self) {
        let (installed, fresh) = (self.path("installed"), self.path("installed.new"));
        fs::copy(binary::program(), &fresh).expect("room for a copy");
        fs::rename(&fresh, &installed).expect("our own folder");
        self.installed = Some(installed);
    }

    /// Tells the agent of a machine to end, and waits until it has.
    ///
    /// # Panics
    /// When it does not run, or does not end.
    pub fn stop_daemon(&mut self, machine: &str) {
        let mut child = self.daemons.remove(machine).expect("a daemon that runs");
        processes::signal(child.id(), Signal::SIGTERM);
        let status = patience::until("the end of a daemon", || child.try_wait().expect("our own child"));
        assert!(status.success(), "{status}");
    }

    /// Ends the agent of a machine as a crash would. Its engine and nodes are left alone.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_daemon(&mut self, machine: &str) {
        let mut child = self.daemons.remove(machine).expect("a daemon that runs");
        child.kill().expect("our own child");
        child.wait().expect("our own child");
    }

    /// Waits until these machines are connected and their engines are up.
    ///
    /// # Panics
    /// When that never happens.
    #[track_caller]
    pub fn until_connected(&self, machines: &[&str]) {
        let cli = self.cli();
        for machine in machines {
            patience::until(
                &format!("the engine of `{machine}`; log: {}", self.daemon_log(machine)),
                || {
                    let seen = cli.until_machine(machine, true);
                    (seen["engine"] == "up").then_some(())
                },
            );
        }
    }

    /// Process id of the engine of a machine, as `machines` tells it.
    #[must_use]
    pub fn engine_pid(&self, machine: &str) -> u32 {
        let pid = self.cli().until_machine(machine, true)["engine_pid"]
            .as_u64()
            .expect("an engine that is up");
        u32::try_from(pid).expect("a process id")
    }
}
