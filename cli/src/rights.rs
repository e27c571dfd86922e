//! Which roles may use which verb, worked out from the table of requests and from nothing else.
//!
//! A verb of the command line makes one or more requests; whoever may make all of them may use it. What the coordinator
//! decides besides (revoked, limited to some machines) is known to it alone.

use dora_remote_protocol::{
    access, audit, backup, cli_to_coordinator as cli, coordinator_to_daemon as order, daemon_to_coordinator as report,
    identity::{Role, RoleSet},
    request::Request,
    verbs::TABLE,
};

/// A verb and the requests that it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The verb as it is typed.
    pub verb: &'static str,
    /// Names of its requests; none for a verb that asks no coordinator.
    pub requests: &'static [&'static str],
}

/// Verbs that can also be used without any certificate, through the admin socket of the coordinator's host.
const LOCAL: &[&str] = &[
    "audit",
    "invite",
    "invite list",
    "invite revoke",
    "revoke",
    "certs show --all",
    "coordinator backup",
    "coordinator accept-restore",
];

/// Who may use a verb that no role allows: what lets them in is an invite.
pub const INVITED: &str = "the holder of an invite";

/// Every verb of the command line, in the order of the help.
pub const VERBS: &[Needs] = &[
    Needs {
        verb: "start",
        requests: &[
            cli::HasBundle::NAME,
            cli::PutBundle::NAME,
            cli::StartDataflow::NAME,
            cli::WatchDataflow::NAME,
            cli::ReadLogs::NAME,
        ],
    },
    Needs {
        verb: "stop",
        requests: &[cli::StopDataflow::NAME, cli::ListDataflows::NAME],
    },
    Needs {
        verb: "list",
        requests: &[cli::ListDataflows::NAME],
    },
    Needs {
        verb: "logs",
        requests: &[cli::ReadLogs::NAME, cli::ListDataflows::NAME],
    },
    Needs {
        verb: "machines",
        requests: &[cli::ListMachines::NAME],
    },
    Needs {
        verb: "status",
        requests: &[cli::GetStatus::NAME, cli::ListMachines::NAME],
    },
    Needs {
        verb: "audit",
        requests: &[audit::ReadAudit::NAME, audit::ListWitnesses::NAME],
    },
    Needs {
        verb: "invite",
        requests: &[access::CreateInvite::NAME],
    },
    Needs {
        verb: "invite list",
        requests: &[access::ListInvites::NAME],
    },
    Needs {
        verb: "invite revoke",
        requests: &[access::RevokeInvite::NAME],
    },
    Needs {
        verb: "join",
        requests: &[access::Join::NAME],
    },
    Needs {
        verb: "revoke",
        requests: &[access::Revoke::NAME],
    },
    Needs {
        verb: "certs",
        requests: &[],
    },
    Needs {
        verb: "certs show --all",
        requests: &[access::ListIdentities::NAME],
    },
    Needs {
        verb: "context",
        requests: &[],
    },
    Needs {
        verb: "can-i",
        requests: &[],
    },
    // These two make an identity of their own for the coordinator that they start.
    Needs {
        verb: "up",
        requests: &[],
    },
    Needs {
        verb: "down",
        requests: &[],
    },
    Needs {
        verb: "coordinator",
        requests: &[
            order::PrepareRun::NAME,
            order::SpawnRun::NAME,
            order::ReleaseBarrier::NAME,
            order::StopRun::NAME,
            order::ForgetRun::NAME,
            order::KeepHead::NAME,
            order::KeepRevocations::NAME,
            order::ShowHeads::NAME,
            order::Ping::NAME,
        ],
    },
    Needs {
        verb: "coordinator backup",
        requests: &[backup::ReadBackup::NAME],
    },
    Needs {
        verb: "coordinator accept-restore",
        requests: &[access::AcceptRestore::NAME],
    },
    Needs {
        verb: "daemon",
        requests: &[
            report::JoinMachine::NAME,
            report::Heartbeat::NAME,
            report::ReportEvents::NAME,
            report::ShipLogs::NAME,
            report::FetchBundle::NAME,
            access::Renew::NAME,
        ],
    },
];

impl Needs {
    /// The needs of the verb that is typed so; `ps` is `list`.
    #[must_use]
    pub fn of(verb: &str) -> Option<Self> {
        let verb = if verb == "ps" { "list" } else { verb };
        VERBS.iter().copied().find(|needs| needs.verb == verb)
    }

    /// Whether the role may make all its requests.
    #[must_use]
    pub fn allow(self, role: Role) -> bool {
        self.requests.iter().all(|request| may_ask(request, role))
    }

    /// The roles that may use it, in the order of their numbers.
    #[must_use]
    pub fn roles(self) -> Vec<Role> {
        Role::ALL.into_iter().filter(|role| self.allow(*role)).collect()
    }

