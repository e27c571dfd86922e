//! `invite`, `invite list`, `invite revoke`: from an admin's laptop and on the coordinator's host.

use crate::world::{Coordinator, Home};
use dora_remote_protocol::invite::InviteToken;

#[test]
fn an_admin_invites_from_elsewhere_and_the_token_leads_where_the_admin_went() {
    let coordinator = Coordinator::start();
    let admin = coordinator.joined("admin", "ann");
    let line = [
        "invite",
        "--role",
        "operator",
        "--name",
        "olga",
        "--machines",
        "team=arm",
        "--expires",
        "12h",
    ];
    let made = admin.json(&line);
    let token: InviteToken = made["token"].as_str().expect("a token").parse().expect("a good one");
    assert_eq!(token.addresses(), std::slice::from_ref(&coordinator.address));
    assert_eq!(made["identity"], "spiffe://lab/operator/olga");
    assert_eq!(made["command"], format!("dora-remote join {token}"));
    let said = admin.run(&["invite", "--role", "viewer", "--name", "vera"]);
    assert!(said.stderr.contains("leads nowhere from another machine"), "{}", said.stderr);

    let olga = Home::new();
    olga.ok(&["join", made["token"].as_str().expect("a token")]);
    assert_eq!(olga.run(&["invite", "list"]).exit, 4);
    let listed = admin.json(&["invite", "list"]);
    let of = |name: &str| {
        let invites = listed["invites"].as_array().expect("a list");
        let is_meant = |invite: &&serde_json::Value| invite["identity"].as_str().is_some_and(|id| id.ends_with(name));
        invites.iter().find(is_meant).expect("listed").clone()
    };
    assert_eq!(
        (of("olga")["state"].as_str(), of("vera")["state"].as_str()),
        (Some("used"), Some("open"))
    );
    assert_eq!(of("olga")["machines"]["team"], "arm");
    assert_eq!(of("olga")["id"], made["id"]);
    assert_eq!(of("ann")["by"].as_str().map(|by| by.starts_with("local uid ")), Some(true));

    let id = of("vera")["id"].as_str().expect("an id").to_owned();
    let taken = admin.json(&["invite", "revoke", &id]);
    assert_eq!(taken["invites"][0]["state"], "revoked");
    assert_eq!(taken["invites"][0]["revoked_by"], "spiffe://lab/admin/ann");
    assert_eq!(admin.run(&["invite", "revoke", &id]).exit, 1, "it is not open any more");
    assert_eq!(admin.run(&["invite", "revoke", "nobody"]).exit, 3);
}

#[test]
fn on_the_host_no_certificate_is_needed_but_an_address() {
    let mut coordinator = Coordinator::start();
    let host = &coordinator.home;
    let seen = host.run(&["invite", "--role", "daemon", "--name", "robot-7"]);
    assert_eq!(seen.exit, 2, "{seen:?}");
    assert!(
        seen.stderr.contains("--address") && seen.stderr.contains("nothing was changed"),
        "{}",
        seen.stderr
    );
    let listed = host.json(&["invite", "list"]);
    assert_eq!(listed["invites"][0]["state"], "revoked", "nobody holds its token");
    coordinator.invite("daemon", "robot-7", &[]);

    let socket = host.path(".local/state/dora-remote/coordinator/admin.sock");
    let socket = socket.to_str().expect("UTF-8");
    let elsewhere = Home::new();
    let known = elsewhere.json(&["certs", "show", "--all", "--admin-socket", socket]);
    assert_eq!(known["schema"], 1);
    let mut command = elsewhere.command(crate::world::BIN);
    command.env("DORA_REMOTE_ADMIN_SOCKET", socket).args(["invite", "list"]);
    assert!(command.output().expect("runs").status.success());
    let both = ["invite", "list", "--admin-socket", socket, "--coordinator-addr", "h"];
    assert_eq!(elsewhere.run(&both).exit, 2);
    assert_eq!(elsewhere.run(&["invite", "list"]).exit, 2, "no coordinator is named");
    assert_eq!(elsewhere.run(&["invite", "list", "--admin-socket", "/no/such.sock"]).exit, 5);
    let wrong = [
        "invite",
        "--role",
        "viewer",
        "--name",
        "x",
        "--labels",
        "a=b",
        "--admin-socket",
        socket,
    ];
    assert_eq!(elsewhere.run(&wrong).exit, 2, "only machines have labels");
    coordinator.stop();
    assert_eq!(coordinator.home.run(&["invite", "list"]).exit, 2, "its socket went with it");
}
