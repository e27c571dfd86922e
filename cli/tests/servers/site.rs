//! A coordinator with a home of its own, asked and checked over its admin socket.

use crate::{
    held_port::HeldPort,
    home::{Home, Service, good},
};
use redb::Database;
use serde_json::Value;
use std::{
    path::PathBuf,
    process::{Output, Stdio},
};

/// A coordinator that one command has made.
pub(crate) struct Site {
    pub(crate) home: Home,
    pub(crate) address: String,
    _port: HeldPort,
    coordinator: Option<Service>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let port = HeldPort::new();
        let mut site = Self {
            home: Home::new(),
            address: port.address().to_string(),
            _port: port,
            coordinator: None,
        };
        site.start();
        site
    }

    pub(crate) fn start(&mut self) {
        let state = self.state();
        let line = [
            "coordinator",
            "--trust-domain",
            "lab",
            "--state",
            &state,
            "--listen",
            &self.address,
        ];
        let mut command = self.home.command(line);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut service = Service(command.spawn().expect("starts"));
        self.address = service.address();
        self.coordinator = Some(service);
    }

    /// Ends the coordinator, so that its files are free.
    pub(crate) fn stop(&mut self) {
        let mut service = self.coordinator.take().expect("it runs");
        service.terminate();
        assert!(service.0.wait().expect("ends").success());
    }

    pub(crate) fn kill(&mut self) {
        self.coordinator.take().expect("it runs").crash();
    }

    pub(crate) fn state(&self) -> String {
        self.home.path("state").display().to_string()
    }

    pub(crate) fn socket(&self) -> String {
        format!("{}/admin.sock", self.state())
    }

    pub(crate) fn root(&self) -> String {
        format!("{}/authority/root.crt", self.state())
    }

    /// A command through the admin socket.
    pub(crate) fn local(&self, line: &[&str]) -> Output {
        self.home.run(&[line, &["--admin-socket", &self.socket()]].concat())
    }

    /// Makes as many entries as there are names.
    pub(crate) fn invite(&self, names: impl IntoIterator<Item = String>) {
        for name in names {
            good(&self.local(&[
                "invite",
                "--role",
                "viewer",
                "--name",
                &name,
                "--address",
                "127.0.0.1:1",
                "--token-only",
            ]));
        }
    }

    /// A certificate from the authority, and the directory that it is in.
    pub(crate) fn identity(&self, role: &str, name: &str) -> String {
        let (authority, out) = (
            format!("{}/authority", self.state()),
            self.home.path(name).display().to_string(),
        );
        good(&self.home.run(&[
            "certs",
            "issue",
            "--authority",
            &authority,
            "--role",
            role,
            "--name",
            name,
            "--out",
            &out,
        ]));
        out
    }

    /// The entries, as programs read them.
    pub(crate) fn entries(&self, flags: &[&str]) -> Vec<Value> {
        let output = self.local(&[&["audit", "--format", "json"], flags].concat());
        good(&output)
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// What a check says, and how it exits.
    pub(crate) fn verify(&self) -> (Option<i32>, Value, String) {
        let root = self.root();
        let output = self.local(&["audit", "--verify", "--root", &root, "--format", "json"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no document: {told}"));
        (output.status.code(), document, told)
    }

    pub(crate) fn database(&self) -> Database {
        Database::open(PathBuf::from(self.state()).join("audit.redb")).expect("the file of the audit")
    }

    /// A daemon of this site.
    pub(crate) fn daemon(&self) -> Service {
        let (identity, state) = (self.identity("daemon", "arm"), self.home.path("daemon").display().to_string());
        let line = [
            "daemon",
            "--identity",
            &identity,
            "--coordinator-addr",
            &self.address,
            "--state",
            &state,
        ];
        let mut command = self.home.command(line);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Service(command.spawn().expect("starts"))
    }
}
