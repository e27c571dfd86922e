//! Admins, joiners and members for tests, and a clock that a test sets.

use crate::support::{PATIENCE, Person, Running, World, soon};
use dora_remote_certs::{Clock, Credentials, JoinCredentials, JoinTarget, Request, SystemClock, new_key_and_request, new_seed};
use dora_remote_link::{Address, CallError, DialError, DialKind, Dialer, JoinDialer, Peer, Speaker};
use dora_remote_protocol::{
    access::{CertificateIssued, CreateInvite, Join, Renew},
    dataflow::Labels,
    identity::{Identity, Role},
    ids::{BootId, InstanceId},
    invite::InviteSeed,
    refusal::Refusal,
    request::Request as Asked,
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use uuid::Uuid;

/// A clock that stands still until it is set.
#[derive(Debug)]
pub(crate) struct Hands(Mutex<SystemTime>);

impl Hands {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(SystemTime::now())))
    }

    pub(crate) fn forward(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for Hands {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

/// The clock of this machine.
pub(crate) fn system() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// What an invite is made of by default: a minute for a daemon of that name.
pub(crate) fn wish(role: Role, name: &str) -> CreateInvite {
    CreateInvite {
        role,
        name: name.parse().unwrap(),
        labels: Labels::new(),
        machines: Labels::new(),
        join_key: [0; 32],
        life_ms: 60_000,
        certificate_life_ms: None,
        replace: false,
    }
}

/// What stands in a token.
pub(crate) struct Token {
    pub(crate) seed: InviteSeed,
    pub(crate) identity: Identity,
    root_hash: [u8; 32],
}

/// Has an admin make an invite.
pub(crate) async fn invite(admin: &Person, wish: CreateInvite) -> Result<Token, Refusal> {
    let seed = new_seed().unwrap();
    let key = JoinCredentials::of(&seed).unwrap().join_key();
    let created = admin.ask(CreateInvite { join_key: key.0, ..wish }).await?;
    Ok(Token {
        seed,
        identity: created.identity,
        root_hash: created.root_hash,
    })
}

impl Token {
    /// A connection with the key of the invite.
    pub(crate) async fn dial(&self, at: SocketAddr, clock: Arc<dyn Clock>) -> (Peer, JoinDialer) {
        let target = JoinTarget {
            trust_domain: self.identity.trust_domain.clone(),
            root_hash: self.root_hash,
        };
        let credentials = JoinCredentials::of(&self.seed).unwrap();
        let dialer = JoinDialer::new(credentials, target, speaker(), clock).unwrap();
        let (peer, _root) = soon("a connection", dialer.dial(&address(at))).await.unwrap();
        (peer, dialer)
    }

    /// Joins with a request of that key.
    pub(crate) async fn join(&self, at: SocketAddr, clock: Arc<dyn Clock>, request: &[u8]) -> Result<CertificateIssued, Refusal> {
        let (peer, _dialer) = self.dial(at, clock).await;
        ask(
            &peer,
            Join {
                request: request.to_vec(),
            },
        )
        .await
    }
}

/// Puts an answer and a key together.
pub(crate) fn credentials(world: &World, request: Request, issued: CertificateIssued) -> Credentials {
    let chain = issued.chain.into_iter().map(Into::into).collect();
    request.into_credentials(chain, world.authority().root().clone()).unwrap()
}

/// Invites, joins, and gives what the joiner has from then on.
pub(crate) async fn member(world: &World, running: &Running, clock: Arc<dyn Clock>, wish: CreateInvite) -> Credentials {
    let admin = admin(world, running.address, Arc::clone(&clock)).await;
    let token = invite(&admin, wish).await.unwrap();
    let request = new_key_and_request(&token.identity).unwrap();
    let issued = token.join(running.address, clock, request.der()).await.unwrap();
    credentials(world, request, issued)
}

/// Somebody who may do everything.
pub(crate) async fn admin(world: &World, at: SocketAddr, clock: Arc<dyn Clock>) -> Person {
    let credentials = world.issue(Role::Admin, "ada", Duration::from_secs(30 * 24 * 3600), clock.now());
    with(&credentials, at, clock).await.unwrap()
}

/// A connection with these credentials that the coordinator has accepted.
pub(crate) async fn with(credentials: &Credentials, at: SocketAddr, clock: Arc<dyn Clock>) -> Result<Person, CallError> {
    let kind = match credentials.identity().role {
        Role::Daemon => DialKind::Daemon,
        Role::Admin | Role::Operator | Role::Viewer | Role::Coordinator => DialKind::Follow,
    };
    let dialer = Dialer::with_clock(credentials, speaker(), kind, clock).unwrap();
    let peer = match soon("a connection", dialer.dial(&address(at))).await {
        Ok(peer) => peer,
        Err(DialError::OurCertificateRefused { alert, .. }) => return Err(CallError::PeerRefusedUs { alert }),
        Err(other) => panic!("{other}"),
    };
    soon("the welcome", peer.welcome()).await?;
    Ok(Person::of(peer, dialer))
}

/// Asks for a certificate to follow the present one.
pub(crate) async fn renew(person: &Person, request: &Request) -> Result<CertificateIssued, Refusal> {
    person
        .ask(Renew {
            request: request.der().to_vec(),
        })
        .await
}

/// An answer or a refusal; anything else ends the test.
pub(crate) async fn ask<R: Asked>(peer: &Peer, request: R) -> Result<R::Reply, Refusal> {
    match peer.call(&request, PATIENCE).await {
        Ok(reply) => Ok(reply),
        Err(CallError::Refused(refusal)) => Err(refusal),
        Err(other) => panic!("{}: {other}", R::NAME),
    }
}

pub(crate) fn speaker() -> Speaker {
    Speaker {
        build: "test".to_owned(),
        features: Vec::new(),
        instance: InstanceId(Uuid::new_v4()),
        boot: BootId(Uuid::from_u128(1)),
    }
}

pub(crate) fn address(at: SocketAddr) -> Address {
    at.to_string().parse().unwrap()
}
