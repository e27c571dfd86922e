//! Who may ask what, against a real coordinator: every row of the table of verbs with every role, and with an invite.
//!
//! What is right stands here a second time, on purpose: a verb that is added without a decision here fails.

use dora_remote_certs::Credentials;
use dora_remote_protocol::{identity::Role, invite::InviteToken, refusal::RefusalCode, request::VerbRow, verbs::TABLE};
use dora_remote_tests::{
    cluster::Cluster,
    raw_ask::{Asker, Told},
};

/// Whom a coordinator lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowed {
    /// Everybody who holds a certificate of one of these roles.
    Roles(&'static [Role]),
    /// The holder of an invite, and nobody else.
    Invited,
    /// Nobody: a coordinator gives such orders, and takes none.
    Order,
}

const LOOK: Allowed = Allowed::Roles(&[Role::Admin, Role::Operator, Role::Viewer]);
const ACT: Allowed = Allowed::Roles(&[Role::Admin, Role::Operator]);
const ADMIN: Allowed = Allowed::Roles(&[Role::Admin]);
const MACHINE: Allowed = Allowed::Roles(&[Role::Daemon]);
const HOLDERS: Allowed = Allowed::Roles(&[Role::Admin, Role::Operator, Role::Viewer, Role::Daemon]);

fn decision(row: &VerbRow) -> Allowed {
    match row.name {
        "has-bundle" | "put-bundle" | "start" | "stop" => ACT,
        "list" | "watch" | "logs" | "machines" | "status" => LOOK,
        "invite" | "invite-list" | "invite-revoke" | "revoke" | "identities" => ADMIN,
        "audit" | "audit-witnesses" | "accept-restore" | "backup" => ADMIN,
        "renew" => HOLDERS,
        "join" => Allowed::Invited,
        "prepare-run" | "spawn-run" | "release-barrier" | "stop-run" | "forget-run" => Allowed::Order,
        "keep-head" | "keep-revocations" | "show-heads" | "ping" | "want-logs" | "drain-logs" => Allowed::Order,
        "join-machine" | "heartbeat" | "report-events" | "ship-logs" | "fetch-bundle" => MACHINE,
        other => panic!("nobody has decided who may ask `{other}`"),
    }
}

#[test]
fn every_verb_with_every_role() {
    let cluster = Cluster::start(&[]);
    for role in [Role::Admin, Role::Operator, Role::Viewer, Role::Daemon] {
        let folder = cluster.issue(role.as_str(), "somebody", &[]);
        let credentials = Credentials::load(&folder).expect("a good certificate");
        let asker = Asker::with(cluster.address(), &credentials);
        for row in TABLE {
            let told = asker.ask(row, &[]);
            match decision(row) {
                Allowed::Roles(roles) if roles.contains(&role) => assert_eq!(told, Told::LetThrough, "{} by {role}", row.name),
                Allowed::Roles(_) | Allowed::Invited => denied(&told, row, role.as_str()),
                Allowed::Order => assert!(
                    matches!(told, Told::Refused(RefusalCode::UnknownVerb, _)),
                    "{} by {role}: {told:?}",
                    row.name
                ),
            }
        }
    }
}

#[test]
fn an_invite_lets_its_holder_join_and_nothing_else() {
    let cluster = Cluster::start(&[]);
    let token = cluster
        .cli()
        .ok(&["invite", "--role", "admin", "--name", "guest", "--token-only"]);
    let token: InviteToken = token.trim().parse().expect("a token");
    let asker = Asker::invited(cluster.address(), &token);
    for row in TABLE {
        let told = asker.ask(row, &[]);
        match decision(row) {
            Allowed::Invited => assert_eq!(told, Told::LetThrough, "{}", row.name),
            Allowed::Roles(_) => denied(&told, row, "the holder of an invite"),
            Allowed::Order => assert_ne!(told, Told::LetThrough, "{}", row.name),
        }
    }
}

#[test]
fn the_decisions_are_the_table() {
    for row in TABLE {
        let expected: &[Role] = match decision(row) {
            Allowed::Roles(roles) => roles,
            Allowed::Invited => &[],
            Allowed::Order => &[Role::Coordinator],
        };
        assert_eq!(row.may_ask.iter().collect::<Vec<_>>(), expected, "{}", row.name);
    }
}

#[test]
fn can_i_prints_what_the_coordinator_does() {
    let cluster = Cluster::start(&[]);
    for role in [Role::Admin, Role::Operator, Role::Viewer] {
        let cli = cluster.cli().with_identity(&cluster.issue(role.as_str(), "somebody", &[]));
        let may = |verb: &str| cli.run(&["can-i", verb]).code == 0;
        assert_eq!(may("stop"), role != Role::Viewer, "{role}");
        assert_eq!(may("invite"), role == Role::Admin, "{role}");
        assert_eq!(may("audit"), role == Role::Admin, "{role}");
        assert!(may("list"), "{role}");
    }
}

#[track_caller]
fn denied(told: &Told, row: &VerbRow, who: &str) {
    let Told::Refused(RefusalCode::Denied, message) = told else {
        panic!("{} by {who}: {told:?}", row.name);
    };
    assert!(!message.is_empty());
}
