//! Coming in with an invite: what its holder may ask, for how long, how many at once, and whom it never tells anything.

use crate::{
    raw::{closed_with, raw_with},
    world::*,
};
use dora_remote_certs::{
    Clock, FloorClock, JoinCredentials, JoinKey, JoinTarget, SystemClock, client_config_for_join, new_seed, sha256,
};
use dora_remote_link::{AcceptOptions, CallError, CloseCode, DialError, JoinDialer, Patience, Rights, Router, TlsAlert};
use dora_remote_protocol::{
    identity::Role,
    invite::InviteSeed,
    refusal::{Refusal, RefusalCode},
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// An invite for `daemon/robot-7`, and records in which it is open.
struct Invite {
    seed: InviteSeed,
    target: JoinTarget,
    records: Arc<Records>,
    options: Option<AcceptOptions>,
}

impl Invite {
    fn of(world: &World) -> Self {
        let credentials = world.credentials(Role::Coordinator, "main");
        let records = Records::of(&credentials);
        let invite = Self {
            seed: new_seed().expect("random"),
            target: JoinTarget {
                trust_domain: credentials.identity().trust_domain.clone(),
                root_hash: sha256(credentials.root()),
            },
            options: Some(options(credentials, records.clone())),
            records,
        };
        let robot = "spiffe://test.example/daemon/robot-7".parse().expect("good");
        invite.records.change(|snapshot| snapshot.invite(invite.key(), robot));
        invite
    }

    fn key(&self) -> JoinKey {
        self.credentials().join_key()
    }

    fn credentials(&self) -> JoinCredentials {
        JoinCredentials::of(&self.seed).expect("a key")
    }

    fn serve(&mut self, patience: Patience) -> Server {
        Server::with_patience(self.options.take().expect("served once"), router(), patience)
    }

    fn dialer(&self) -> JoinDialer {
        self.dialer_at(Arc::new(SystemClock))
    }

    fn dialer_at(&self, clock: Arc<dyn Clock>) -> JoinDialer {
        JoinDialer::new(self.credentials(), self.target.clone(), speaker(), clock).expect("a dialler")
    }
}

fn router() -> Router {
    echo()
        .call(|_, Enter(number)| async move { Ok(number + 1) })
        .only_for_invited::<Enter>()
        .call(|_, Again(number)| async move { Ok(number + 2) })
        .also_for_lapsed::<Again>()
}

#[track_caller]
fn refusal<T: std::fmt::Debug>(outcome: Result<T, CallError>) -> Refusal {
    match outcome {
        Err(CallError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_holder_of_an_invite_may_join_and_do_nothing_else() {
    let (lines, _guard) = Lines::capture();
    let world = World::new();
    let mut invite = Invite::of(&world);
    let mut server = invite.serve(Patience::default());
    let (peer, root) = invite.dialer().dial(&server.address).await.expect("dialled");
    assert_eq!(sha256(&root), invite.target.root_hash);
    assert_eq!(peer.identity().to_string(), "spiffe://test.example/coordinator/main");
    assert_eq!(peer.call(&Enter(1), PATIENCE).await.expect("joined"), 2);
    let seen = server.arrived().await;
    assert_eq!(seen.rights(), Rights::JoinOnly(invite.key()));
    assert_eq!(seen.identity().to_string(), "spiffe://test.example/daemon/robot-7");
    assert_eq!(seen.certificate().serial, "");

    // What the role of the invited will allow is not allowed yet.
    let refused = refusal(peer.call(&Again(1), PATIENCE).await);
    assert_eq!(refused.code, RefusalCode::Denied);
    assert!(refused.message.contains("nothing but joining"), "{refused}");
    assert!(refused.hint.contains("join first"), "{}", refused.hint);
    let line = lines.only_refusal().await;
    assert!(line.contains("robot-7") && line.contains("Again"), "{line}");
    assert!(!peer.is_closed());
    server.end().await;
}

#[tokio::test]
async fn nobody_but_the_holder_of_an_invite_joins() {
    let world = World::new();
    let mut invite = Invite::of(&world);
    invite
        .records
        .change(|snapshot| snapshot.set_renew_window(Duration::from_secs(3600)));
    let mut server = invite.serve(Patience::default());
    let lapsed = world.expired(Role::Daemon, "robot-7");
    for (credentials, rights) in [
        (world.credentials(Role::Admin, "root"), Rights::Full),
        (lapsed, Rights::RenewOnly),
    ] {
        let dialer = dora_remote_link::Dialer::new(&credentials, speaker(), dora_remote_link::DialKind::Daemon);
        let peer = dialer.expect("a dialler").dial(&server.address).await.expect("dialled");
        let refused = refusal(peer.call(&Enter(1), PATIENCE).await);
        assert_eq!(refused.code, RefusalCode::Denied);
        assert!(refused.message.contains("holder of an invite"), "{refused}");
        assert!(refused.hint.contains("token"), "{}", refused.hint);
        assert_eq!(server.arrived().await.rights(), rights);
        assert_eq!(peer.call(&Again(1), PATIENCE).await.expect("that it may"), 3);
    }
    server.end().await;
}

#[tokio::test]
async fn an_invite_that_is_gone_ends_its_connections_and_opens_none() {
    let world = World::new();
    let mut invite = Invite::of(&world);
    let server = invite.serve(Patience::default());
    let (peer, _) = invite.dialer().dial(&server.address).await.expect("dialled");
    peer.call(&Enter(1), PATIENCE).await.expect("still open");
    let closed = world.credentials(Role::Coordinator, "main");
    invite
        .records
        .change(|snapshot| *snapshot = dora_remote_certs::AdmissionSnapshot::of(&closed).expect("a snapshot"));
    let refused = refusal(peer.call(&Enter(1), PATIENCE).await);
    assert_eq!(refused.code, RefusalCode::InviteVoid);
    assert_eq!(soon(peer.closed()).await.code(), Some(CloseCode::Refused));
    let (again, _) = invite.dialer().dial(&server.address).await.expect("it learns it later");
    match again.call(&Enter(1), PATIENCE).await {
        Err(CallError::PeerRefusedUs { alert }) => assert_eq!(alert, TlsAlert::UNKNOWN_CA),
        other => panic!("{other:?}"),
    }
    server.end().await;
}

#[tokio::test]
async fn a_server_under_another_root_learns_nothing_of_the_invite() {
    let (lines, _guard) = Lines::capture();
    // The address of the token leads to somebody else, whose trust domain even has the same name.
    let (world, other) = (World::new(), World::new());
    let invite = Invite::of(&world);
    let server = other.serve(router());
    let error = invite.dialer().dial(&server.address).await.expect_err("not trusted");
    assert!(matches!(error, DialError::ServerNotTrusted { .. }), "{error:?}");
    let line = lines.only_refusal().await;
    assert!(line.contains("does not trust us"), "{line}");
    server.end().await;
}

#[tokio::test]
async fn a_token_with_a_wrong_root_hash_is_of_no_use() {
    let world = World::new();
    let mut invite = Invite::of(&world);
    let server = invite.serve(Patience::default());
    invite.target.root_hash[0] ^= 1;
    let error = invite.dialer().dial(&server.address).await.expect_err("not trusted");
    assert!(matches!(error, DialError::ServerNotTrusted { .. }), "{error:?}");
    server.end().await;
}

#[tokio::test]
async fn a_board_without_a_clock_joins() {
    let world = World::new();
    let mut invite = Invite::of(&world);
    let server = invite.serve(Patience::default());
    let error = invite
        .dialer_at(Arc::new(Epoch))
        .dial(&server.address)
        .await
        .expect_err("too early");
    assert!(
        matches!(error, DialError::ServerNotYetValid { now, .. } if now == UNIX_EPOCH),
        "{error:?}"
    );
    let clock = FloorClock::new(Arc::new(Epoch), UNIX_EPOCH, None).unattended();
    let (peer, _) = invite
        .dialer_at(Arc::new(clock))
        .dial(&server.address)
        .await
        .expect("dialled");
    assert_eq!(peer.call(&Enter(1), PATIENCE).await.expect("joined"), 2);
    server.end().await;
}

/// The clock of a board that has just booted.
#[derive(Debug)]
struct Epoch;

impl Clock for Epoch {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH
    }
}

#[tokio::test]
async fn an_invite_has_few_connections_and_they_end_by_themselves() {
    const MOST: usize = 8;
    let (lines, _guard) = Lines::capture();
    let world = World::new();
    let mut invite = Invite::of(&world);
    let mut server = invite.serve(Patience {
        one_purpose: Duration::from_secs(3),
        ..Patience::default()
    });
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let tls = client_config_for_join(&invite.credentials(), &invite.target, clock, Arc::default()).expect("a configuration");
    let mut held = Vec::new();
    for _ in 0..MOST {
        let connected = raw_with(tls.clone(), server.socket_address()).await.expect("connected");
        crate::refusals::say_hello(&connected.1).await;
        held.push(connected);
        server.arrived().await;
    }
    let (_endpoint, surplus) = raw_with(tls, server.socket_address()).await.expect("connected");
    assert_eq!(closed_with(&surplus).await, CloseCode::Refused);
    let line = lines.only_refusal().await;
    assert!(line.contains("too many connections") && line.contains("robot-7"), "{line}");
    // A member of that name is not in their way, nor they in its.
    let dialer = world.dialer(Role::Daemon, "robot-7");
    let member = dialer.dial(&server.address).await.expect("dialled");
    assert_eq!(member.call(&Again(1), PATIENCE).await.expect("answered"), 3);
    for (_, connection) in &held {
        assert_eq!(closed_with(connection).await, CloseCode::TimeOver);
    }
    assert!(!member.is_closed());
    server.end().await;
}
