//! The files of the two services: the unit, the user that it runs as, and the directory that belongs to that user.
//!
//! Pure: makes text and touches no file. Every restriction here must leave alone what a coordinator or a node may need.

use super::unit::{Unit, UnitFile, command_line};
use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

/// A service: its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Name of the unit, without its ending, and of its other files.
    pub unit: &'static str,
    /// The user and the group that it runs as, and the name of the directory below `/var/lib` that is that user's home.
    pub user: &'static str,
    /// What it is, for people.
    pub description: &'static str,
}

/// The coordinator as a service.
pub const COORDINATOR: Service = Service {
    unit: "dora-remote-coordinator",
    user: "dora-remote-coordinator",
    description: "dora-remote coordinator",
};

/// The daemon as a service.
pub const DAEMON: Service = Service {
    unit: "dora-remote-daemon",
    user: "dora-remote",
    description: "dora-remote daemon of this machine",
};

impl Service {
    /// Its home: what it must not forget.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        Path::new("/var/lib").join(self.user)
    }
}

/// What the unit of a coordinator depends on.
#[derive(Clone, Debug, Default)]
pub struct CoordinatorWishes {
    /// The program.
    pub program: PathBuf,
    /// Arguments beside `coordinator` and `--state`.
    pub arguments: Vec<OsString>,
}

/// What the unit of a daemon depends on.
#[derive(Clone, Debug, Default)]
pub struct DaemonWishes {
    /// The program.
    pub program: PathBuf,
    /// Arguments beside `daemon` and `--state`.
    pub arguments: Vec<OsString>,
    /// Groups that nodes need, such as those of devices.
    pub groups: Vec<String>,
}

/// The files of the coordinator's service.
///
/// # Errors
/// The argument that no unit can hold.
pub fn coordinator(wishes: &CoordinatorWishes) -> Result<Vec<UnitFile>, String> {
    let home = COORDINATOR.home();
    let start = exec(&wishes.program, "coordinator", &home, &wishes.arguments)?;
    let unit = head(&COORDINATOR)
        .section("Service")
        .set("ExecStart", &start)
        .all(&running(&COORDINATOR))
        .all(&[("TimeoutStopSec", "20s"), ("LimitNOFILE", "65536"), ("UMask", "0077")])
        .comment(&["It needs its socket and its directory, and nothing else."])
        .all(&HARDENING)
        .all(&[
            ("PrivateTmp", "yes"),
            ("PrivateDevices", "yes"),
            ("ProtectKernelTunables", "yes"),
            ("ProtectKernelLogs", "yes"),
            ("ProtectClock", "yes"),
            ("ProtectProc", "invisible"),
            ("ProcSubset", "pid"),
            ("MemoryDenyWriteExecute", "yes"),
            ("RestrictNamespaces", "yes"),
            ("RestrictRealtime", "yes"),
            ("LockPersonality", "yes"),
            ("RemoveIPC", "yes"),
            ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
            ("SystemCallArchitectures", "native"),
            ("SystemCallFilter", "@system-service"),
            ("SystemCallFilter", "~@privileged @resources"),
            ("SystemCallErrorNumber", "EPERM"),
        ]);
    Ok(files(&COORDINATOR, tail(unit)))
}

/// The files of the daemon's service.
///
/// # Errors
/// The argument or the group that no unit can hold.
pub fn daemon(wishes: &DaemonWishes) -> Result<Vec<UnitFile>, String> {
    let home = DAEMON.home();
    let start = exec(&wishes.program, "daemon", &home.join("daemon"), &wishes.arguments)?;
    let unit = head(&DAEMON)
        .section("Service")
        .set("ExecStart", &start)
        .all(&running(&DAEMON))
        .comment(&["Engine and nodes outlive the daemon: a restart or an upgrade of it never touches a running dataflow."])
        .all(&[("KillMode", "process"), ("TimeoutStopSec", "30s")])
        .comment(&["A node that uses up the memory ends alone."])
        .all(&[("OOMPolicy", "continue"), ("LimitNOFILE", "65536")]);
    let unit = if wishes.groups.is_empty() {
        unit
    } else {
        unit.set("SupplementaryGroups", &groups(&wishes.groups)?)
    };
    let unit = unit
        .comment(&[
            "Nodes live under all of this too, so devices, shared memory, real-time scheduling and compilation at run time stay",
            "possible (`ProtectClock=` would close all devices). /tmp is that of the machine: a private one would be emptied under",
            "the nodes when the daemon starts again.",
        ])
        .all(&HARDENING)
        .all(&[
            ("ReadWritePaths", "/tmp /var/tmp"),
            ("ProtectKernelLogs", "yes"),
            ("LockPersonality", "yes"),
            (
                "RestrictAddressFamilies",
                "AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_CAN AF_BLUETOOTH",
            ),
            ("SystemCallArchitectures", "native"),
            (
                "SystemCallFilter",
                "~@clock @cpu-emulation @module @mount @obsolete @raw-io @reboot @swap",
            ),
            ("SystemCallErrorNumber", "EPERM"),
        ]);
    Ok(files(&DAEMON, tail(unit)))
}