    /// Whether it is for those who hold an invite, whatever their role.
    #[must_use]
    pub fn is_for_invited(self) -> bool {
        let is_nobodys = |request: &&str| TABLE.iter().any(|row| row.name == *request && row.may_ask == RoleSet::NOBODY);
        self.needs_role() && self.requests.iter().all(is_nobodys)
    }

    /// Whether the admin socket of the coordinator's host lets its user do without a role.
    #[must_use]
    pub fn is_local(self) -> bool {
        LOCAL.contains(&self.verb)
    }

    /// Whether it asks a coordinator, or is asked by one.
    #[must_use]
    pub const fn needs_role(self) -> bool {
        !self.requests.is_empty()
    }
}

/// The requests that no verb of this command line makes, such as those of newer or older programs.
#[must_use]
pub fn requests_without_verb() -> Vec<Needs> {
    let is_used = |name: &&'static str| VERBS.iter().any(|needs| needs.requests.contains(name));
    let unused = TABLE
        .iter()
        .map(|row| std::slice::from_ref(&row.name))
        .filter(|name| !is_used(&name[0]));
    unused
        .map(|requests| Needs {
            verb: requests[0],
            requests,
        })
        .collect()
}

/// Help that ends with the roles that may use the verb.
#[must_use]
pub fn help(verb: &str, text: &str) -> String {
    format!("{text}\n{}", sentence(verb))
}

/// The roles that may use the verb, in a sentence.
#[must_use]
pub fn sentence(verb: &str) -> String {
    match Needs::of(verb) {
        Some(needs) if needs.is_for_invited() => "Needs an invite, and no role.".to_owned(),
        Some(needs) if needs.is_local() => {
            let roles = any_of(&needs.roles());
            format!("Needs the role {roles}, or the admin socket on the coordinator's host.")
        }
        Some(needs) if needs.needs_role() => format!("Needs the role {}.", any_of(&needs.roles())),
        _ => "Needs no role.".to_owned(),
    }
}

/// Roles as alternatives: `admin, operator or viewer`.
#[must_use]
pub fn any_of(roles: &[Role]) -> String {
    let names: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
    match names.split_last() {
        None => "of nobody".to_owned(),
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

fn may_ask(request: &str, role: Role) -> bool {
    TABLE.iter().any(|row| row.name == request && row.may_ask.contains(role))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::CommandFactory;

    #[test]
    fn every_verb_of_the_command_line_has_its_needs() {
        let command = Cli::command();
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            assert!(Needs::of(verb.get_name()).is_some(), "{} has none", verb.get_name());
        }
    }

    #[test]
    fn every_need_stands_in_the_table_and_somebody_has_the_right() {
        for needs in VERBS {
            for request in needs.requests {
                assert!(TABLE.iter().any(|row| row.name == *request), "{request} of {}", needs.verb);
            }
            let has_some = !needs.roles().is_empty();
            assert!(has_some != needs.is_for_invited(), "who may use {}?", needs.verb);
        }
        for request in requests_without_verb() {
            assert!(TABLE.iter().any(|row| row.name == request.verb));
        }
    }

    #[test]
    fn the_help_of_each_verb_ends_with_what_the_table_says() {
        assert_eq!(sentence("start"), "Needs the role admin or operator.");
        assert_eq!(sentence("ps"), "Needs the role admin, operator or viewer.");
        assert_eq!(sentence("daemon"), "Needs the role daemon.");
        assert_eq!(sentence("coordinator"), "Needs the role coordinator.");
        assert_eq!(sentence("up"), "Needs no role.");
        assert_eq!(sentence("join"), "Needs an invite, and no role.");
        assert_eq!(
            sentence("revoke"),
            "Needs the role admin, or the admin socket on the coordinator's host."
        );
        for verb in Cli::command()
            .get_subcommands()
            .filter(|verb| !verb.has_subcommands() && !verb.is_hide_set())
        {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&sentence(verb.get_name())), "{}: {help}", verb.get_name());
        }
    }

    #[test]
    fn what_goes_through_the_admin_socket_is_for_admins_elsewhere() {
        for verb in LOCAL {
            let needs = Needs::of(verb).expect("a verb");
            assert_eq!(needs.roles(), [Role::Admin], "{verb}");
        }
    }

    #[test]
    fn a_verb_needs_the_right_to_all_its_requests() {
        let both = Needs {
            verb: "both",
            requests: &[cli::ListDataflows::NAME, cli::StopDataflow::NAME],
        };
        assert!(both.allow(Role::Operator) && !both.allow(Role::Viewer) && !both.allow(Role::Daemon));
        let unknown = Needs {
            verb: "unknown",
            requests: &["no-such-request"],
        };
        assert_eq!(any_of(&unknown.roles()), "of nobody");
    }
}