/// What both have in common: no right that a user without any has not, and nothing to write but their own directory.
const HARDENING: [(&str, &str); 10] = [
    ("NoNewPrivileges", "yes"),
    ("CapabilityBoundingSet", ""),
    ("AmbientCapabilities", ""),
    ("ProtectSystem", "strict"),
    ("ProtectHome", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectKernelModules", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("KeyringMode", "private"),
];

fn head(service: &Service) -> Unit {
    Unit::new(&["Written by `dora-remote`; your own settings belong into a drop-in: `systemctl edit UNIT`."])
        .section("Unit")
        .set("Description", service.description)
        .all(&[
            ("Wants", "network-online.target"),
            ("After", "network-online.target"),
            // Nobody may be there to type `reset-failed`.
            ("StartLimitIntervalSec", "0"),
        ])
}

fn running(service: &Service) -> [(&'static str, &'static str); 10] {
    [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("User", service.user),
        ("Group", service.user),
        ("StateDirectory", service.user),
        ("StateDirectoryMode", "0700"),
        ("Restart", "always"),
        ("RestartSec", "2s"),
        ("TimeoutStartSec", "90s"),
        ("WatchdogSec", "30s"),
    ]
}

fn tail(unit: Unit) -> String {
    unit.section("Install").set("WantedBy", "multi-user.target").text()
}

fn exec(program: &Path, verb: &str, state: &Path, arguments: &[OsString]) -> Result<String, String> {
    let line = [
        program.as_os_str(),
        OsStr::new(verb),
        OsStr::new("--state"),
        state.as_os_str(),
    ];
    command_line(line.into_iter().chain(arguments.iter().map(OsString::as_os_str)))
}

fn groups(groups: &[String]) -> Result<String, String> {
    let good = |group: &&String| {
        let start = group.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        start && group.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    match groups.iter().find(|group| !good(group)) {
        Some(bad) => Err(format!("`{}` is no name of a group", bad.escape_debug())),
        None => Ok(groups.join(" ")),
    }
}

fn files(service: &Service, unit: String) -> Vec<UnitFile> {
    let Service { unit: name, user, .. } = service;
    let home = service.home().display().to_string();
    let users = Unit::new(&["The user that the service runs as. See sysusers.d(5)."]).text()
        + &format!("u {user} - \"{}\" {home} -\n", service.description);
    let directories = Unit::new(&["The home of that user, for commands that are run before the service. See tmpfiles.d(5)."])
        .text()
        + &format!("d {home} 0700 {user} {user} -\n");
    [
        (format!("etc/systemd/system/{name}.service"), unit),
        (format!("etc/sysusers.d/{name}.conf"), users),
        (format!("etc/tmpfiles.d/{name}.conf"), directories),
    ]
    .into_iter()
    .map(|(path, text)| UnitFile { path: path.into(), text })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit_of(files: &[UnitFile]) -> &str {
        &files
            .iter()
            .find(|file| file.path.ends_with("system"))
            .unwrap_or(&files[0])
            .text
    }

    fn has(text: &str, line: &str) -> bool {
        text.lines().any(|known| known == line)
    }

    #[test]
    fn neither_service_is_root_or_has_a_capability() {
        let coordinator = coordinator(&CoordinatorWishes::default()).expect("good");
        let daemon = daemon(&DaemonWishes::default()).expect("good");
        for (files, user) in [(&coordinator, "dora-remote-coordinator"), (&daemon, "dora-remote")] {
            let text = unit_of(files);
            for line in [
                &format!("User={user}"),
                &format!("StateDirectory={user}"),
                "StateDirectoryMode=0700",
                "Type=notify",
                "Restart=always",
                "WatchdogSec=30s",
                "NoNewPrivileges=yes",
                "CapabilityBoundingSet=",
                "ProtectSystem=strict",
                "ProtectHome=yes",
            ] {
                assert!(has(text, line), "{line} is missing in\n{text}");
            }
        }
    }

    #[test]
    fn what_nodes_need_is_not_taken_from_them() {
        let files = daemon(&DaemonWishes::default()).expect("good");
        let text = unit_of(&files);
        assert!(has(text, "KillMode=process") && has(text, "OOMPolicy=continue"), "{text}");
        for key in [
            "PrivateDevices",
            "PrivateTmp",
            "MemoryDenyWriteExecute",
            "RestrictRealtime",
            "RemoveIPC",
            "ProtectClock",
        ] {
            assert!(
                !text.lines().any(|line| line.starts_with(&format!("{key}="))),
                "{key} in\n{text}"
            );
        }
        assert!(has(
            unit_of(&coordinator(&CoordinatorWishes::default()).expect("good")),
            "MemoryDenyWriteExecute=yes"
        ));
    }

    #[test]
    fn groups_that_are_none_are_refused() {
        let with = |group: &str| {
            daemon(&DaemonWishes {
                groups: vec!["video".to_owned(), group.to_owned()],
                ..DaemonWishes::default()
            })
        };
        assert!(has(
            unit_of(&with("dialout").expect("good")),
            "SupplementaryGroups=video dialout"
        ));
        for bad in ["", "a b", "x\nUser=root", "-x"] {
            assert!(with(bad).is_err(), "{bad:?}");
        }
    }
}
